"""One server for the tests that do not harm it."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from neuroscope_bridge.client import Client, connect
from tests.bridge.serving import save_tiny, serving


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    folder = save_tiny(tmp_path_factory.mktemp("serving") / "tiny")
    with serving("--alias", f"tiny={folder}") as (_, address):
        yield address


@pytest.fixture
def client(server: str) -> Iterator[Client]:
    with connect(server) as client:
        yield client
