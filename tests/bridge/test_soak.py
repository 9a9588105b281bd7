"""The soak's short form, and that it would see what it looks for. `make soak` takes two hours."""

from __future__ import annotations

from benchmarks.soak import CLIENTS, DESCRIPTORS, Soak, soak


def test_mixed_clients_for_a_moment_are_served_without_a_fault() -> None:
    found = soak(8.0, 20.0)
    assert found.faults == []
    assert len(found.done) == len(CLIENTS)
    assert found.growth(2) <= DESCRIPTORS


def test_growth_and_waits_are_complained_of() -> None:
    calm = Soak(30, [(float(t), 300.0, 50, 2.0) for t in range(30)], [0.002] * 30)
    assert calm.complaints() == []
    leaking = Soak(30, [(float(t), 300.0 + 3 * t, 50 + 4 * t, 2.0) for t in range(30)], [0.002] * 28 + [0.4] * 2)
    leaking.faults.append("a fault")
    assert [one.split()[0] for one in leaking.complaints()] == ["faults:", "memory", "descriptors", "a"]
