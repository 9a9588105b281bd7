"""Fixtures: a workspace, what a program prints, and the error that it ends with."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from neuroscope_dsl import SmalltalkError, Workspace


@pytest.fixture
def workspace() -> Workspace:
    return Workspace()


@pytest.fixture
def show(workspace: Workspace) -> Callable[[str], str]:
    """The printString of a program's last value."""
    return lambda text: workspace.print_string(workspace.run(text))


@pytest.fixture
def error_of(workspace: Workspace) -> Callable[[str], SmalltalkError]:
    """The error that a program ends with."""

    def run(text: str, file: str = "<script>") -> SmalltalkError:
        with pytest.raises(SmalltalkError) as caught:
            workspace.run(text, file)
        return caught.value

    return run
