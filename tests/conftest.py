"""What every room's tests share: quiet, seeded, offline."""

from __future__ import annotations

import os
import signal

import pytest

import neuroscope  # noqa: F401  # before torch, as its users do

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")


if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:  # in the background of a shell; tests send Ctrl-C
    signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """In several processes the longest files begin first, so that no process is left alone with one at the end."""
    if "PYTEST_XDIST_WORKER" in os.environ:
        items.sort(key=lambda item: "system" not in item.path.parts)
