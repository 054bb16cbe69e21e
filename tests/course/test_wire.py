"""Values cross between processes as they are, and bytes that are no message are refused."""

import io
import json
import pickle

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from zsar.course import wire

PLAIN = st.recursive(st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
                     lambda inner: st.lists(inner) | st.tuples(inner, inner) | st.dictionaries(st.text(), inner),
                     max_leaves=8)


def there_and_back(value: object) -> object:
    return wire.read(io.BytesIO(wire.pack(value)))


@given(PLAIN)
@settings(deadline=None, max_examples=50)
def test_plain_values_come_back_as_they_were(value):
    assert there_and_back(value) == value


@pytest.mark.parametrize("tensor", [torch.rand(2, 3), torch.tensor(1.5), torch.arange(4), torch.tensor([True, False]),
                                    torch.rand(4, 6)[:, ::2], torch.zeros(0, 3), torch.rand(3).half()])
def test_tensors_come_back_as_they_were(tensor):
    back = there_and_back({"a": [tensor]})["a"][0]
    assert torch.equal(back, tensor)
    assert back.dtype == tensor.dtype


def test_arrays_stay_arrays_and_gradients_stay_behind():
    assert isinstance(there_and_back(np.arange(3)), np.ndarray)
    assert there_and_back(np.float32(2)) == 2.0
    assert not there_and_back(torch.ones(2, requires_grad=True)).requires_grad


@pytest.mark.parametrize("value", [object(), print, {1, 2}, 1j, np.array([object()]), torch.nn.Linear(1, 1)])
def test_anything_else_is_refused(value):
    with pytest.raises(wire.WireError):
        wire.pack(value)


def test_lists_that_hold_themselves_are_refused():
    loop: list = []
    loop.append(loop)
    with pytest.raises(wire.WireError, match="too deep"):
        wire.pack(loop)


def message(text: object, body: bytes | None = None) -> io.BytesIO:
    text, body = json.dumps(text).encode(), wire.save({}) if body is None else body
    return io.BytesIO(wire.HEAD.pack(len(text), len(body)) + text + body)


@pytest.mark.parametrize("stream", [
    message({"tensor": "0"}), message({"tensor": ["0"]}), message({"tuple": 3}), message({"dict": [[1]]}),
    message({"a": 1, "b": 2}), message({}), message({"given": ["model", []]}), message(1, b"no tensors"),
    message({"dict": [[["a"], 1]]}), message(1, pickle.dumps([1])), io.BytesIO(wire.HEAD.pack(2**50, 2**50)),
    io.BytesIO(wire.HEAD.pack(3, 8 + 2) + b"{a}" + b"\x02" + bytes(7) + b"{}")])
def test_bytes_that_are_no_message_are_refused(stream):
    with pytest.raises(wire.WireError):
        wire.read(stream)


def test_a_message_cut_off_is_the_end():
    whole = wire.pack([1, torch.ones(3)])
    for cut in (0, 5, 16, 20, len(whole) - 1):
        with pytest.raises(EOFError):
            wire.read(io.BytesIO(whole[:cut]))
