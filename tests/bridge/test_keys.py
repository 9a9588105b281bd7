"""Key files: they can be read back, and nobody else can read the secret ones, not even for a moment."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest

from neuroscope.errors import FileError
from neuroscope_bridge.keys import curve_available, make_keys, read_pair, read_public

pytestmark = pytest.mark.skipif(not curve_available(), reason="libzmq has no CURVE here")


def test_pairs_are_read_back(tmp_path: Path) -> None:
    written = make_keys(tmp_path / "keys", "laptop")
    assert [str(path.relative_to(tmp_path)) for path in written] == [
        "keys/server.key",
        "keys/server.key_secret",
        "keys/clients/laptop.key",
        "keys/laptop.key_secret",
    ]
    for name, public in (("server", "server.key"), ("laptop", "clients/laptop.key")):
        pair = read_pair(tmp_path / "keys" / f"{name}.key_secret")
        assert pair[0] == read_public(tmp_path / "keys" / public)
        assert len(pair[1]) == 40
    make_keys(tmp_path / "keys", "desk")  # the server's pair stays
    assert read_pair(tmp_path / "keys" / "server.key_secret")[0] == read_public(tmp_path / "keys" / "server.key")


def test_a_secret_is_private_from_its_first_moment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    modes: dict[str, int] = {}
    real = os.open

    def watched(path: str, *rest: int, **named: int) -> int:
        handle = real(path, *rest, **named)
        if os.fspath(path).endswith(".part"):
            modes[os.path.basename(path)] = stat.S_IMODE(os.fstat(handle).st_mode)
        return handle

    before = os.umask(0)
    monkeypatch.setattr(os, "open", watched)
    try:
        make_keys(tmp_path / "keys")
    finally:
        os.umask(before)
        monkeypatch.undo()
    assert sorted(mode for name, mode in modes.items() if "_secret" in name) == [0o600, 0o600]
    assert sorted(mode for name, mode in modes.items() if "_secret" not in name) == [0o666, 0o666]
    for folder in (tmp_path / "keys", tmp_path / "keys" / "clients"):
        assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    assert stat.S_IMODE((tmp_path / "keys" / "server.key_secret").stat().st_mode) == 0o600


def test_a_place_for_keys_that_cannot_be_written_is_an_error_of_ours(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(FileError, match="cannot be written"):
        make_keys(tmp_path / "file" / "keys")
