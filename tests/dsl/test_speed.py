"""Parsing is linear. The bound is loose, so that a busy machine passes; benchmarks/bench_parser.py measures."""

from __future__ import annotations

import time

from neuroscope_dsl.parser import parse


def _seconds(lines: int) -> float:
    text = "model := (finder findCircuit: 'ioi' examples: #(1 2 3)) foo: [:x | x + 1].\n" * lines
    start = time.process_time()
    assert len(parse(text).items) == lines
    return time.process_time() - start


def test_ten_thousand_lines_parse_in_seconds() -> None:
    assert _seconds(10_000) < 5


def test_ten_times_the_lines_take_about_ten_times_as_long() -> None:
    _seconds(1_000)
    assert _seconds(20_000) < 30 * _seconds(2_000) + 0.5
