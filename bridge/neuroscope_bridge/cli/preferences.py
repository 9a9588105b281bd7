"""The user's settings: a TOML file whose entries are options of commands.

    engine = "mlx"                  # for every command that has the option
    alias = ["gpt-oss-20b=HuggingFaceTB/SmolLM2-135M-Instruct"]

    [serve]                         # for one command
    http = "127.0.0.1:8000"

The command line comes before environment variables, these before the file.
"""

from __future__ import annotations

import os
import tomllib
from pathlib import Path
from typing import Any

import platformdirs

from neuroscope.errors import ArgumentError, did_you_mean, reason
from neuroscope_bridge.files import FileError

#: Environment variables that NeuroScope reads, with their meaning.
VARIABLES = {
    "NEUROSCOPE_SETTINGS": "the file of settings",
    "NEUROSCOPE_ENGINE": "--engine",
    "NEUROSCOPE_DTYPE": "--dtype",
    "NEUROSCOPE_DEVICE": "--device",
    "NEUROSCOPE_SEED": "--seed",
    "NEUROSCOPE_EMBEDDED": "--embedded, in the Jupyter kernel",
    "NEUROSCOPE_CACHE": "folder of converted models",
    "NEUROSCOPE_TP_PATIENCE": "seconds that processes which share a model wait for one another",
    "NEUROSCOPE_LIBRARY": "folder of your circuits",
    "NEUROSCOPE_TOKEN": "bearer token of `neuroscope serve`",
    "HF_HOME": "folder of models from the Hugging Face hub",
    "HF_HUB_OFFLINE": "1: download nothing",
}


def settings_file() -> Path:
    """`NEUROSCOPE_SETTINGS`, or `settings.toml` in the platform's folder of settings."""
    named = os.environ.get("NEUROSCOPE_SETTINGS")
    return Path(named) if named else platformdirs.user_config_path("neuroscope", appauthor=False) / "settings.toml"


def chosen_settings(command: Any) -> dict[str, Any]:
    """The file's entries as the defaults (click's) of a command and its subcommands; empty without a file.

    Raises `FileError` for a file that cannot be read, `ArgumentError` for an entry that no command has.
    """
    path = settings_file()
    try:
        given = tomllib.loads(path.read_text(encoding="utf-8"))
    except (FileNotFoundError, NotADirectoryError):
        return {}
    except (OSError, ValueError) as error:
        raise FileError(
            f"The settings {path} cannot be read: {reason(error)}.", remedy='A TOML file: engine = "mlx"'
        ) from error
    return _defaults(command, given, path, {})


def _defaults(command: Any, given: dict[str, Any], path: Path, inherited: dict[str, Any]) -> dict[str, Any]:
    """Defaults of one command: its own entries, and the inherited ones among its options."""
    if not hasattr(command, "commands"):
        options = {_spelt(option.opts): option for option in command.params if option.param_type_name == "option"}
        for name in given:
            if name not in options:
                raise _unknown(f"{command.name} has no option {name!r}", name, options, path)
        chosen = {**{name: value for name, value in inherited.items() if name in options}, **given}
        return {str(options[name].name): _checked(name, value, options[name], path) for name, value in chosen.items()}
    commands: dict[str, Any] = command.commands
    own = {name: value for name, value in given.items() if not isinstance(value, dict)}
    known = {name for each in _leaves(command) for name in (_spelt(option.opts) for option in each.params)}
    for name, value in given.items():
        if name not in (commands if isinstance(value, dict) else known):
            raise _unknown(
                f"No {'command' if isinstance(value, dict) else 'option'} is named {name!r}", name, {*commands, *known}, path
            )
    passed = {**inherited, **own}
    return {name: _defaults(each, given.get(name, {}), path, passed) for name, each in commands.items()}


def _leaves(command: Any) -> list[Any]:
    below = getattr(command, "commands", None)
    return [command] if below is None else [leaf for each in below.values() for leaf in _leaves(each)]


def _spelt(names: list[str]) -> str:
    """The entry of an option: its long name without the dashes in front."""
    return max(names, key=len).lstrip("-")


def _checked(name: str, value: Any, option: Any, path: Path) -> Any:
    """The value, if it has the option's form. Raises `ArgumentError`."""
    several = isinstance(value, list)
    flag = bool(getattr(option, "is_flag", False))
    if several != option.multiple or isinstance(value, bool) != flag:
        wanted = "true or false" if flag else "a list of texts" if option.multiple else "a text or a number"
        raise ArgumentError(f"{name} = {value!r} in {path} has the wrong form.", remedy=f"{name} is {wanted}.")
    return value


def _unknown(what: str, name: str, known: Any, path: Path) -> ArgumentError:
    return ArgumentError(f"{what} ({path}).", remedy=did_you_mean(name, sorted(known), listing="Known"))
