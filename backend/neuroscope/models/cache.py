"""The user's cache: conversions of model files, stored whole or not at all."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable
from pathlib import Path

import platformdirs

from neuroscope import places
from neuroscope.files import whole_folder


def cache_folder() -> Path:
    """`NEUROSCOPE_CACHE`, or `neuroscope` in the platform's cache folder. Created when something is stored."""
    named = os.environ.get("NEUROSCOPE_CACHE")
    if named:
        return Path(named)
    return platformdirs.user_cache_path("neuroscope", appauthor=False)


def stored(key: str, make: Callable[[Path], None]) -> Path:
    """The folder `key` of the cache, created by `make` on first use.

    `make` fills a temporary folder, which is renamed when complete. If two processes make the same one at once, the first to
    finish wins and the other's work is dropped.
    """
    target = cache_folder() / key
    if target.is_dir():
        return target
    try:
        with places.own(), whole_folder(target) as temporary:
            make(temporary)
    except OSError:
        if not target.is_dir():
            raise
    return target


def file_hash(path: Path) -> str:
    """SHA-256 of a file's bytes, read anew every time: a date and a size can be set back."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
