"""A live HTTP server in this process, on a tiny model with a chat template."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from neuroscope.engines.torch.engine import TorchEngine
from neuroscope.models.model import TransformerModel
from neuroscope_bridge.host import Host, HostOptions
from neuroscope_bridge.rest.door import HttpDoor
from neuroscope_bridge.rest.jobs import HttpOptions
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


def within(seconds: float, holds: Callable[[], bool]) -> bool:
    end = time.monotonic() + seconds
    while not holds():
        if time.monotonic() > end:
            return False
        time.sleep(0.02)
    return True


class Serve:
    """Starts servers with the options of `HttpOptions`; answers their URLs."""

    def __init__(self, chatty: Path, speechless: Path) -> None:
        self._readable = (chatty.parents[1],)  # the folders of all tests
        self._aliases = [f"chatty={chatty}", f"speechless={speechless}"]
        self._doors: dict[str, tuple[HttpDoor, Host]] = {}
        self._shared: dict[str, str] = {}

    def __call__(self, address: str = "127.0.0.1:0", host: dict[str, Any] | None = None, **options: Any) -> str:
        served = Host(HostOptions("chatty", self._aliases, **{"readable": self._readable, **(host or {})}))
        door = HttpDoor(served, address, HttpOptions(**options))
        url = door.open()
        door.start()
        self._doors[url] = door, served
        return url

    def once(self, name: str, **options: Any) -> str:
        """A server that tests share, by a name."""
        if name not in self._shared:
            self._shared[name] = self(**options)
        return self._shared[name]

    def engine(self, url: str, name: str = "chatty") -> TorchEngine:
        """The engine that a server computes with."""
        host = self._doors[url][1]
        engine = host.context(None).run(TransformerModel.from_hugging_face, name).engine
        assert isinstance(engine, TorchEngine)
        return engine

    def close(self) -> None:
        for door, host in self._doors.values():
            door.close()
            host.close()


@pytest.fixture(scope="session")
def serve(chatty: Path, speechless: Path) -> Iterator[Serve]:
    serve = Serve(chatty, speechless)
    yield serve
    serve.close()


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
