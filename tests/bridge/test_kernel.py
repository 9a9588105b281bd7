"""The dialect in Jupyter: a real kernel process, spoken to as a notebook speaks to it."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

manager = pytest.importorskip("jupyter_client.manager", reason="jupyter_client is not installed")
pytest.importorskip("ipykernel", reason="ipykernel is not installed")


@pytest.fixture(scope="module")
def prefix(tmp_path_factory: pytest.TempPathFactory) -> Path:
    from neuroscope_bridge.kernel.install import install

    folder = tmp_path_factory.mktemp("prefix")
    assert str(folder) in install(folder)
    return folder


@pytest.fixture(scope="module")
def client(prefix: Path) -> Iterator[Any]:
    from jupyter_client.kernelspec import KernelSpecManager

    specifications = KernelSpecManager(kernel_dirs=[str(prefix / "share" / "jupyter" / "kernels")])
    kernel = manager.KernelManager(kernel_name="neuroscope", kernel_spec_manager=specifications)
    kernel.start_kernel(env={**os.environ, "NEUROSCOPE_SEED": "3"})
    talking = kernel.client()
    talking.start_channels()
    talking.wait_for_ready(timeout=60)
    yield talking
    talking.stop_channels()
    kernel.shutdown_kernel(now=True)


def told(client: Any, code: str) -> tuple[dict[str, Any], dict[str, Any]]:
    """The reply to a cell, and its messages by kind."""
    seen: dict[str, Any] = {}
    reply = client.execute_interactive(
        code, timeout=60, output_hook=lambda message: seen.update({message["msg_type"]: message["content"]})
    )
    return reply["content"], seen


def test_cells_are_scripts_of_one_workspace(client: Any) -> None:
    assert told(client, "x := 20. Transcript show: 'told'; cr. x + 1")[0]["status"] == "ok"
    reply, seen = told(client, "Transcript show: 'told'; cr. x * 2")
    assert reply["execution_count"] == 2
    assert seen["stream"] == {"name": "stdout", "text": "told\n"} or seen["stream"]["text"] in ("told", "\n")
    assert seen["execute_result"]["data"] == {"text/plain": "40"}


def test_an_error_shows_its_line_and_its_remedy(client: Any) -> None:
    reply, seen = told(client, "1 foo")
    assert reply["status"] == "error"
    assert "does not understand #foo" in reply["evalue"]
    assert any("Did you mean" in line for line in seen["error"]["traceback"])


def test_a_result_comes_with_its_html(client: Any) -> None:
    _, seen = told(client, "(CircuitLibrary search: 'relation_extraction') first")
    data = seen["execute_result"]["data"]
    assert "held out" in data["text/plain"]
    assert "relation_extraction" in data["text/html"]


def test_names_are_completed_and_described(client: Any) -> None:
    client.complete("CircuitFin", 10)
    found = client.get_shell_msg(timeout=30)["content"]
    assert found["matches"] == ["CircuitFinder"]
    assert (found["cursor_start"], found["cursor_end"]) == (0, 10)
    client.inspect("CircuitFinder for: model", 4)
    assert "Finds circuits" in client.get_shell_msg(timeout=30)["content"]["data"]["text/plain"]
    client.inspect("nothingAtAll", 4)
    assert not client.get_shell_msg(timeout=30)["content"]["found"]
    assert "Finds circuits" in told(client, "CircuitFinder?")[1]["stream"]["text"]


def test_an_open_bracket_goes_on(client: Any) -> None:
    for code, status in (("3 + 4", "complete"), ("[:x | ", "incomplete"), ("3 + )", "complete")):
        client.is_complete(code)
        assert client.get_shell_msg(timeout=30)["content"]["status"] == status


def test_the_specification_names_this_python_and_goes_again(prefix: Path) -> None:
    from neuroscope_bridge.files import FileError
    from neuroscope_bridge.kernel.install import install, uninstall

    other = prefix / "other"
    install(other)
    (file,) = other.rglob("kernel.json")
    assert json.loads(file.read_text())["argv"][:3] == [sys.executable, "-m", "neuroscope_bridge.kernel"]
    uninstall(other)
    assert not file.exists()
    with pytest.raises(FileError, match="not installed"):
        uninstall(other)
