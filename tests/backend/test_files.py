"""Files and folders that appear whole or not at all."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest

from neuroscope.files import whole_folder, write_whole


def test_a_file_appears_whole_with_the_usual_rights(tmp_path: Path) -> None:
    path = tmp_path / "out.json"
    write_whole(path, "old")
    write_whole(path, "näw")
    assert path.read_bytes() == "näw".encode()
    plain = tmp_path / "plain"
    plain.touch()
    assert stat.S_IMODE(path.stat().st_mode) == stat.S_IMODE(plain.stat().st_mode)


def test_what_fails_midway_leaves_the_old_file_and_nothing_else(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "out.json"
    write_whole(path, "old")

    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space"):
        write_whole(path, "new")
    assert [file.name for file in tmp_path.iterdir()] == ["out.json"]
    assert path.read_text() == "old"


@pytest.mark.parametrize("error", [KeyboardInterrupt, ValueError])
def test_a_folder_that_is_not_filled_does_not_appear(tmp_path: Path, error: type[BaseException]) -> None:
    def fill() -> None:
        with whole_folder(tmp_path / "model") as folder:
            (folder / "half").write_text("half")
            raise error

    with pytest.raises(error):
        fill()
    assert list(tmp_path.iterdir()) == []
    with whole_folder(tmp_path / "deeper" / "model") as folder:
        (folder / "whole").write_text("whole")
    assert (tmp_path / "deeper" / "model" / "whole").read_text() == "whole"
