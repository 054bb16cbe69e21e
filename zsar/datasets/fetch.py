"""Getting the files of a dataset: resumed where it broke off, checked, and never over something that is complete."""

import glob
import hashlib
import json
import re
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from http.client import HTTPException, HTTPResponse
from pathlib import Path
from urllib.error import HTTPError

from filelock import FileLock
from huggingface_hub import HfApi, snapshot_download
from huggingface_hub.utils import GatedRepoError, RepositoryNotFoundError

from zsar.datasets.archives import DISK_ERRORS, check_space, extract, is_archive
from zsar.datasets.manifest import Source
from zsar.datasets.real.shards import ENDINGS, files_to_fetch
from zsar.errors import DatasetError, OutputError, ZsarError, first_line
from zsar.outputs import put_aside, writable_folder

ASK_ABOVE = 5 * 10**9  # bytes
UNPACKED = 1.25  # times the size of an archive: what its files are thought to need before it is there to be asked
TIMEOUT = 30  # seconds without a byte
ATTEMPTS, PAUSE = 5, 1.0  # in a row that bring nothing new; seconds after the first, doubled after each
CHUNK = 2**20
PASSING = {408, 425, 429, 500, 502, 503, 504}  # what a server says that may be well again soon


def fetch(source: Source, root: Path, *, name: str, agreed: Callable[[int], bool],
          progress: Callable[[int], None] = lambda received: None, split: str = "test") -> str:
    """Get what is missing of the dataset ``name`` from ``source``. Returns what is left to do by hand, mostly nothing.

    archive: every file to ``root/<its name in source.files>``, unpacked in its folder; its entry ``inner`` may list
    archives that come out of it and are unpacked in that folder too. parquet, wds: to ``root/<kind>/<name>``, the
    shards of ``split`` (``test``, ``train`` or ``all``), all where none is named after it. manual: nothing is fetched.

    agreed: asked with the bytes to come where these are more than 5 GB. progress: told the bytes that arrived (the
    hub's client shows its own). Interrupted, it goes on where it was. Raises DatasetError for what cannot be had or is
    not what it should be, OutputError for no space and no permission.
    """
    if source.kind == "manual":
        return "\n".join(source.steps)
    if source.kind in ENDINGS:
        _fetch_shards(source, Path(root) / source.kind / name, split, agreed)
    else:
        with _writing(Path(root)):
            _fetch_files(source, Path(root), agreed, progress)
    return ""


def check_files(source: Source, root: Path) -> list[str]:
    """What is wrong with those files of ``source`` that lie below ``root``: a line for each whose size or checksum is
    not the known one (and whether that was ever compared with the genuine file), or that cannot be read.
    """
    if source.kind in ENDINGS:
        return []  # the hub's client compares them as they arrive, and the manifest does not know them
    wrong = []
    for name, record in source.files.items():
        file = _file(Path(root) / name, record, source.verified)
        try:
            if file.path.is_file() and (fault := file.fault()):
                wrong.append(f"{file.path}: {fault}")
        except OSError as error:
            wrong.append(f"cannot read {file.path} ({error.strerror}): change its permissions")
    return wrong


def _prepare(folder: Path, size: int, needed: int, agreed: Callable[[int], bool]) -> None:
    """Raises OutputError where there is no space for ``needed`` bytes, DatasetError where ``size`` is not agreed to."""
    check_space(writable_folder(folder), needed)
    if size > ASK_ABOVE and not agreed(size):
        raise DatasetError(f"not downloaded: {size:,} bytes were not agreed to; fetch again and say yes, or give --yes")


# files behind addresses

@dataclass(frozen=True)
class _File:
    """A file to be had, and what is known of it: ``size`` in bytes, ``algorithm`` (md5 or sha256) and ``checksum``.

    verified: whether these were ever compared with the genuine file.
    """

    path: Path
    address: str
    size: int | None
    algorithm: str
    checksum: str | None
    verified: bool

    @property
    def part(self) -> Path:
        return self.path.with_name(self.path.name + ".part")

    def difference(self, size: int, checksum: str) -> str:
        """What is wrong with a file of this size and checksum; empty where it is the one that is expected."""
        doubt = "" if self.verified else " (which was never compared with the genuine file)"
        if self.size is not None and size != self.size:
            return f"found {size:,} bytes, expected {self.size:,}{doubt}"
        if self.checksum is not None and checksum != self.checksum.lower():
            return f"found the {self.algorithm} {checksum}, expected {self.checksum}{doubt}"
        return ""

    def is_complete(self) -> bool:
        """Whether it is there as it should be; where nothing is known of it: whether it is there."""
        return self.path.is_file() and not self.fault()

    def fault(self) -> str:
        """What is wrong with the file that is there; empty where it is the one that is expected."""
        size = self.path.stat().st_size
        if self.checksum is None or self.size not in (None, size):
            return self.difference(size, self.checksum or "")
        with self.path.open("rb") as file:
            return self.difference(size, hashlib.file_digest(file, self.algorithm).hexdigest())

    def keep_aside(self, path: Path) -> Path:
        """Rename what is not the expected file, so that nothing uses it. Returns its new path."""
        with _writing(path):
            return put_aside(path, self.path.name, ".mismatch")

    def by_hand(self) -> str:
        """How to mend it without a network."""
        known = ", ".join(([f"{self.size:,} bytes"] if self.size is not None else []) +
                          ([f"{self.algorithm} {self.checksum}"] if self.checksum else []))
        return f"get the file elsewhere and put it at {self.path}" + (f" ({known})" if known else "")


class _Part:
    """The beginning of a file. A note beside it says of which version, lest it be glued to the rest of another one."""

    def __init__(self, path: Path, algorithm: str):
        self.path, self.note = path, path.with_name(path.name + ".json")
        self.hash, self.size, self.version = hashlib.new(algorithm), 0, {}
        try:
            self.version = dict(json.loads(self.note.read_text(encoding="utf-8")))
            with path.open("rb") as file:
                while chunk := file.read(CHUNK):
                    self.hash.update(chunk)
                    self.size += len(chunk)
        except (OSError, ValueError, TypeError):
            self.size = 0  # what is not known in full is begun anew

    @property
    def can_go_on(self) -> bool:
        return bool(self.size and self.version.get("called"))

    @property
    def is_whole(self) -> bool:
        return self.can_go_on and self.size == self.version.get("size")

    def begin(self, version: dict) -> None:
        """Throw away what is there. In this order, since the old bytes must never stand beside the new note."""
        self.hash, self.size, self.version = hashlib.new(self.hash.name), 0, version
        with _writing(self.path):
            self.path.write_bytes(b"")
            self.note.write_text(json.dumps(version), encoding="utf-8")

    def append(self, chunk: bytes) -> None:
        with _writing(self.path), self.path.open("ab") as file:
            file.write(chunk)
        self.hash.update(chunk)
        self.size += len(chunk)


@contextmanager
def _writing(path: Path) -> Iterator[None]:
    """Errors of the disk, which look like those of the network."""
    try:
        yield
    except OSError as error:
        raise OutputError(f"cannot read or write {error.filename or path} ({error.strerror}): make room or change its "
                          "permissions, then fetch again: it goes on where it is") from error


def _fetch_files(source: Source, root: Path, agreed: Callable[[int], bool], progress: Callable[[int], None]) -> None:
    files = {name: _file(root / name, record, source.verified) for name, record in source.files.items()}
    missing = [file for file in files.values() if not file.is_complete()]
    size = needed = 0
    for file in missing:
        whole = file.size or _announced_size(file.address)
        there = file.part.stat().st_size if file.part.is_file() else 0
        size += max(whole - there, 0)
        needed += max(whole - there, 0) + int(is_archive(file.path.name) * UNPACKED * whole)
    if missing:
        _prepare(root, size, needed, agreed)
    for file in missing:
        _download(file, progress)
    for name, file in files.items():
        if is_archive(name):
            for archive in (file.path.name, *source.files[name].get("inner", ())):
                extract(file.path.parent / archive, file.path.parent)


def _file(path: Path, record: dict, verified: bool) -> _File:
    algorithm = "sha256" if record.get("sha256") else "md5"
    return _File(path, record["address"], record.get("size"), algorithm, record.get(algorithm), verified)


def _announced_size(address: str) -> int:
    """What the server says of a size that the manifest does not know; 0 where it says nothing."""
    try:
        with _open(address, method="HEAD") as response:
            return int(response.headers["Content-Length"] or 0)
    except (OSError, HTTPException, ValueError):
        return 0  # the download itself will say what is wrong


def _open(address: str, method: str = "GET", **headers: str) -> HTTPResponse:
    headers |= {"User-Agent": "zsar", "Accept-Encoding": "identity"}
    return urllib.request.urlopen(urllib.request.Request(address, headers=headers, method=method), timeout=TIMEOUT)


def _download(file: _File, progress: Callable[[int], None]) -> None:
    """One file to its place. Raises DatasetError, OutputError. A second process waits here until the first is done."""
    writable_folder(file.path.parent)
    with FileLock(file.path.with_name(f".{file.path.name}.lock")):
        if file.is_complete():
            return
        found = ""
        if file.path.exists():
            fault = file.fault() if file.path.is_file() else "it was no file"
            found = f"; what was at {file.path} is not it ({fault}) and is kept as {file.keep_aside(file.path)}"
        part = _Part(file.part, file.algorithm)
        try:
            _receive_all(file, part, progress)
        except DatasetError as error:
            raise DatasetError(f"{error}{found}") from error
        if difference := file.difference(part.size, part.hash.hexdigest()):
            aside = file.keep_aside(part.path)
            part.note.unlink(missing_ok=True)
            raise DatasetError(f"{file.address} is not the file that it should be: {difference}; it is kept as {aside} "
                               f"and not used: fetch it again, or {file.by_hand()}")
        with _writing(file.path):
            part.path.replace(file.path)
            part.note.unlink(missing_ok=True)


def _receive_all(file: _File, part: _Part, progress: Callable[[int], None]) -> None:
    """Until the part is whole, again and again where the connection breaks, as long as that brings something new."""
    most, idle = part.size, 0
    while not part.is_whole:
        try:
            return _receive(file.address, part, progress)
        except (OSError, HTTPException) as error:
            if isinstance(error, HTTPError) and error.code == 416:  # there is nothing where the part ends
                part.begin({})
            idle = 1 if part.size > most else idle + 1
            most = max(most, part.size)
            lasting = isinstance(error, HTTPError) and error.code not in PASSING | {416}
            if lasting or idle == ATTEMPTS:
                why = f"HTTP {error.code} {error.reason}" if isinstance(error, HTTPError) else first_line(
                    getattr(error, "reason", None) or error, 120)
                raise DatasetError(f"cannot download {file.address} ({why}): try again later, or "
                                   f"{file.by_hand()}") from error
            time.sleep(PAUSE * 2**(idle - 1))


def _receive(address: str, part: _Part, progress: Callable[[int], None]) -> None:
    """One connection. Raises OSError or HTTPException where it breaks, OutputError where the disk does."""
    wanted = {"Range": f"bytes={part.size}-", "If-Range": part.version["called"]} if part.can_go_on else {}
    with _open(address, **wanted) as response:
        start, version = _answered(response)
        if start and (start != part.size or _differ(version, part.version)):
            part.begin({})
            raise ConnectionError("the file has changed on the server while it was downloaded")
        if not start:
            part.begin(version)
        while chunk := response.read(CHUNK):
            part.append(chunk)
            progress(len(chunk))
    if part.size != (version["size"] or part.size):
        raise ConnectionError(f"it broke off after {part.size:,} of {version['size']:,} bytes")


def _answered(response: HTTPResponse) -> tuple[int, dict]:
    """Where the bytes of a response begin in the file, and which version of it: what it is called, its size.

    A weak ETag does not promise the same bytes, so it is no name; a version without a name cannot be gone on with.
    """
    etag, size, start = response.headers["ETag"] or "", response.headers["Content-Length"], 0
    if response.status == 206:
        if not (place := re.fullmatch(r"bytes (\d+)-\d+/(\d+|\*)", response.headers["Content-Range"] or "")):
            raise HTTPException("it sent a part without saying which")
        start, size = int(place[1]), place[2]
    called = response.headers["Last-Modified"] if etag.startswith("W/") or not etag else etag
    return start, {"called": called, "size": int(size) if (size or "").isdigit() else None}


def _differ(version: dict, other: dict) -> bool:
    """Whether they cannot be one version; a server need not repeat a date with a part."""
    return version["size"] != other["size"] or version["called"] not in (None, other["called"])


# shards on the Hugging Face hub

def _fetch_shards(source: Source, folder: Path, split: str, agreed: Callable[[int], bool]) -> None:
    try:
        info = HfApi().dataset_info(source.address, files_metadata=True, timeout=TIMEOUT)
        sizes = {file.rfilename: file.size for file in info.siblings}
        if not (wanted := files_to_fetch(source.kind, list(sizes), split)):
            raise DatasetError(f"{_page(source)} has no files *{', *'.join(ENDINGS[source.kind])}: expected some; open "
                               "the page to see what became of it")
        size = sum(sizes[file] or 0 for file in wanted if not _has_size(folder / file, sizes[file]))
        _prepare(folder, size, size, agreed)
        snapshot_download(source.address, repo_type="dataset", revision=info.sha, local_dir=folder,
                          allow_patterns=[glob.escape(file) for file in wanted])
    except ZsarError:
        raise
    except Exception as error:  # the hub's client raises errors of many libraries
        raise _hub_error(error, source, folder) from error


def _has_size(path: Path, size: int | None) -> bool:
    return path.is_file() and path.stat().st_size == size


def _page(source: Source) -> str:
    return f"https://huggingface.co/datasets/{source.address}"


def _hub_error(error: Exception, source: Source, folder: Path) -> ZsarError:
    """What an exception of the hub's client means, in one line."""
    if isinstance(error, OSError) and error.errno in DISK_ERRORS:
        return OutputError(f"cannot read or write {error.filename or folder} ({error.strerror}): make room or change "
                           "its permissions, then fetch again: it goes on where it is")
    if isinstance(error, GatedRepoError):
        return DatasetError(f"the files of {_page(source)} are given out to those who agreed to its terms: accept them "
                            "on that page, log in with 'hf auth login', and fetch again")
    if isinstance(error, RepositoryNotFoundError):
        return DatasetError(f"the hub has no {_page(source)}, or keeps it private: open the page, and log in with "
                            "'hf auth login' where that is asked for")
    return DatasetError(f"cannot download {_page(source)} ({first_line(error)}): try again later, or put its files "
                        f"into {folder}")
