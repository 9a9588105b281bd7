"""`neuroscope doctor`: what this installation can do, and what to do about what it cannot."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import json
import os
import platform
import shutil
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import neuroscope
from neuroscope import events, places
from neuroscope.directory import EXTRAS
from neuroscope.errors import NeuroScopeError, first_line
from neuroscope.results import plain
from neuroscope_bridge.cli.preferences import VARIABLES, settings_file
from neuroscope_bridge.files import check_folder


@dataclass(frozen=True)
class Check:
    """One thing looked at. state: "ok", "absent" (something optional is not there) or "wrong"."""

    name: str
    state: str
    found: str
    remedy: str | None = None


def examine(as_json: bool) -> bool:
    """Print every check. Return whether nothing is wrong."""
    checks = list(_checks())
    if as_json:
        print(json.dumps(plain(checks), indent=2, ensure_ascii=False))
    else:
        for check in checks:
            print(f"{check.state:<7} {check.name:<22} {check.found}")
            if check.remedy is not None:
                print(f"{'':31}{check.remedy}")
    return all(check.state != "wrong" for check in checks)


def _checks() -> Iterator[Check]:
    python = f"{platform.python_version()} ({sys.executable})"
    yield (
        Check("python", "ok", python) if sys.version_info >= (3, 11) else Check("python", "wrong", python, "Use 3.11 or newer.")
    )
    yield Check("neuroscope", "ok", f"{neuroscope.__version__} in {Path(neuroscope.__file__).parent}")
    for extra, packages in EXTRAS.items():
        yield _extra(extra, packages)
    for engine in ("torch", "mlx"):
        if importlib.util.find_spec(engine) is not None:
            yield _tried(f"engine {engine}", lambda engine=engine: _engine(engine))  # type: ignore[misc]
    yield _tried("experiments", _experiments)
    yield _tried("settings", _settings)
    from neuroscope.models.cache import cache_folder

    for name, folder in (("cache", cache_folder()), ("library", places.library_folder())):
        yield _tried(f"folder: {name}", lambda folder=folder: _folder(folder))  # type: ignore[misc]
    for name, meaning in VARIABLES.items():
        if os.environ.get(name):
            value = "(set)" if name.endswith("TOKEN") else os.environ[name]
            yield Check(name, "ok", f"{value}: {meaning}")


def _extra(extra: str, packages: tuple[str, ...]) -> Check:
    missing = [package for package in packages if importlib.util.find_spec(package) is None]
    if not missing:
        names = importlib.metadata.packages_distributions()
        return Check(extra, "ok", ", ".join(f"{package} {_version(names, package)}" for package in packages))
    command = f"pip install 'neuroscope-interp[{extra}]'"
    return Check(extra, "absent", f"without {', '.join(missing)}", command)


def _version(names: object, package: str) -> str:
    try:
        return importlib.metadata.version(names[package][0])  # type: ignore[index]
    except (KeyError, importlib.metadata.PackageNotFoundError):
        return "?"


def _tried(name: str, look: Callable[[], str]) -> Check:
    try:
        return Check(name, "ok", look())
    except NeuroScopeError as error:
        return Check(name, "wrong", error.message, error.remedy)
    except Exception as error:  # whatever a broken package raises
        return Check(name, "wrong", first_line(error))


def _engine(engine: str) -> str:
    """Load a model that ships and let it answer."""
    from neuroscope.models.model import TransformerModel

    with events.quietly():
        model = TransformerModel.from_hugging_face("bundled:gpt2-medium", engine=engine)
        answer = model.generate("The capital of France is", max_tokens=1).strip()
    if answer != "Paris":
        raise NeuroScopeError(f"The model that ships says {answer!r}, not 'Paris'.", remedy="Install NeuroScope again.")
    return f"bundled:gpt2-medium answers on {model.engine.device_name}"


def _experiments() -> str:
    from neuroscope_bridge.cli.examples import examples, examples_folder

    return f"{len(examples())} in {examples_folder()}"


def _settings() -> str:
    path = settings_file()
    return str(path) if path.is_file() else f"{path} (not there: every option has its usual value)"


def _folder(folder: Path) -> str:
    """That something can be written in a folder, or in the one in which it will be made."""
    there = next(place for place in (folder, *folder.parents) if place.exists())
    check_folder(there)
    return f"{folder}, {shutil.disk_usage(there).free / 2**30:.0f} GiB free"
