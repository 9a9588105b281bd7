"""Files named on the command line, checked before the work starts."""

from __future__ import annotations

import errno
import os
import tempfile
from pathlib import Path

from neuroscope.errors import FileError, reason

__all__ = ["FileError", "check_folder", "check_writable"]


def check_writable(path: Path) -> None:
    """Raise `FileError` if no file can be written at a path."""
    try:
        if path.is_dir():
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR))
        with tempfile.TemporaryFile(dir=path.resolve().parent):
            pass
    except OSError as error:
        raise _unwritable(path, error) from error


def check_folder(folder: Path) -> None:
    """Create a folder if needed. Raises `FileError` if nothing can be written in it."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise _unwritable(folder, error) from error


def _unwritable(path: Path, error: OSError) -> FileError:
    return FileError(
        f"{path} cannot be written: {reason(error)}.", remedy="Choose a path in an existing folder that you can write to."
    )
