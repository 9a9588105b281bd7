"""Files with secrets: written for their user alone, and read only where no other user of the machine can read or change them."""

from __future__ import annotations

import os
import stat
from pathlib import Path

from neuroscope.errors import reason
from neuroscope_bridge.files import FileError

#: Longest file with a key or a token, in bytes.
LONGEST = 64 << 10


def private_folder(folder: Path) -> None:
    """Make a folder that only its user can enter, if there is none."""
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)


def write_new(path: Path, text: str, mode: int) -> None:
    """Write a new file that never has more rights than `mode`. Raises `FileError`; never replaces a file, and follows no link."""
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | getattr(os, "O_NOFOLLOW", 0), mode)
        try:
            with os.fdopen(descriptor, "w", encoding="utf-8") as file:
                file.write(text)
                file.flush()
                os.fsync(file.fileno())
        except BaseException:
            path.unlink(missing_ok=True)
            raise
    except OSError as error:
        raise FileError(f"{path} cannot be written: {reason(error)}.", remedy="Choose a folder of your own.") from error


def read_secret(path: Path, what: str) -> str:
    """The text of a file with a secret. Raises `FileError` if it is absent, too long, not text, or open to other users."""
    try:
        with os.fdopen(os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0)), "rb") as file:  # a pipe does not block
            if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
                raise FileError(f"{path} is not a file.", remedy=f"Give a file with {what}.")
            check_private(path, os.fstat(file.fileno()))
            found = file.read(LONGEST + 1)
        if len(found) > LONGEST:
            raise FileError(f"{path} is too long for {what}.", remedy="Give the right file.")
        return found.decode("utf-8")
    except FileNotFoundError as error:
        raise FileError(f"There is no file {path} with {what}.", remedy="Check the path.") from error
    except (OSError, UnicodeDecodeError) as error:
        raise FileError(f"{path} cannot be read: {reason(error)}.", remedy=f"Give a file with {what}.") from error


def check_private(path: Path, found: os.stat_result | None = None) -> None:
    """Raise `FileError` for a file or folder with a secret that other users can read or change."""
    if os.name != "posix":
        return
    found = path.stat() if found is None else found
    if found.st_uid not in (os.getuid(), 0):
        raise FileError(f"{path} belongs to another user.", remedy="Make it anew, as yourself.")
    if stat.S_IMODE(found.st_mode) & 0o077:
        raise FileError(
            f"Other users of this machine can read or change {path} (mode {stat.S_IMODE(found.st_mode):04o}).",
            remedy=f"chmod {'700' if stat.S_ISDIR(found.st_mode) else '600'} {path}; if it was so for long, make a new secret.",
        )


def check_unwritable(path: Path) -> None:
    """Raise `FileError` for a folder or file that other users can change."""
    if os.name != "posix":
        return
    found = path.stat()
    if found.st_uid not in (os.getuid(), 0) or stat.S_IMODE(found.st_mode) & 0o022:
        raise FileError(
            f"Other users of this machine can change {path}.", remedy=f"chmod go-w {path}, and check what is in it."
        )
