"""Rows of a user's JSONL or CSV file, each with its line number, or of a JSON array, each with its number from one.

JSONL lines end at a line feed; CSV follows RFC 4180, where a quoted field may hold line ends. Duplicate fields, truncated lines
and wrong types raise an error with their place; nothing is skipped.
"""

from __future__ import annotations

import csv
import functools
import io
import json
import stat
import threading
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from neuroscope.errors import DatasetError, reason

#: A line number and its content.
Row = tuple[int, Any]

#: Longest field of a CSV; the module's own limit is 131,072 characters.
_LONGEST_FIELD = 1 << 30
_FIELD_LIMIT = threading.Lock()


def read_rows(file: Path) -> list[Row]:
    """The rows of a `.jsonl`, `.json` or `.csv` file. Raises `DatasetError` with the file, the line and the problem."""
    reader = {".csv": _csv_rows, ".jsonl": _json_rows, ".json": _array_rows}.get(file.suffix.lower())
    if reader is None:
        raise DatasetError(
            f"{file} is neither JSONL, JSON nor CSV.",
            remedy="Name it .jsonl (one object a line), .json (an array of objects) or .csv (with a header).",
        )
    return reader(_text(file), file)


def check_whole(item: Mapping[str, Any], where: str) -> None:
    """Raise `DatasetError` if a text holds half of a surrogate pair, which no tokenizer can read."""
    for name, value in item.items():
        if any("\ud800" <= letter <= "\udfff" for text in _texts([name, value]) for letter in text):
            raise DatasetError(f"{where}: the field {name!a} holds half a surrogate pair.", remedy="Write the whole character.")


def _texts(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, Mapping):
        for pair in value.items():
            yield from _texts(list(pair))
    elif isinstance(value, (list, tuple)):
        for one in value:
            yield from _texts(one)


def _text(file: Path) -> str:
    try:
        # Reading a pipe would wait for a writer.
        kind = file.stat().st_mode
        if not stat.S_ISREG(kind):
            what = "a folder" if stat.S_ISDIR(kind) else "a pipe" if stat.S_ISFIFO(kind) else "a device or a socket"
            raise DatasetError(f"{file} is {what}, not a file.", remedy="Give a file of examples, .jsonl or .csv.")
        with file.open(encoding="utf-8-sig", newline="") as opened:
            return opened.read()
    except FileNotFoundError as error:
        raise DatasetError(f"There is no file {file}.", remedy="Check the path.") from error
    except (OSError, UnicodeDecodeError) as error:
        raise DatasetError(f"{file} cannot be read: {reason(error)}.", remedy="It must be UTF-8 text.") from error


def _json_rows(text: str, file: Path) -> list[Row]:
    rows: list[Row] = []
    for number, line in enumerate(text.split("\n"), 1):
        where = f"{file}, line {number}"
        if not line.strip(" \t\r"):
            continue
        try:
            rows.append((number, json.loads(line, object_pairs_hook=functools.partial(_object, where))))
        except DatasetError:
            raise
        except RecursionError as error:
            raise DatasetError(f"{where}: it is nested too deeply.", remedy="An example is a flat object of texts.") from error
        except ValueError as error:
            raise DatasetError(f"{where}: invalid JSON ({error}).", remedy="Write one JSON object per line.") from error
    return rows


def _array_rows(text: str, file: Path) -> list[Row]:
    try:
        found = json.loads(text, object_pairs_hook=functools.partial(_object, str(file)))
    except DatasetError:
        raise
    except RecursionError as error:
        raise DatasetError(f"{file}: it is nested too deeply.", remedy="Write an array of objects.") from error
    except ValueError as error:
        raise DatasetError(
            f"{file}: invalid JSON ({error}).", remedy="Write one array of objects; one object a line is .jsonl."
        ) from error
    if not isinstance(found, list):
        raise DatasetError(f"{file} holds {type(found).__name__}, not an array.", remedy="Write an array of objects.")
    return list(enumerate(found, 1))


def _object(where: str, pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in names if names.count(name) > 1)
        raise DatasetError(f"{where}: the field {twice!r} occurs twice.", remedy="Write each field once.")
    return found


def _csv_rows(text: str, file: Path) -> list[Row]:
    with _FIELD_LIMIT:  # it belongs to the whole process
        before = csv.field_size_limit(_LONGEST_FIELD)
        try:
            return _csv_records(text, file)
        finally:
            csv.field_size_limit(before)


def _csv_records(text: str, file: Path) -> list[Row]:
    reader = csv.reader(io.StringIO(text, newline=""), strict=True)
    rows: list[Row] = []
    header: list[str] | None = None
    while True:
        line = reader.line_num + 1
        try:
            record = next(reader)
        except StopIteration:
            return rows
        except csv.Error as error:
            said = "a quote is not closed" if "end of data" in str(error) else str(error)
            raise DatasetError(
                f"{file}, line {line}: {said}.", remedy='Fields with quotes in them are written "…" with each quote doubled.'
            ) from error
        if not record:
            continue
        if header is None:
            header = record
            twice = [name for name in header if header.count(name) > 1]
            if twice:
                raise DatasetError(f"{file}: the column {twice[0]!r} occurs twice.", remedy="Name each column once.")
            continue
        if len(record) != len(header):
            raise DatasetError(
                f"{file}, line {line}: {len(record)} fields, but the header has {len(header)}.",
                remedy="Put fields that hold commas or line ends into double quotes.",
            )
        rows.append((line, dict(zip(header, record, strict=True))))
