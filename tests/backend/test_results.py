"""Results as plain data: whatever they hold, JSON can carry it."""

from __future__ import annotations

import json

from neuroscope.results import plain, titled


def test_a_container_that_holds_itself_is_named_there() -> None:
    itself: list[object] = [1]
    itself.append(itself)
    table: dict[str, object] = {"list": itself}
    table["table"] = table
    assert plain(itself) == [1, "(itself: list)"]
    assert plain(table) == {"list": [1, "(itself: list)"], "table": "(itself: dict)"}
    twice = [2]
    assert plain([twice, twice]) == [[2], [2]]


def test_deep_containers_are_cut_off() -> None:
    deep: list[object] = []
    for _ in range(5000):
        deep = [deep]
    assert "nested too deeply" in json.dumps(plain(deep))


def test_half_a_surrogate_pair_can_be_written() -> None:
    found = plain({"a\ud83d": "\ud83d", "whole": "\ud83d\ude00", "plain": "ü"})
    assert found == {"a\ufffd": "\ufffd", "whole": "😀", "plain": "ü"}
    json.dumps(found, ensure_ascii=False).encode()


def test_keys_that_read_alike_are_all_kept() -> None:
    assert plain({1: "a", "1": "b", "2": "c"}) == {"1": "a", "1 (2)": "b", "2": "c"}


def test_what_ran_and_what_was_asked_for() -> None:
    assert titled("bundled:gpt-oss-20b", "gpt-oss-20b") == "bundled:gpt-oss-20b (for gpt-oss-20b)"
    assert titled("gpt2", "gpt2") == titled("gpt2", None) == "gpt2"
