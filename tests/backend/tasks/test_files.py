"""A user's own files: what stands in them arrives whole, or is refused with its place."""

from __future__ import annotations

import json
import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from neuroscope.errors import DatasetError
from neuroscope.tasks.dataset import Dataset, Example
from tests import tiny

ODD = "a\u2028b\u2029c\x85d\x0ce\x0bf\x1cg"


def write(folder: Path, name: str, content: str | bytes) -> str:
    path = folder / name
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return str(path)


def test_quoted_fields_keep_every_character(tmp_path: Path) -> None:
    text = f'one\r\ntwo\nthree\rfour {ODD} "five"'
    quoted = text.replace('"', '""')
    path = write(tmp_path, "own.csv", f'clean,answer\r\n"{quoted}",yes\r\nplain {ODD},no\r\n')
    first, second = Dataset.from_file(path)
    assert (first.clean, first.answer) == (text, "yes")
    assert (second.clean, second.answer) == (f"plain {ODD}", "no")


def test_lines_of_jsonl_end_at_line_feeds_alone(tmp_path: Path) -> None:
    lines = [json.dumps({"clean": f"{ODD}{number}"}, ensure_ascii=False) for number in range(3)]
    path = write(tmp_path, "own.jsonl", "\r\n".join(lines[:2]) + "\n\n \n" + lines[2])
    assert [example.clean for example in Dataset.from_file(path)] == [f"{ODD}{number}" for number in range(3)]


@pytest.mark.parametrize(("name", "content"), [("own.csv", "clean\nword\n"), ("own.jsonl", '{"clean": "word"}\n')])
def test_a_byte_order_mark_is_no_text(name: str, content: str, tmp_path: Path) -> None:
    path = write(tmp_path, name, b"\xef\xbb\xbf" + content.encode())
    assert [example.clean for example in Dataset.from_file(path)] == ["word"]


def test_long_fields_arrive(tmp_path: Path) -> None:
    assert len(Dataset.from_file(write(tmp_path, "own.csv", f"clean\n{'x' * 400_000}\n"))[0].clean) == 400_000


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        (
            "a.jsonl",
            '{"clean": "x"}\n{"clean": "a", "answer": "b", "answer": "c"}',
            "line 2: the field 'answer' occurs twice",
        ),
        ("a.jsonl", '{"clean": "a", "meta": {"k": "1", "k": "2"}}', "line 1: the field 'k' occurs twice"),
        ("a.jsonl", '{"clean": "a", "meta": 5}', "meta must be an object"),
        ("a.jsonl", '{"clean": "a", "meta": [1, 2]}', "meta must be an object"),
        ("a.jsonl", '{"clean": "a", "meta": []}', "meta must be an object"),
        ("a.jsonl", '{"clean": "a", "answer": 0}', "the field answer must be text, not 0"),
        ("a.jsonl", '{"clean": "a", "wrong": false}', "the field wrong must be text, not False"),
        ("a.jsonl", '{"clean": 0}', "the field clean must be text, not 0"),
        ("a.jsonl", '{"clean": "a", "units": 0}', "0 is not a unit"),
        ("a.jsonl", '{"clean": "\\ud83d"}', "half a surrogate pair"),
        ("a.jsonl", '{"clean": "a", "meta": {"k": "\\ud83d"}}', "half a surrogate pair"),
        ("a.jsonl", "[" * 100_000, "nested too deeply"),
        ("a.jsonl", '{"clean": "a"} {"clean": "b"}', "line 1: invalid JSON"),
        ("a.csv", "clean,answer,clean\na,b,c\n", "the column 'clean' occurs twice"),
        ("a.csv", 'clean,answer\n"a,b\nc,d\n', "line 2: a quote is not closed"),
        ("a.csv", 'clean,answer\na,b\n"c"d,e\n', "line 3: "),
        ("a.csv", 'clean,answer\n"a\nb",c\nd\n', "line 4: 1 fields, but the header has 2"),
        ("a.csv", b"clean\n\xff\xfe\n", "cannot be read"),
        ("a.csv", "clean,answer\n", "holds no examples"),
    ],
)
def test_what_is_wrong_is_named_with_its_place(name: str, content: str | bytes, message: str, tmp_path: Path) -> None:
    with pytest.raises(DatasetError) as caught:
        Dataset.from_file(write(tmp_path, name, content))
    assert message in str(caught.value)


def test_a_pipe_and_a_folder_are_refused_at_once(tmp_path: Path) -> None:
    pipe, folder = tmp_path / "pipe.csv", tmp_path / "folder.jsonl"
    os.mkfifo(pipe)
    folder.mkdir()
    for path, what in ((pipe, "is a pipe"), (folder, "is a folder"), (tmp_path / "none.csv", "There is no file")):
        with pytest.raises(DatasetError, match=what):
            Dataset.from_file(str(path))


def test_one_pair_of_ones_own_is_a_dataset() -> None:
    pair = Example("w5 w6", "w5 w7", "w8", "w9")
    assert list(Dataset([pair]).for_model(tiny.model())) == [pair]
    with pytest.raises(DatasetError, match="Only 0 of 1"):
        Dataset([Example("w5 w6", "w5", "w8", "w9")]).for_model(tiny.model())
    for own in ([Example("w5 w6", "w5", "w8", "w9")], {"clean": "w5 w6", "corrupt": "w5", "answer": "w8", "wrong": "w9"}):
        with pytest.raises(DatasetError, match="Only 0 of 1"):
            tiny.model().analyze("logit_attribution", own)


def test_fields_that_are_empty_are_left_out(tmp_path: Path) -> None:
    rows = [
        {"clean": "a", "answer": "", "meta": None, "units": []},
        {"clean": "a", "units": [], "meta": {"units": "name:Mary"}},
    ]
    first, second = Dataset.from_file(write(tmp_path, "own.jsonl", "\n".join(map(json.dumps, rows))))
    assert (first.answer, first.meta, first.units, second.units) == (None, {}, (), ("name:Mary",))


def test_long_fields_arrive_in_every_thread(tmp_path: Path) -> None:
    path = write(tmp_path, "own.csv", f"clean\n{'x' * 200_000}\n" * 1 + f"{'y' * 200_000}\n" * 9)
    with ThreadPoolExecutor(8) as threads:
        assert {len(dataset) for dataset in threads.map(Dataset.from_file, [path] * 64)} == {10}
