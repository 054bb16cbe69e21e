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
LARGEST = 64 * 2**20  # bytes of a message
LARGEST_TEXT = 4 * 2**20  # of them JSON, which becomes forty times as large when it is read
DEEPEST = 20


class WireError(ValueError):
    """A value that cannot be sent, or bytes that are no message."""


def pack(value: object, special: Callable[[object], dict | None] = lambda thing: None) -> bytes:
    """``value`` as a message: None, bool, int, float, str, tensors, arrays, and lists, tuples and dicts of those.

    special: turns what else there is into a dict of plain values, or returns None. Raises WireError.
    """
    tensors: dict[str, torch.Tensor] = {}
    size = 0

    def plain(thing: object, depth: int = 0) -> object:
        nonlocal size
        if depth > DEEPEST:
            raise WireError("lists within lists, too deep")
        if thing is None or isinstance(thing, bool | int | float | str):
            return thing
        if isinstance(thing, np.generic):
            return thing.item()
        if isinstance(thing, np.ndarray | torch.Tensor):
            if (size := size + thing.nbytes) > LARGEST:
                raise WireError(f"more than {LARGEST // 2**20} MB of tensors")
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
    _check_sizes(len(text), len(body))
    return HEAD.pack(len(text), len(body)) + text + body


def _dense(thing: np.ndarray | torch.Tensor) -> torch.Tensor:
    """A tensor of its own memory. Raises WireError for what has no numbers in it."""
    try:
        return torch.as_tensor(thing).detach().cpu().clone().contiguous()
    except (TypeError, RuntimeError, ValueError) as error:
        raise WireError(f"an array that is no plain tensor ({error})") from error


def read(stream: BinaryIO, special: Callable[[str, object], object] | None = None) -> object:
    """The next message of a blocking stream. Raises EOFError at its end, WireError for bytes that are no message.

    special: makes what a dict of another single key stands for; what it raises is raised.
    """
    head = stream.read(HEAD.size)
    if len(head) < HEAD.size:
        raise EOFError
    sizes = HEAD.unpack(head)
    _check_sizes(*sizes)
    text, body = map(stream.read, sizes)
    if (len(text), len(body)) != sizes:
        raise EOFError
    return _unpack(text, body, special)


def _check_sizes(text: int, body: int) -> None:
    if text > LARGEST_TEXT or text + body > LARGEST:
        raise WireError(f"a message of {text + body:,} bytes, {text:,} of them text; expected at most {LARGEST:,} and "
                        f"{LARGEST_TEXT:,}")


def clean(text: str) -> str:
    """A text that can be written as UTF-8: half a surrogate pair becomes a question mark."""
    return text.encode(errors="replace").decode()


def _unpack(text: bytes, body: bytes, special: Callable[[str, object], object] | None) -> object:
    try:
        tensors = load(body)
        return _value(json.loads(text), tensors, special)
    except WireError:
        raise
    except (ValueError, KeyError, TypeError, RuntimeError, MemoryError, OverflowError, SafetensorError) as error:
        raise WireError(f"bytes that are no message ({type(error).__name__})") from error


def _value(thing: object, tensors: dict[str, torch.Tensor], special: Callable[[str, object], object] | None) -> object:
    """The value that JSON stands for; each tensor once, so that a small message cannot become large."""
    if isinstance(thing, str):
        return clean(thing)
    if isinstance(thing, list):
        return [_value(item, tensors, special) for item in thing]
    if not isinstance(thing, dict):
        return thing
    (name, inner), = thing.items()
    if name in ("tensor", "array"):
        found = tensors.pop(inner)
        return found if name == "tensor" else found.numpy()
    inner = _value(inner, tensors, special)
    if name in ("tuple", "dict") and not isinstance(inner, list):
        raise WireError(f"a {name} that is no list")
    if name == "tuple":
        return tuple(inner)
    if name == "dict":
        return dict(inner)
    if special is None:
        raise WireError(f"a message with {name[:40]!r}")
    return special(name, inner)
