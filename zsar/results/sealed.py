"""The form of a cell's file: a line that can be read alone, a line of answers, a checksum; and older forms of it."""

import base64
import hashlib
import json
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np

from zsar.errors import StoreError

FORMAT = 1
#: How lines of an older format become those of the next one: ``MIGRATIONS[1](header, answers)`` is of format 2.
MIGRATIONS: dict[int, Callable[[dict, dict], tuple[dict, dict]]] = {}


class DamagedError(StoreError):
    """A file that is not what was written: it can only be computed again."""


def seal(header: dict, answers: dict) -> bytes:
    """The content of a file, in today's format."""
    header = {"format": FORMAT, **header}
    lines = "".join(json.dumps(part, ensure_ascii=False) + "\n" for part in (header, answers)).encode()
    return lines + hashlib.sha256(lines).hexdigest().encode() + b"\n"


def unseal(path: Path) -> tuple[dict, dict]:
    """The two lines of a file, in today's format. Raises StoreError, FileNotFoundError."""
    try:
        content = path.read_bytes()
    except FileNotFoundError:
        raise
    except OSError as error:
        raise StoreError(f"cannot read {path} ({error.strerror}): change its permissions") from error
    lines, _, seal = content.rstrip(b"\n").rpartition(b"\n")
    if hashlib.sha256(lines + b"\n").hexdigest().encode() != seal:
        raise DamagedError(f"{path} is damaged: its checksum is not the one at its end")
    header, answers = map(json.loads, lines.split(b"\n"))
    return migrate(path, header, answers)


def migrate(path: Path, header: dict, answers: dict) -> tuple[dict, dict]:
    """Lines of any format that is known in today's. Raises StoreError for another, such as that of a later release."""
    while (version := header["format"]) != FORMAT:
        if version not in MIGRATIONS:
            raise StoreError(f"{path} has the format {version}, this release reads up to {FORMAT}: install the release "
                             "that wrote it, or a later one")
        header, answers = MIGRATIONS[version](header, answers)
    return header, answers


def pack_predictions(predictions: np.ndarray) -> str:
    """int [N] as text."""
    return base64.b64encode(zlib.compress(predictions.astype("<i4").tobytes())).decode()


def unpack_predictions(text: str) -> np.ndarray:
    """int64 [N] of ``pack_predictions``."""
    return np.frombuffer(zlib.decompress(base64.b64decode(text)), "<i4").astype(np.int64)
