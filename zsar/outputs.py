"""Writing results: the place is tried before long work starts, and a file is complete or not there."""

import contextlib
import filecmp
import json
import os
import tempfile
from itertools import chain, count
from pathlib import Path

from zsar.errors import OutputError


def writable_folder(folder: str | Path) -> Path:
    """``folder``, made if need be. Raises OutputError where a file cannot be written into it, and for no name."""
    if not str(folder).strip():
        raise OutputError("the name of the folder is empty: name one, or write . for the current folder")
    folder = Path(folder)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        tempfile.TemporaryFile(dir=folder).close()
    except OSError as error:
        raise OutputError(f"cannot write into the folder {folder} ({error.strerror}): choose another, "
                          "or change its permissions") from error
    return folder


def writable_file(path: str | Path) -> Path:
    """``path``, its folder made if need be. Raises OutputError where the file cannot be written."""
    path = Path(path)
    if path.is_dir():
        raise OutputError(f"cannot write the file {path}: it is a folder; name a file in it")
    writable_folder(path.parent)
    return path


def write_atomically(path: Path, content: bytes) -> None:
    """Write a file beside its place and move it there, so that a reader never sees half of it. Raises OutputError."""
    part = path.with_name(f"{path.name}.{os.getpid()}.part")
    try:
        part.write_bytes(content)
        part.replace(path)
    except OSError as error:
        with contextlib.suppress(OSError):  # a name too long cannot be unlinked either
            part.unlink()
        raise OutputError(f"cannot write {path} ({error.strerror})") from error


def put_aside(path: Path, name: str, ending: str) -> Path:
    """Rename a file to ``name`` and ``ending``, so that nothing takes it for what it should be; its new path.

    Where another file lies there that is not the same, the new one has a number: ``name.2.ending``. Raises OSError.
    """
    names = chain([f"{name}{ending}"], (f"{name}.{number}{ending}" for number in count(2)))
    return path.replace(next(place for place in map(path.with_name, names)
                             if not place.exists() or filecmp.cmp(path, place, shallow=False)))


def write_json(path: Path, record: dict) -> None:
    """Write ``record`` as a JSON file, atomically. Raises OutputError."""
    write_atomically(path, (json.dumps(record, indent=1, ensure_ascii=False) + "\n").encode())
