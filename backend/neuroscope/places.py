"""Where the code that runs may read and write: everywhere in one's own process, in given folders behind a server.

A `Confinement` belongs to the context (`contextvars`). A server sets one for all of its sessions and requests; `neuroscope run` and Python
have none. Every path that comes from a caller passes `to_read` or `to_write`; what the program chooses itself (its cache, the circuit
library) it opens in a block of `own`. A block restored from a file runs in `NOWHERE`.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, replace
from pathlib import Path

import platformdirs

from neuroscope.errors import AccessError, ArgumentError, Remedy, reason

#: Kinds of files that a server writes. None of them is run or imported by anything because of its name.
KINDS = (".html", ".svg", ".json", ".safetensors", ".circuit", ".edit", ".probe", ".checkpoint")


@dataclass(frozen=True)
class Confinement:
    """folder: what is written lies beneath it; None: nothing is written. readable: folders that may be read as well.

    models: names and paths of models that the server's owner named, which load from wherever they are. download: whether models may come
    from the hub.
    """

    folder: Path | None
    readable: tuple[Path, ...] = ()
    models: frozenset[str] = frozenset()
    download: bool = False

    @property
    def roots(self) -> list[Path]:
        """The folders that may be read, the own one first."""
        return [root.resolve() for root in ((self.folder,) if self.folder else ()) + self.readable]


#: Neither files nor downloads.
NOWHERE = Confinement(None)

_confinement: ContextVar[Confinement | None] = ContextVar("neuroscope_confinement", default=None)


def current() -> Confinement | None:
    """The confinement of this context; None where everything is allowed that the user may do."""
    return _confinement.get()


@contextmanager
def confined(to: Confinement | None) -> Iterator[None]:
    """Confine a block; None frees it."""
    token = _confinement.set(to)
    try:
        yield
    finally:
        _confinement.reset(token)


def offline() -> Confinement:
    """This context's confinement without downloads."""
    found = current()
    return Confinement(None, (Path(Path.cwd().anchor),)) if found is None else replace(found, download=False)


def server_folder() -> Path:
    """The folder of a server that was given none: `neuroscope/server` in the platform's data folder. Made when something is written."""
    return Path(os.environ.get("XDG_DATA_HOME") or Path.home() / ".local" / "share") / "neuroscope" / "server"


def library_folder() -> Path:
    """The folder of the user's circuits: `NEUROSCOPE_LIBRARY`, or `neuroscope/circuits` in the platform's data folder."""
    named = os.environ.get("NEUROSCOPE_LIBRARY")
    if named:
        return Path(named).expanduser()
    return platformdirs.user_data_path("neuroscope", appauthor=False) / "circuits"


def own() -> AbstractContextManager[None]:
    """A block in which the program opens paths that it chose itself, never one that came from a caller."""
    return confined(None)


def to_read(path: str | os.PathLike[str], what: str = "file") -> Path:
    """The path of a file or folder to read. A relative path is looked for in the own folder, then in the readable ones.

    Raises `AccessError`, the same whether something is there or not, for a path outside them, by `..` or by a link; `ArgumentError` for
    what cannot be a path.
    """
    given = _path(path)
    confinement = current()
    if confinement is None:
        return _at_home(given)
    roots = confinement.roots
    candidates = [given] if given.is_absolute() else [root / given for root in roots]
    allowed = [one for one in map(_real, candidates) if one and any(one.is_relative_to(root) for root in roots)]
    if not allowed:
        where = ", ".join(map(str, roots))
        raise AccessError(
            f"The {what} {given} lies outside the folders that may be read here.",
            remedy=f"Folders: {where}. `neuroscope serve --allow-read FOLDER` adds one."
            if where
            else "A stored hook reads no files.",
        )
    return next((one for one in allowed if one.exists()), allowed[0])


def to_write(path: str | os.PathLike[str], what: str = "file", *, folder: bool = False) -> Path:
    """The path of a file, or of a new folder, to write. A relative path lies in the own folder.

    Raises `AccessError` for a path outside the own folder, through a link, with a hidden name, or of a kind that is not in `KINDS`;
    `ArgumentError` for what cannot be a path.
    """
    given = _path(path)
    confinement = current()
    if confinement is None:
        return _at_home(given)
    if confinement.folder is None:
        raise AccessError(
            f"The {what} {given} cannot be written: no files are written here.", remedy="A stored hook only computes."
        )
    root = confinement.folder.resolve()
    target = given if given.is_absolute() else root / given
    inside = target.relative_to(root).parts if target.is_relative_to(root) else ()
    if not inside or ".." in inside or _real(target.parent) != target.parent or target.is_symlink():
        raise AccessError(
            f"The {what} {given} lies outside the folder of this server, or behind a link.", remedy=f"Write beneath {root}."
        )
    if any(part.startswith(".") for part in inside):
        raise AccessError(f"The {what} {given} has a hidden name.", remedy="Choose a name that does not begin with a point.")
    if not folder and target.suffix.lower() not in KINDS:
        raise AccessError(f"A server does not write {given.name!r}.", remedy=f"Kinds of files: {', '.join(KINDS)}.")
    _own_folder(root)
    return target


def _own_folder(root: Path) -> None:
    """Make the own folder, for its user alone. Raises `AccessError` where it cannot be made, or where others could put links into it."""
    try:
        root.mkdir(mode=0o700, parents=True, exist_ok=True)
        found = root.stat()
    except OSError as error:
        raise AccessError(
            f"The server's folder {root} cannot be made: {reason(error)}.", remedy="Start it with --folder FOLDER."
        ) from error
    if hasattr(os, "getuid") and (found.st_uid != os.getuid() or found.st_mode & 0o022):
        raise AccessError(f"Other users can write to the server's folder {root}.", remedy="chmod go-w, or another --folder.")


def check_links(folder: Path) -> None:
    """Raise `AccessError` if a file of a folder is a link that leads out of the folders that may be read."""
    confinement = current()
    if confinement is None:
        return
    for path in folder.rglob("*"):
        if path.is_symlink() and not any(path.resolve().is_relative_to(root) for root in confinement.roots):
            raise AccessError(f"{path.name} in {folder} is a link that leads outside.", remedy="Copy the file itself.")


def check_writable() -> None:
    """Raise `AccessError` where nothing may be written, not even by name into the library."""
    confinement = current()
    if confinement is not None and confinement.folder is None:
        raise AccessError("No files are written here.", remedy="A stored hook only computes.")


def check_display() -> None:
    """Raise `AccessError` where nothing may be opened on the screen of this machine: behind a server."""
    if current() is not None:
        raise AccessError(
            "A server opens no browser.",
            remedy=Remedy(
                "Write the page with save_page and open it yourself.",
                smalltalk="Write the page with savePage: and open it yourself.",
            ),
        )


def _at_home(path: Path) -> Path:
    try:
        return path.expanduser()
    except RuntimeError as error:
        raise ArgumentError(f"{path} is not a path: {error}", remedy="Give the path without ~.") from error


def _real(path: Path) -> Path | None:
    try:
        return path.resolve()
    except (OSError, RuntimeError):  # links in a circle
        return None


def _path(path: str | os.PathLike[str]) -> Path:
    if not isinstance(path, (str, os.PathLike)):
        raise TypeError(f"{path!r} is not a path")
    text = os.fspath(path)
    try:
        name = os.fsencode(text)
    except UnicodeEncodeError:
        name = b""
    if not name or b"\0" in name or len(name) > 4000 or max(map(len, name.split(b"/"))) > 255:
        raise ArgumentError(f"{text[:100]!r} is not a path.", remedy="Give the name of a file or folder.")
    if text.startswith("~/") and current() is not None:
        return Path.home() / text[2:]
    return Path(text)
