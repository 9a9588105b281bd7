"""What the tests of the backend share."""

from __future__ import annotations

import pytest

from tests import tiny


@pytest.fixture(scope="session", params=tiny.ENGINES)
def framework(request: pytest.FixtureRequest) -> str:
    """Each engine in turn, by name."""
    return str(request.param)
