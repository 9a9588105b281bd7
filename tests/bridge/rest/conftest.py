"""A live HTTP server in this process, on a tiny model with a chat template."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from neuroscope.models.model import TransformerModel
from neuroscope_bridge.host import Host, HostOptions
from neuroscope_bridge.rest.application import HttpOptions
from neuroscope_bridge.rest.door import HttpDoor
from tests import tiny

TEMPLATE = "{% for message in messages %}{{ message.content }} {% endfor %}{% if add_generation_prompt %}w3{% endif %}"


def save_chatty(folder: Path, architecture: str = "gpt2") -> Path:
    tiny.hf_model(architecture).save_pretrained(folder)
    tokenizer = tiny.tokenizer()
    tokenizer.chat_template = TEMPLATE
    tokenizer.save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def chatty(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_chatty(tmp_path_factory.mktemp("rest") / "chatty")


@pytest.fixture(scope="session")
def speechless(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model without a chat template."""
    folder = tmp_path_factory.mktemp("rest") / "speechless"
    tiny.hf_model("gpt2", seed=1).save_pretrained(folder)
    tiny.tokenizer().save_pretrained(folder)
    return folder


Serve = Callable[..., str]


@pytest.fixture(scope="session")
def serve(chatty: Path, speechless: Path) -> Iterator[Serve]:
    """Start a server with the options of `HttpOptions`; answers its URL."""
    doors: list[tuple[HttpDoor, Host]] = []

    def start(address: str = "127.0.0.1:0", **options: Any) -> str:
        host = Host(HostOptions("chatty", [f"chatty={chatty}", f"speechless={speechless}"]))
        door = HttpDoor(host, address, HttpOptions(**options))
        url = door.open()
        door.start()
        doors.append((door, host))
        return url

    yield start
    for door, host in doors:
        door.close()
        host.close()


@pytest.fixture(scope="session")
def url(serve: Serve) -> str:
    return serve()


@pytest.fixture
def http(url: str) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=url, timeout=60) as client:
        yield client


@pytest.fixture(scope="session")
def direct(chatty: Path) -> TransformerModel:
    """The same model, without a server."""
    return TransformerModel.from_hugging_face(str(chatty))
