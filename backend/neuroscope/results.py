"""Results of experiments: they print, summarise themselves and convert to plain data.

A result is a dataclass. Its fields are its data; `as_dictionary` names them in camelCase, as the documented scripts do, and
makes every value fit for JSON.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Iterable, Mapping, Sized
from fractions import Fraction
from typing import TYPE_CHECKING, Any

from neuroscope.naming import camel_case
from neuroscope.vocabulary import public

if TYPE_CHECKING:
    from neuroscope.views.extensions import PagesOfResults as _Extended
else:
    from neuroscope.extensions import Extensible as _Extended


@public
@dataclasses.dataclass(frozen=True)
class Provenance:
    """What is needed to repeat a result.

    model: the bundled model, folder, file or repository that ran. asked_for: the alias under which the user asked for it, if
    any. dtype, device: floating type and device of the layers; None in files written before they were recorded. found_dtype:
    the type in which the tested circuit or neurons were found, if different.
    """

    model: str
    weights_hash: str
    engine: str
    task: str | None
    seed: int
    sizes: Mapping[str, int] = dataclasses.field(default_factory=dict)
    versions: Mapping[str, str] = dataclasses.field(default_factory=dict)
    asked_for: str | None = None
    dtype: str | None = None
    device: str | None = None
    found_dtype: str | None = None

    @property
    def title(self) -> str:
        """The model that ran, and the name asked for."""
        return titled(self.model, self.asked_for)

    def print_string(self) -> str:
        """One line: model, engine, precision, device, seed."""
        where = ", ".join(part for part in (self.engine, self.dtype, self.device, f"seed {self.seed}") if part)
        return f"a Provenance({self.title}, {where})"

    def footnote(self) -> str:
        """One line with everything: the foot of pages."""
        parts = [
            self.title,
            f"weights {self.weights_hash[:12]}",
            self.engine,
            self.dtype,
            self.device,
            None if self.found_dtype is None else f"found in {self.found_dtype}",
            self.task,
            f"seed {self.seed}",
            *(f"{name} {count}" for name, count in self.sizes.items()),
            *(f"{name} {version}" for name, version in self.versions.items()),
        ]
        return " · ".join(part for part in parts if part)


def titled(ran: str, asked_for: str | None) -> str:
    """
    >>> titled("bundled:gpt-oss-20b", "gpt-oss-20b")
    'bundled:gpt-oss-20b (for gpt-oss-20b)'
    """
    return ran if asked_for in (None, ran) else f"{ran} (for {asked_for})"


class Result(_Extended):
    """Base of every result; subclasses are dataclasses decorated with `@public`."""

    def summary(self) -> str:
        """A few lines for a person. Subclasses give what was found, its figures and the control."""
        return self.print_string()

    def print_string(self) -> str:
        """One line."""
        name = type(self).__name__
        return f"{'an' if name[0] in 'AEIOU' else 'a'} {name}"

    def as_dictionary(self) -> dict[str, Any]:
        """The fields as plain data with camelCase names, ready for JSON."""
        assert dataclasses.is_dataclass(self)
        return {
            camel_case(field.name): plain(getattr(self, field.name))
            for field in dataclasses.fields(self)
            if not field.name.startswith("_") and not field.metadata.get("internal", False)
        }

    def __str__(self) -> str:
        return self.print_string()


#: Nesting beyond this is cut off: JSON readers have limits.
_DEEPEST = 100


def plain(value: Any, printed: Callable[[Any], str] = str) -> Any:
    """`value` as JSON-able data: results become dictionaries, arrays nested lists, NaN and infinities None.

    Iterables become lists. An object without a plain form becomes `printed(object)`, and so does a container that holds itself
    or is nested too deeply. A lone surrogate, which no encoding can write, becomes U+FFFD.
    """
    return _plain(value, printed, ())


def _plain(value: Any, printed: Callable[[Any], str], within: tuple[int, ...]) -> Any:
    if value is None or isinstance(value, (bool, int)):
        return value
    if isinstance(value, str):
        return _whole(str(value))
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Fraction):
        return float(value)
    if id(value) in within or len(within) >= _DEEPEST:
        return f"({'itself' if id(value) in within else 'nested too deeply'}: {type(value).__name__})"
    within = (*within, id(value))
    if hasattr(value, "as_dictionary"):
        return _plain(value.as_dictionary(), printed, within)
    if isinstance(value, Mapping):
        return _plain_mapping(value, printed, within)
    if hasattr(value, "tolist"):
        return _plain(value.tolist(), printed, within)
    if isinstance(value, Sized) and isinstance(value, Iterable):
        return [_plain(item, printed, within) for item in value]
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {camel_case(f.name): _plain(getattr(value, f.name), printed, within) for f in dataclasses.fields(value)}
    return _whole(printed(value))


def _plain_mapping(value: Mapping[Any, Any], printed: Callable[[Any], str], within: tuple[int, ...]) -> dict[str, Any]:
    """Keys as text; keys with the same text (1 and '1') get a number."""
    found: dict[str, Any] = {}
    for key, item in value.items():
        name = text = _whole(str(key) if isinstance(key, (str, int, float)) else printed(key))
        number = 1
        while name in found:
            number += 1
            name = f"{text} ({number})"
        found[name] = _plain(item, printed, within)
    return found


def _whole(text: str) -> str:
    """The text with surrogate pairs joined and lone surrogates replaced."""
    if text.isascii() or not any("\ud800" <= letter <= "\udfff" for letter in text):
        return text
    return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
