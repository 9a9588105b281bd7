"""The user's cache: conversions of model files, stored whole or not at all."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable
from pathlib import Path

import platformdirs

from neuroscope.files import whole_folder, write_whole


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
        with whole_folder(target) as temporary:
            make(temporary)
    except OSError:
        if not target.is_dir():
            raise
    return target


def file_hash(path: Path) -> str:
    """SHA-256 of a file's bytes, cached by path, size and modification time."""
    status = path.stat()
    key = f"{path.resolve()}|{status.st_size}|{status.st_mtime_ns}"
    note = cache_folder() / "hashes" / f"{hashlib.sha256(key.encode()).hexdigest()[:32]}.json"
    try:
        return str(json.loads(note.read_text())["sha256"])
    except (OSError, ValueError, KeyError):
        pass
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    try:
        note.parent.mkdir(parents=True, exist_ok=True)
        write_whole(note, json.dumps({"sha256": digest, "of": key}))
    except OSError:
        pass  # a cache that cannot be written costs time, not correctness
    return digest
