"""The user's cache: conversions of model files, kept whole or not at all."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path


def cache_folder() -> Path:
    """`NEUROSCOPE_CACHE`, or `neuroscope` in the platform's cache folder. Not made until something is stored."""
    named = os.environ.get("NEUROSCOPE_CACHE")
    if named:
        return Path(named)
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(base) / "neuroscope"


def stored(key: str, make: Callable[[Path], None]) -> Path:
    """The folder `key` of the cache, made by `make` on first use.

    `make` fills a temporary folder that is renamed when it is complete, so a half-made one is never seen; when two
    processes make the same one at once, the first to finish wins and the other's work is dropped.
    """
    target = cache_folder() / key
    if target.is_dir():
        return target
    target.parent.mkdir(parents=True, exist_ok=True)
    temporary = Path(tempfile.mkdtemp(dir=target.parent, prefix=f".{target.name}."))
    try:
        make(temporary)
        _flush(temporary)
        try:
            temporary.rename(target)
        except OSError:
            if not target.is_dir():
                raise
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    return target


def _flush(folder: Path) -> None:
    for path in folder.rglob("*"):
        if path.is_file():
            with path.open("rb") as file:
                os.fsync(file.fileno())


def file_hash(path: Path) -> str:
    """SHA-256 of a file's bytes, remembered by path, size and time of change."""
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
        with tempfile.NamedTemporaryFile("w", dir=note.parent, delete=False) as written:
            json.dump({"sha256": digest, "of": key}, written)
        Path(written.name).replace(note)
    except OSError:
        pass  # a cache that cannot be written costs time, not correctness
    return digest
