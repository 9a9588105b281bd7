"""The image's side on a real Smalltalk: its own SUnit tests, and live code against a server."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from neuroscope.models.model import TransformerModel
from neuroscope_bridge.keys import make_keys
from tests.bridge.serving import save_tiny, serving
from tests.pharo.smalltalk import HOME, gst, needs_gst

pytestmark = needs_gst


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny(tmp_path_factory.mktemp("models") / "tiny")


@pytest.fixture(scope="module")
def server(folder: Path) -> Iterator[str]:
    with serving("--alias", f"tiny={folder}") as (_, address):
        yield address


def test_every_sunit_test_passes(server: str) -> None:
    output = gst(HOME / "pharo" / "gst" / "test.st", address=server)
    closing = re.search(r"^core: (\d+) passed, (\d+) failed$", output, re.MULTILINE)
    assert closing is not None, output
    assert closing.group(2) == "0", output
    assert int(closing.group(1)) >= 30


def test_statements_of_the_image_give_the_numbers_that_python_gets(server: str, folder: Path, tmp_path: Path) -> None:
    script = tmp_path / "live.st"
    script.write_text(
        f"NeuroScope connectTo: '{server}'.\n"
        "model := TransformerModel fromHuggingFace: 'tiny'.\n"
        "factor := 2.\n"
        "hook := ActivationHook layer: 1 component: 'residual' action: [:activations | activations * factor].\n"
        "model hookManager addHook: hook.\n"
        "text := model generate: 'w5 w6 w7' maxTokens: 12.\n"
        "text displayNl.\n"
        "(model predictions: 'w5 w6 w7') do: [:each | each first displayNl. each last displayNl].\n"
        "NeuroScope disconnect.\n"
    )
    output = gst(script)
    assert f"{folder} stands in for tiny." in output
    noise = ("Loading package", "stands in for", "Global garbage collection")
    lines = [line for line in output.splitlines() if line and not any(each in line for each in noise)]
    from neuroscope.hooks.hook import ActivationHook

    model = TransformerModel.from_hugging_face(str(folder))
    model.hook_manager.add_hook(ActivationHook(1, "residual", lambda a: a * 2))
    expected = [model.generate("w5 w6 w7", max_tokens=12)]
    for token, probability in model.predictions("w5 w6 w7"):
        expected += [token, repr(probability)]
    assert lines == expected


def test_a_class_that_cannot_be_compiled_is_named(tmp_path: Path) -> None:
    package = tmp_path / "Broken"
    package.mkdir()
    (package / "package.st").write_text("Package { #name : 'Broken' }\n")
    (package / "NsBroken.class.st").write_text(
        "Class {\n\t#name : 'NsBroken',\n\t#superclass : 'Object',\n\t#category : 'Broken',\n\t#package : 'Broken'\n}\n\n"
        "{ #category : 'x' }\nNsBroken >> bad [\n\n\t^ 3 + )\n]\n"
    )
    script = tmp_path / "load.st"
    script.write_text(f"(TonelLoader on: '{tmp_path}') load: 'Broken'.\n")
    output = gst(script)
    assert "NsBroken.class.st" in output
    assert "cannot compile bad" in output


def test_with_keys_a_session_is_encrypted_and_without_them_there_is_none(tmp_path: Path) -> None:
    make_keys(tmp_path)
    (tmp_path / "damaged.key").write_text('public-key = "too short"\n')
    script = tmp_path / "keys.st"
    try_ = "[{}] on: NsError do: [:error | (error code, ': ', error messageText) displayNl. error return: nil].\n"
    with serving("--keys", str(tmp_path)) as (_, address):
        script.write_text(
            f"NeuroScope connectTo: '{address}' key: '{tmp_path}/client.key_secret' serverKey: '{tmp_path}/server.key'.\n"
            "(NeuroScope evaluate: '3 + 4') displayNl.\n"
            "NeuroScope disconnect.\n"
            + try_.format(f"NsSession new setAddress: '{address}' keys: nil; patience: 1000; reconnect")
            + try_.format("NsKeys key: 'nowhere.key_secret' serverKey: 'server.key'")
            + try_.format(f"NsKeys key: '{tmp_path}/client.key_secret' serverKey: '{tmp_path}/damaged.key'")
        )
        output = gst(script)
    assert "\n7\n" in output, output
    assert f"server-gone: Nothing was heard from {address}." in output
    assert "connectTo:key:serverKey:" in output
    assert "file: There is no key file nowhere.key_secret." in output
    assert f"file: {tmp_path}/damaged.key has no public-key." in output


def test_an_image_that_was_saved_with_a_session_starts_without_it(server: str, tmp_path: Path) -> None:
    saved, before, after = tmp_path / "saved.im", tmp_path / "before.st", tmp_path / "after.st"
    before.write_text(
        f"Eval [ NeuroScope connectTo: '{server}'. (NeuroScope evaluate: '3 + 4') printNl. ObjectMemory snapshot: '{saved}'. "
        "(NeuroScope evaluate: '4 + 4') printNl ]\n"
    )
    after.write_text(
        "Eval [ ([NeuroScope evaluate: '5 + 5'] on: NsServerGone do: [:error | error return: error messageText]) displayNl. "
        f"NeuroScope connectTo: '{server}'. (NeuroScope evaluate: '6 + 6') printNl ]\n"
    )
    assert "\n7\n8\n" in gst(before)
    done = subprocess.run(["gst", "-I", str(saved), str(after)], capture_output=True, timeout=30, check=False)
    assert b"The session is closed." in done.stdout
    assert b"\n12\n" in done.stdout, done.stdout + done.stderr
