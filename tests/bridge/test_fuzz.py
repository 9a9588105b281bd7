"""Random messages and random scripts: every message is answered by an error of ours, and the server and others go on.

A short run is part of the suite; `make fuzz` makes long ones (NEUROSCOPE_FUZZ: how many examples of each).
"""

from __future__ import annotations

import os
from fractions import Fraction
from typing import Any

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from neuroscope_bridge.host import Host, HostOptions
from neuroscope_bridge.host.limits import Limits as ServerLimits
from neuroscope_bridge.wire import decode, encode
from neuroscope_bridge.wire.errors import WireError
from neuroscope_bridge.wire.messages import OPERATIONS, parse_request
from neuroscope_dsl import Workspace
from neuroscope_dsl.runtime.values import Array, Symbol

EXAMPLES = int(os.environ.get("NEUROSCOPE_FUZZ", "60"))

patient = settings(max_examples=EXAMPLES, deadline=None, suppress_health_check=list(HealthCheck))

integers = st.one_of(st.integers(-10, 10), st.integers(), st.integers(10**4400, 10**4400 + 5))
values: st.SearchStrategy[Any] = st.recursive(
    st.one_of(
        st.none(),
        st.booleans(),
        integers,
        st.floats(),
        st.text(max_size=20),
        st.binary(max_size=20),
        st.text(max_size=9).map(Symbol),
        st.builds(Fraction, st.integers(-9, 9), st.integers(1, 9)),
    ),
    lambda inner: st.one_of(st.lists(inner, max_size=4), st.dictionaries(st.text(max_size=4), inner, max_size=4)),
    max_leaves=6,
)
_library = Workspace()
SELECTORS: set[str] = {
    selector for value in (1, "a", 1.5, Array([1]), {}, None, Symbol("x"), True) for selector in _library.dispatcher.selectors(value)
} - {"halt"}  # fmt: skip
NAMES = sorted({name for operation in OPERATIONS.values() for name in operation.allowed})


@patient
@given(st.one_of(st.binary(max_size=200), values.map(lambda value: bytes(encode(value)[0]))))
def test_whatever_the_bytes_are_reading_them_gives_a_value_or_our_error(data: bytes) -> None:
    try:
        value = decode([data], array=Array, guarded=True)
    except WireError:
        return
    if isinstance(value, dict):
        try:
            parse_request(value)
        except Exception as error:
            assert getattr(error, "code", "") in ("protocol", "protocol-version", "unknown-operation"), error


class Conversation(RuleBasedStateMachine):
    """A session that is asked anything: each request ends with a result or with one of our errors."""

    def __init__(self) -> None:
        super().__init__()
        self.host = Host(HostOptions(limits=ServerLimits(memory=200 << 20, time=1.0, source=2_000)))
        self.session = self.host.open_session()
        self.number = 0

    @rule(operation=st.sampled_from(["send", "evaluate", "run", "describe"]), fields=st.dictionaries(st.sampled_from(NAMES), values, max_size=5))  # fmt: skip
    def ask(self, operation: str, fields: dict[str, Any]) -> None:
        self.perform({**fields, "op": operation})

    @rule(receiver=values, selector=st.sampled_from(sorted(SELECTORS)), arguments=st.lists(values, max_size=3))
    def send(self, receiver: Any, selector: str, arguments: list[Any]) -> None:
        self.perform({"op": "send", "receiver": receiver, "selector": selector, "arguments": arguments})

    def perform(self, fields: dict[str, Any]) -> None:
        self.number += 1
        try:
            read = decode(encode({"v": 1, "id": self.number, **fields}), array=Array, guarded=True)
            request = parse_request(read)
            if not self.session.enqueue(self.session.job(request, lambda kind, told: None), request.get("within")):
                raise AssertionError("the session is owned by another")
        except Exception as error:
            assert getattr(error, "code", "internal") != "internal", repr(error)
            return
        job = self.session.next_job()
        assert job is not None
        kind, told = job.outcome()
        encode({"type": kind, **told})
        assert kind == "result" or told["error"]["code"] != "internal", told
        assert self.session.rest()

    @invariant()
    def goes_on(self) -> None:
        assert self.session.workspace.run("3 + 4") == 7

    def teardown(self) -> None:
        self.host.close_session(self.session, "done")


TestConversation = Conversation.TestCase
TestConversation.settings = settings(
    max_examples=max(5, EXAMPLES // 4), stateful_step_count=15, deadline=None, suppress_health_check=list(HealthCheck)
)
