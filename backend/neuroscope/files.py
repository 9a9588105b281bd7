"""Files and folders that appear whole or not at all, even after an error, Ctrl-C, a full disk or `kill -9`.

Everything that NeuroScope writes passes here. A file is written under a hidden name in its folder, which the writer holds locked, and
renamed when all of it is on the disk; a link is replaced, never followed. What a killed writer left is removed by the next one in that
folder, which sees that nobody holds it. `places` says where a server may write.
"""

from __future__ import annotations

import contextlib
import errno
import os
import re
import secrets
import shutil
import stat
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from neuroscope import places
from neuroscope.errors import FileError, NeuroScopeError, reason

try:
    import fcntl
except ImportError:  # Windows: leftovers stay, and libraries are not locked
    fcntl = None  # type: ignore[assignment]

_REMEDIES = {
    errno.ENOSPC: "The disk is full: make room, or choose another place.",
    errno.EDQUOT: "Your quota is used up: make room, or choose another place.",
    errno.EFBIG: "A file of this size is not allowed there.",
    errno.EROFS: "The disk is read-only: choose another place.",
    errno.EACCES: "Choose a place that you may write to.",
    errno.EPERM: "Choose a place that you may write to.",
}
_PART = re.compile(r"\..+\.[0-9a-f]{12}\.part\Z")
#: Seconds to wait for another process that writes to the same library.
_PATIENCE = 60.0


def save(path: Path, content: bytes | str, what: str, error: type[NeuroScopeError] = FileError) -> Path:
    """Write a file, with its folder if that is missing. Return its path. Raises `error` where it cannot be written."""
    with planned(what, path, error):
        path.parent.mkdir(parents=True, exist_ok=True)
        write_whole(path, content)
    return path


@contextmanager
def planned(what: str, target: Path, error: type[NeuroScopeError] = FileError) -> Iterator[None]:
    """Turn an `OSError` of a block into `error`, which says what cannot be written, where and why."""
    try:
        yield
    except OSError as problem:
        raise error(
            f"{what} cannot be written to {target}: {reason(problem)}.",
            remedy=_REMEDIES.get(problem.errno or 0, "Choose another place."),
        ) from problem


def write_whole(path: Path, content: bytes | str, *, private: bool = False) -> None:
    """Write a file under a temporary name and rename it when all of it is on the disk. Text becomes UTF-8.

    private: only the user may read it, from the first moment on; otherwise its rights are those that the umask leaves. Raises `OSError`,
    and `AccessError` where the caller may not write.
    """
    path = places.to_write(path)
    _clear(path.parent)
    temporary, handle = _part(path, 0o600 if private else 0o666)
    try:
        with open(handle, "wb") as file:
            file.write(content.encode("utf-8", errors="replace") if isinstance(content, str) else content)
            file.flush()
            os.fsync(file.fileno())
            os.replace(temporary, path)  # still held, so that nobody takes it for a leftover
        _sync_folder(path.parent)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


@contextmanager
def whole_folder(target: Path) -> Iterator[Path]:
    """A folder to fill, which becomes `target` when the block succeeds and is removed when it fails.

    It and its files get the rights that the umask leaves, whatever wrote them. Raises `OSError`, and `AccessError` where the caller may not
    write.
    """
    target = places.to_write(target, "folder", folder=True)
    target.parent.mkdir(parents=True, exist_ok=True)
    _clear(target.parent)
    temporary, handle = _part(target, None)
    try:
        yield temporary
        rights = stat.S_IMODE(temporary.stat().st_mode) & 0o666
        for path in temporary.rglob("*"):
            if path.is_file() and not path.is_symlink():
                path.chmod(rights)
                with path.open("rb") as file:
                    os.fsync(file.fileno())
        temporary.rename(target)
        _sync_folder(target.parent)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
        os.close(handle)


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Hold a folder alone among all processes and threads that lock it. Raises `OSError`, and `FileError` after a minute's wait."""
    folder.mkdir(parents=True, exist_ok=True)
    handle = os.open(folder / ".lock", os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o666)
    try:
        end = time.monotonic() + _PATIENCE
        while not _hold(handle):
            if time.monotonic() > end:
                raise FileError(f"Another process writes to {folder}.", remedy="Try again when it has ended.")
            time.sleep(0.01)
        yield
    finally:
        os.close(handle)


def keep(current: Path, older: Path) -> None:
    """Give a file a second, lasting name, before a new version replaces it under the first. Raises `OSError`."""
    older.unlink(missing_ok=True)
    try:
        os.link(current, older)
    except OSError:  # a disk without links
        write_whole(older, current.read_bytes())


# --- inside -----------------------------------------------------------------------------------------------------------


def _part(path: Path, mode: int | None) -> tuple[Path, int]:
    """A new hidden file, or a folder for the mode None, that will become `path`, and its open handle, which is locked."""
    while True:
        part = path.with_name(f".{path.name[:180]}.{secrets.token_hex(6)}.part")
        if mode is None:
            part.mkdir()
            handle = os.open(part, os.O_RDONLY)
        else:
            handle = os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode)
        if _hold(handle) and part.exists():  # nobody took it for a leftover in between
            return part, handle
        os.close(handle)


def _hold(handle: int) -> bool:
    """Lock an open file or folder until it is closed; false if somebody else holds it."""
    if fcntl is None:
        return True
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        return error.errno not in (errno.EWOULDBLOCK, errno.EACCES)  # some network disks have no locks
    return True


def _clear(folder: Path) -> None:
    """Remove what killed writers left in a folder: hidden parts that nobody holds."""
    if fcntl is None:
        return
    with contextlib.suppress(OSError):
        for entry in os.scandir(folder):
            if _PART.match(entry.name):
                with contextlib.suppress(OSError):
                    _remove(entry)


def _remove(entry: os.DirEntry[str]) -> None:
    kind = entry.stat(follow_symlinks=False).st_mode
    if not (stat.S_ISREG(kind) or stat.S_ISDIR(kind)):
        return
    handle = os.open(entry.path, os.O_RDONLY | os.O_NOFOLLOW)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if stat.S_ISDIR(kind):
            shutil.rmtree(entry.path, ignore_errors=True)
        else:
            os.unlink(entry.path)
    finally:
        os.close(handle)


def _sync_folder(folder: Path) -> None:
    """Let a rename outlast a power cut, where the system can."""
    with contextlib.suppress(OSError):
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)
