"""The soak's short form, and that it would see what it looks for. `make soak` takes two hours."""

from __future__ import annotations

import json
from pathlib import Path

from benchmarks.soak import CLIENTS, DESCRIPTORS, Soak, soak, write


def test_mixed_clients_for_a_moment_are_served_without_a_fault() -> None:
    found = soak(8.0, 20.0)
    assert found.faults == []
    assert len(found.done) == len(CLIENTS)
    assert found.growth(2) <= DESCRIPTORS


def test_growth_and_waits_are_complained_of(tmp_path: Path) -> None:
    calm = Soak(30, [(float(t), 300.0, 50, 2.0) for t in range(30)], [0.002] * 30)
    assert calm.complaints() == []
    leaking = Soak(30, [(float(t), 300.0 + 3 * t, 50 + 4 * t, 2.0) for t in range(30)], [0.002] * 28 + [0.4] * 2)
    leaking.faults.append("a fault")
    leaking.done["chat"] += 3
    assert write(leaking, tmp_path) == leaking.complaints()
    assert json.loads((tmp_path / "soak.json").read_text())["done"] == {"chat": 3}
    assert "resident memory" in (tmp_path / "soak.html").read_text(encoding="utf-8")
    assert [one.split()[0] for one in leaking.complaints()] == ["faults:", "memory", "descriptors", "a"]
