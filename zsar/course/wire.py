"""Values as bytes between the grader and a student's process: JSON and safetensors, never pickle.

A message is two lengths, a JSON text in which a tensor is a number, and the tensors as safetensors. What comes from a
student's process is only data: reading it can run nothing.
"""

import json
import struct
from collections.abc import Callable
from typing import BinaryIO

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load, save

HEAD = struct.Struct("<QQ")
LARGEST = 256 * 2**20  # bytes of a message
DEEPEST = 20


class WireError(ValueError):
    """A value that cannot be sent, or bytes that are no message."""


def pack(value: object, special: Callable[[object], dict | None] = lambda thing: None) -> bytes:
    """``value`` as a message: None, bool, int, float, str, tensors, arrays, and lists, tuples and dicts of those.

    special: turns what else there is into a dict of plain values, or returns None. Raises WireError.
    """
    tensors: dict[str, torch.Tensor] = {}

    def plain(thing: object, depth: int = 0) -> object:
        if depth > DEEPEST:
            raise WireError("lists within lists, too deep")
        if thing is None or isinstance(thing, bool | int | float | str):
            return thing
        if isinstance(thing, np.generic):
            return thing.item()
        if isinstance(thing, np.ndarray | torch.Tensor):
            key = str(len(tensors))
            tensors[key] = _dense(thing)
            return {"array" if isinstance(thing, np.ndarray) else "tensor": key}
        if isinstance(thing, list | tuple):
            items = [plain(item, depth + 1) for item in thing]
            return items if isinstance(thing, list) else {"tuple": items}
        if isinstance(thing, dict):
            return {"dict": [[plain(key, depth + 1), plain(item, depth + 1)] for key, item in thing.items()]}
        found = special(thing)
        if found is None:
            raise WireError(f"a {type(thing).__name__}; expected a tensor, a number, a string, or a list, tuple or "
                            "dict of those")
        return {name: plain(item, depth + 1) for name, item in found.items()}

    text = json.dumps(plain(value)).encode()
    body = save(tensors)
    if len(text) + len(body) > LARGEST:
        raise WireError(f"{len(text) + len(body):,} bytes; expected at most {LARGEST:,}")
    return HEAD.pack(len(text), len(body)) + text + body


def _dense(thing: np.ndarray | torch.Tensor) -> torch.Tensor:
    """A tensor of its own memory. Raises WireError for what has no numbers in it."""
    try:
        return torch.as_tensor(thing).detach().cpu().clone().contiguous()
    except (TypeError, RuntimeError, ValueError) as error:
        raise WireError(f"an array that is no plain tensor ({error})") from error


def read(stream: BinaryIO, special: Callable[[str, object], object] | None = None) -> object:
    """The next message of a blocking stream. Raises EOFError at its end, WireError for bytes that are no message."""
    head = stream.read(HEAD.size)
    if len(head) < HEAD.size:
        raise EOFError
    sizes = HEAD.unpack(head)
    if sum(sizes) > LARGEST:
        raise WireError(f"a message of {sum(sizes):,} bytes; expected at most {LARGEST:,}")
    text, body = map(stream.read, sizes)
    if (len(text), len(body)) != sizes:
        raise EOFError
    return unpack(text, body, special)


def unpack(text: bytes, body: bytes, special: Callable[[str, object], object] | None = None) -> object:
    """The value of a message. special: makes what a dict of another single key stands for. Raises WireError."""
    try:
        tensors = load(body)
        return _value(json.loads(text), tensors, special)
    except WireError:
        raise
    except (ValueError, KeyError, TypeError, RecursionError, SafetensorError) as error:
        raise WireError(f"bytes that are no message ({type(error).__name__})") from error


def _value(thing: object, tensors: dict[str, torch.Tensor], special: Callable[[str, object], object] | None) -> object:
    """The value that JSON stands for."""
    if isinstance(thing, list):
        return [_value(item, tensors, special) for item in thing]
    if not isinstance(thing, dict):
        return thing
    (name, inner), = thing.items()
    if name == "tensor":
        return tensors[inner]
    if name == "array":
        return tensors[inner].numpy()
    inner = _value(inner, tensors, special)
    if name == "tuple":
        return tuple(inner)
    if name == "dict":
        return dict(inner)
    if special is None:
        raise WireError(f"a message with {name[:40]!r}")
    return special(name, inner)
