"""Sealed files: named tensors with a JSON header in one safetensors file, refused when anything in it was changed.

Metadata: `format`, `header` (JSON) and `sha256` over header and tensors. Nothing in such a file is executed.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save as save_tensors

from neuroscope import places
from neuroscope.errors import NeuroScopeError, first_line
from neuroscope.files import save

Tensors = Mapping[str, NDArray[Any]]


class SealedFiles:
    """Files of one kind: what they hold, their suffix, the version of its format, and the error to raise."""

    def __init__(self, kind: str, suffix: str, version: str, error: type[NeuroScopeError]) -> None:
        self.kind, self.suffix, self.version, self.error = kind, suffix, version, error

    def path(self, path: str | Path) -> Path:
        """The path with the suffix, added where it is missing."""
        target = Path(path)
        return places.to_write(
            target if target.suffix == self.suffix else target.with_name(target.name + self.suffix), self.kind
        )

    def write(self, path: str | Path, header: Mapping[str, Any], tensors: Tensors) -> Path:
        """Write a file, whole or not at all. Raises the kind's error when the place cannot be written."""
        target = self.path(path)
        arrays = {key: np.ascontiguousarray(value) for key, value in tensors.items()}
        text = json.dumps(header, ensure_ascii=False, sort_keys=True)
        content = save_tensors(arrays, {"format": self.version, "header": text, "sha256": _digest(text, arrays)})
        return save(target, content, f"The {self.kind}", self.error)

    def read(self, path: str | Path, *, absent: str) -> tuple[Path, dict[str, Any], dict[str, NDArray[Any]]]:
        """Path, header and tensors, checked. Raises the kind's error for a file that is absent (with the remedy `absent`), foreign, newer or changed."""
        source = places.to_read(path, self.kind)
        if not source.is_file():
            raise self.error(f"There is no {self.kind} file {source}.", remedy=absent)
        try:
            with safe_open(source, framework="np") as file:
                metadata = file.metadata() or {}
                tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118  # not a dictionary
        except (SafetensorError, OSError) as error:
            raise self.refused(source, f"it is not a {self.kind} file, or cut off ({error})") from error
        if "header" not in metadata or "sha256" not in metadata:
            raise self.refused(source, f"it holds tensors, but no {self.kind}")
        if metadata.get("format") != self.version:
            raise self.refused(source, f"it has format {metadata.get('format')!r}, and this version reads {self.version!r}")
        if _digest(metadata["header"], tensors) != metadata["sha256"]:
            raise self.refused(source, "its contents do not match its hash: it was changed after it was written")
        with self.understood(source):
            header = json.loads(metadata["header"], parse_int=_whole)
            if not isinstance(header, dict):
                raise TypeError("it is not an object")
        return source, header, tensors

    @contextmanager
    def understood(self, path: Path) -> Iterator[None]:
        """A block that makes something of a file's content; what it cannot understand becomes the kind's error."""
        try:
            yield
        except NeuroScopeError as error:
            if isinstance(error, self.error):
                raise
            raise self.refused(path, f"its content is damaged ({error.brief})") from error
        # A foreign content may have any value anywhere, and any of Python's errors can follow.
        except (ArithmeticError, AttributeError, LookupError, TypeError, ValueError, RecursionError, MemoryError) as error:
            raise self.refused(path, f"its content is damaged ({first_line(error)[:200]})") from error

    def refused(self, path: Path, why: str) -> NeuroScopeError:
        """The error for a file that cannot be used."""
        return self.error(f"{path} is refused: {why}.", remedy="Get the file again from where it came.")


def _whole(digits: str) -> int:
    if len(digits) > 19:
        raise ValueError(f"a number of {len(digits)} digits")
    return int(digits)


def _digest(header: str, tensors: Tensors) -> str:
    digest = hashlib.sha256(header.encode())
    for key in sorted(tensors):
        value = tensors[key]
        digest.update(f"{key}:{value.dtype}:{value.shape}".encode())
        digest.update(value.tobytes())
    return digest.hexdigest()
