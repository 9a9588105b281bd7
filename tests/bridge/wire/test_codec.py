"""The codec: everything comes back as it was sent, tensors are not copied, and no bytes can break it."""

from __future__ import annotations

import math
from fractions import Fraction
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from neuroscope_bridge.wire import BlockSource, Callback, ClassName, Handle, decode, encode
from neuroscope_bridge.wire.codec import DTYPES
from neuroscope_bridge.wire.errors import ProtocolError, WireError
from neuroscope_bridge.wire.messages import OPERATIONS, parse_request
from neuroscope_dsl.runtime.values import Array, Association, Character, Symbol

texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
numbers = st.integers(-(1 << 80), 1 << 80)
scalars = st.one_of(
    st.none(),
    st.booleans(),
    numbers,
    st.floats(allow_nan=False),
    texts,
    st.binary(max_size=20),
    st.fractions().filter(lambda f: f.denominator != 1),
    texts.filter(bool).map(Symbol),
    st.characters(exclude_categories=["Cs"]).map(Character),
    st.builds(Handle, st.integers(0, 1 << 40), texts, texts),
    st.builds(ClassName, texts),
    st.builds(Callback, st.integers(0, 1 << 40), st.integers(0, 4)),
)
keys = st.one_of(texts, numbers, texts.filter(bool).map(Symbol))
values: st.SearchStrategy[Any] = st.recursive(
    scalars,
    lambda inner: st.one_of(
        st.lists(inner, max_size=4).map(Array),
        st.dictionaries(keys, inner, max_size=4),
        st.builds(Association, inner, inner),
        st.builds(BlockSource, texts, st.dictionaries(texts, inner, max_size=3)),
    ),
    max_leaves=12,
)
tensors = arrays.arrays(
    st.sampled_from([np.dtype(name) for name in DTYPES]),
    arrays.array_shapes(min_dims=0, max_dims=4, min_side=0, max_side=4),
)


def same(found: Any, sent: Any) -> bool:
    return bool(found == sent) and type(found) is type(sent)


@given(values)
def test_values_come_back_with_their_types(value: Any) -> None:
    found = decode(encode(value), array=Array)
    assert found == value
    assert type(found) is type(value)


@given(tensors, tensors)
def test_tensors_come_back_bit_for_bit(first: np.ndarray[Any, Any], second: np.ndarray[Any, Any]) -> None:
    frames = encode({"a": first, "list": [second, 1]})
    found = decode([bytes(frame) for frame in frames])
    for sent, got in ((first, found["a"]), (second, found["list"][0])):
        assert got.dtype == sent.dtype
        assert got.shape == sent.shape
        assert got.tobytes() == sent.tobytes()


def test_a_tensor_is_copied_on_neither_side() -> None:
    array = np.arange(12, dtype=np.float32).reshape(3, 4)
    frames = encode([array])
    assert np.shares_memory(np.frombuffer(frames[1], dtype=np.float32), array)
    found = decode(frames)[0]
    assert np.shares_memory(found, array)
    assert not found.flags.writeable


@pytest.mark.parametrize("array", [np.arange(12).reshape(3, 4).T, np.arange(10)[::2], np.arange(3, dtype=">i4")])
def test_any_layout_of_memory_can_be_sent(array: np.ndarray[Any, Any]) -> None:
    assert np.array_equal(decode(encode(array)), array)


def test_bfloat16_is_read_as_float32() -> None:
    header = bytes.fromhex("c70d0193a862666c6f617431369102") + b"\x00"
    assert decode([header, bytes.fromhex("803f20c0")]).tolist() == [1.0, -2.5]


def test_floats_that_are_no_numbers_cross_too() -> None:
    assert math.isnan(decode(encode(math.nan)))
    assert decode(encode([math.inf, -math.inf])) == [math.inf, -math.inf]


@pytest.mark.parametrize("value", [object(), {1, 2}, np.array([object()]), [lambda: 3], 1j])
def test_what_has_no_form_is_refused(value: Any) -> None:
    with pytest.raises(WireError):
        encode(value)


@given(st.lists(st.binary(max_size=60), max_size=3))
def test_any_bytes_are_a_value_or_a_clear_error(frames: list[bytes]) -> None:
    try:
        decode(frames)
    except WireError as error:
        assert error.message


@given(values, st.data())
def test_a_message_cut_or_changed_anywhere_is_a_value_or_a_clear_error(value: Any, data: st.DataObject) -> None:
    header = bytearray(encode({"v": 1, "value": value})[0])
    place = data.draw(st.integers(0, len(header) - 1))
    if data.draw(st.booleans()):
        with pytest.raises(WireError):
            decode([header[:place]])
    else:
        header[place] = data.draw(st.integers(0, 255))
        try:
            decode([header])
        except WireError as error:
            assert error.message


def test_nesting_has_an_end() -> None:
    with pytest.raises(WireError, match="nested"):
        decode([b"\x91" * 5000 + b"\x00"])
    value: Any = 1
    for _ in range(40):
        value = Association(value, 1)
    with pytest.raises(WireError, match="nested deeper"):
        decode(encode(value))


@pytest.mark.parametrize(
    ("header", "says"),
    [
        ([1], "a map"),
        ({"id": 1, "op": "hello"}, "version 1"),
        ({"v": 2, "id": 1, "op": "hello"}, "not 2"),
        ({"v": True, "id": 1, "op": "hello"}, "version"),
        ({"v": 1, "op": "hello"}, "needs an id"),
        ({"v": 1, "id": -1, "op": "hello"}, "needs an id"),
        ({"v": 1, "id": True, "op": "hello"}, "needs an id"),
        ({"v": 1, "id": 1, "op": "helo"}, "Did you mean 'hello'"),
        ({"v": 1, "id": 1, "op": 7}, "no operation 7"),
        ({"v": 1, "id": 1, "op": "send", "receiver": 1}, "needs the field 'selector'"),
        ({"v": 1, "id": 1, "op": "send", "receiver": 1, "selector": 3}, "'selector' of send must be a string, not int"),
        ({"v": 1, "id": 1, "op": "send", "receiver": 1, "selector": "x", "argumnts": []}, "Did you mean 'arguments'"),
        ({"v": 1, "id": 1, "op": "cancel", "request": True}, "'request' of cancel must be an integer"),
        ({"v": 1, "id": 1, "op": "answer", "call": 3}, "either a value or an error"),
        ({"v": 1, "id": 1, "op": "hello", 3: 4}, "no field 3"),
    ],
)
def test_a_faulty_header_is_explained(header: Any, says: str) -> None:
    with pytest.raises(ProtocolError) as caught:
        parse_request(header)
    assert says in str(caught.value)


@given(
    st.dictionaries(
        st.sampled_from(["v", "id", "op", "source", "receiver", "selector", "arguments", "call", "value", "events"]),
        st.one_of(scalars, st.just(1), st.sampled_from(sorted(OPERATIONS))),
    )
)
def test_any_header_is_a_request_or_a_clear_error(header: dict[str, Any]) -> None:
    try:
        request = parse_request(header)
    except ProtocolError as error:
        assert error.message
    else:
        assert request.operation in OPERATIONS


def test_fractions_come_back_in_lowest_terms() -> None:
    assert decode(encode(Fraction(2, 4))) == Fraction(1, 2)
