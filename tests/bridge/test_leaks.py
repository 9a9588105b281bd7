"""Sessions leave nothing behind, whatever they did. `make leaks` opens a thousand of each kind."""

from __future__ import annotations

import gc
import os
from pathlib import Path

from neuroscope_bridge.host import Host, HostOptions
from neuroscope_bridge.wire.messages import Request
from neuroscope_dsl.limits import resident_memory
from tests.bridge.serving import save_tiny

#: Sessions of all kinds together.
COUNT = int(os.environ.get("NEUROSCOPE_LEAKS", "50"))

#: What a session of each kind runs; N is another number in each.
KINDS = {
    "plain": "x := (1 to: 1000) asOrderedCollection. x collect: [:e | e * 2]",
    "symbols": "1 to: 50 do: [:i | ('symbol{N}x' , i printString) asSymbol. 3 respondsTo: ('foo{N}' , i printString) asSymbol]",
    "selectors": "1 to: 20 do: [:i | [3 perform: ('bar{N}x' , i printString) asSymbol] on: Error do: [:e | 0]]",
    "a class": "Object subclass: #Foo{N}.\nFoo{N} >> bar{N}\n    ^3\nFoo{N} new bar{N}",
    "a class derived from the vocabulary's": (
        "Dataset subclass: #Mine{N} instanceVariableNames: 'a b' classVariableNames: '' package: 'x'.\n"
        "Mine{N} >> foo{N}\n    ^1\nMine{N} respondsTo: #loadIOIExamples:"
    ),
    "an exception": "Error subclass: #Err{N}. [Err{N} new signal: 'x'] on: Err{N} do: [:e | kept := e]",
    "a hook": (
        "model := TransformerModel fromHuggingFace: 'tiny'. model hookManager addHook: (ActivationHook layer: 0 "
        "component: 'residual' action: [:a | a * 1.0]). cache := model runWithCaching: 'the cat'"
    ),
    "characters": "1 to: 300 do: [:i | Character value: {N} \\\\ 3000 * 300 + i + 1000]",
    "circles": "a := Array new: 1. a at: 1 put: a. b := [:x | b]. s := Set new. s add: b",
    "an error": "[:x | x / 0] value: 3",
}


def visit(host: Host, numbers: range) -> None:
    for number in numbers:
        source = list(KINDS.values())[number % len(KINDS)].replace("{N}", str(number))
        session = host.open_session(f"client {number}")
        fields = {"source": source, "answer": {"form": "handle"}}
        assert session.enqueue(session.job(Request(1, "evaluate", fields), lambda kind, told: None))
        job = session.next_job()
        assert job is not None
        kind, told = job.outcome()
        assert kind == "result" or told["error"]["code"] == "zero-divide", told
        assert session.rest()
        host.close_session(session, "done")
    gc.collect()


def test_sessions_of_every_kind_leave_nothing_behind(tmp_path: Path) -> None:
    host = Host(HostOptions(aliases=[f"tiny={save_tiny(tmp_path / 'tiny')}"]))
    warm = max(2 * len(KINDS), COUNT // 10)
    visit(host, range(warm))
    memory, objects = resident_memory(), len(gc.get_objects())
    visit(host, range(warm, warm + COUNT))
    left = len(gc.get_objects()) - objects
    assert host.sessions == []
    assert left < 15 * COUNT  # a session that stays has hundreds
    assert resident_memory() - memory < 20 << 20
