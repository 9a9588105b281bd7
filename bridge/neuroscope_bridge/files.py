"""Files that a person named on the command line."""

from __future__ import annotations

from neuroscope.errors import NeuroScopeError


class FileError(NeuroScopeError):
    """A file cannot be read or written."""

    code = "file"
