"""Unpacking archives that others made: looked through before anything is written, and never over what is there."""

import bz2
import errno
import gzip
import lzma
import os
import shutil
import stat
import tarfile
import warnings
import zipfile
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import IO

from filelock import FileLock

from zsar.errors import DatasetError, OutputError, ZsarError, first_line
from zsar.outputs import writable_folder

LIMIT_BYTES, LIMIT_FILES = 200 * 10**9, 2_000_000  # ImageNet, the largest, has about 150 GB in 1.3 million files
LIMIT_RATIO, ANY_RATIO = 200, 10**9  # of unpacked to packed bytes; so few unpacked bytes may have any ratio
LONGEST_HEADER = 2**20  # bytes
CHUNK = 2**20
#: The library's own protection. Python before 3.11.4 lacks it; all that it refuses, ``_check`` has refused before.
FILTER = {"filter": "data"} if hasattr(tarfile, "data_filter") else {}
DISK_ERRORS = {errno.ENOSPC, errno.EDQUOT, errno.EACCES, errno.EPERM, errno.EROFS, errno.EIO}
MAGIC = {b"\x1f\x8b": gzip.open, b"BZh": bz2.open, b"\xfd7zXZ\x00": lzma.open}
TAR_SUFFIXES = (".tar", ".tar.gz", ".tgz", ".tar.bz2", ".tar.xz")


@dataclass(frozen=True)
class _Member:
    """``kind``: ``file``, ``folder``, or in words what it is else, which is refused. Size in bytes once unpacked."""

    name: str
    size: int
    kind: str

    @property
    def path(self) -> PurePosixPath:
        return PurePosixPath(self.name)


#: What a format can do: list members (of a single compressed file: reading at most so many bytes), and unpack some.
_List = Callable[[Path, int], Iterator[_Member]]
_Unpack = Callable[[Path, set[PurePosixPath], Path], None]


def is_archive(name: str) -> bool:
    """Whether ``extract`` takes a file of this name."""
    return name.lower().endswith((*TAR_SUFFIXES, ".zip", ".gz"))


def extract(archive: Path, into: Path, *, limit_bytes: int = LIMIT_BYTES,
            limit_files: int = LIMIT_FILES) -> list[Path]:
    """Unpack a .tar (also .gz, .bz2, .xz), a .zip or a single .gz file. Returns the paths of all files in it.

    Every member is looked at first, and nothing is written where one is refused: a path that leads out of ``into``, a
    link (none of the sixteen datasets is known to need one), a device, or more bytes or members than the limits. Files
    that are there with the right size stay as they are, so that an interrupted extraction is completed. The rest is
    unpacked in a folder beside its place and moved when it is complete. An empty lock file ``.<name>.lock`` remains.
    Raises DatasetError for a hostile or broken archive or a differing file in its place, OutputError for no space.
    """
    listing, unpack = _format(archive)
    with _explained(archive, into):
        files = _check(archive, listing, limit_bytes, limit_files)
        into = writable_folder(into)
        half = into / f".{archive.name}.extracting"
        with FileLock(into / f".{archive.name}.lock"):
            try:
                shutil.rmtree(half, ignore_errors=True)  # of a process that was killed
                if missing := _missing(archive, files, into):
                    check_space(into, sum(files[path] for path in missing))
                    half.mkdir()
                    unpack(archive, missing, half)
                    _move(half, into)
            finally:
                shutil.rmtree(half, ignore_errors=True)
    return [into / path for path in files]


def check_space(folder: Path, needed: int) -> None:
    """Raises OutputError where less than ``needed`` bytes are free at ``folder``."""
    free = shutil.disk_usage(folder).free
    if free < needed:
        raise OutputError(f"not enough space in {folder}: {needed:,} bytes are needed, {free:,} are free; "
                          "make room, or choose another folder")


def _format(archive: Path) -> tuple[_List, _Unpack]:
    """How to read an archive, by its name. Raises DatasetError for a missing file and an unknown format."""
    if not archive.is_file():
        raise DatasetError(f"missing archive {archive}: fetch it")
    name = archive.name.lower()
    if name.endswith(TAR_SUFFIXES):
        return _list_tar, _unpack_tar
    if name.endswith(".zip"):
        return _list_zip, _unpack_zip
    if name.endswith(".gz"):
        return _list_gzip, _unpack_gzip
    raise DatasetError(f"cannot unpack {archive}: expected a name that ends in {', '.join(TAR_SUFFIXES)}, .zip or .gz")


@contextmanager
def _explained(archive: Path, into: Path) -> Iterator[None]:
    """Turns whatever goes wrong into one line."""
    try:
        yield
    except ZsarError:
        raise
    except Exception as error:  # tarfile, zipfile and three decompressors raise errors of many kinds on broken files
        if isinstance(error, OSError) and error.errno in DISK_ERRORS:
            raise OutputError(f"cannot unpack {archive} into {into} ({error.strerror}); nothing was left half "
                              "written, try again when that is mended") from error
        raise DatasetError(f"cannot read the archive {archive} ({first_line(error, 120)}): truncated, or something "
                           "else under its name; delete it and fetch it again") from error


# looking through

def _check(archive: Path, listing: _List, limit_bytes: int, limit_files: int) -> dict[PurePosixPath, int]:
    """Path -> size of every file in the archive. Raises DatasetError, naming the member, where one is refused."""
    most = min(limit_bytes, max(ANY_RATIO, LIMIT_RATIO * archive.stat().st_size))
    files, total = {}, 0
    for count, member in enumerate(listing(archive, most), 1):
        total += member.size
        reason = _refusal(member)
        if total > most:
            reason = (f"brings it to {total:,} bytes, expected at most {most:,} from the {archive.stat().st_size:,} "
                      "of the archive: it looks like a bomb")
        if count > limit_files:
            reason = f"is one of more than {limit_files:,} members, expected at most so many: it looks like a bomb"
        if reason:
            raise _refused(archive, member.name, reason)
        if member.kind == "file":
            files[member.path] = member.size  # a path that comes twice: the later one counts, as in tar
    if both := sorted(_folders(files) & files.keys()):
        raise _refused(archive, str(both[0]), "is a file and a folder at once")
    _warn_of_same_names(archive, files)
    return files


def _refusal(member: _Member) -> str:
    """Why a member is not unpacked, whatever the others are; empty if it is. Windows' paths count everywhere."""
    windows = PureWindowsPath(member.name)
    if windows.drive or windows.root:
        return "has an absolute path"
    if ".." in windows.parts:
        return "leads out of its folder by '..'"
    if "\\" in member.name or "\0" in member.name:
        return "has a backslash or a null byte in its path"
    if member.kind not in ("file", "folder"):
        return f"is {member.kind}, expected files and folders only"
    if member.kind == "file" and not member.path.name:
        return "has no name"
    return "has a negative size" if member.size < 0 else ""


def _refused(archive: Path, name: str, reason: str) -> DatasetError:
    """The error for an archive of which nothing is unpacked because of one member."""
    return DatasetError(f"refused to unpack {archive}: its member {name[:100]!r} {reason}; nothing was written, "
                        "fetch the archive again from its publisher")


def _folders(paths: Iterable[PurePosixPath]) -> set[PurePosixPath]:
    return {parent for path in paths for parent in path.parents}


def _warn_of_same_names(archive: Path, files: Iterable[PurePosixPath]) -> None:
    """Names that differ in case only become one file on a disk that ignores case; elsewhere they do no harm."""
    seen = {}
    for path in files:
        other = seen.setdefault(str(path).casefold(), path)
        if other != path:
            warnings.warn(f"{archive}: {str(other)!r} and {str(path)!r} are one file on a disk that ignores case",
                          stacklevel=4)
            return


def _missing(archive: Path, files: dict[PurePosixPath, int], into: Path) -> set[PurePosixPath]:
    """The files that are not in place. Raises DatasetError where something else is."""
    for folder in _folders(files):
        if os.path.lexists(into / folder) and not (into / folder).is_dir():
            raise DatasetError(f"cannot unpack {archive}: {into / folder} is in the way, expected a folder or nothing; "
                               "move it away")
    missing = {path for path in files if not os.path.lexists(into / path)}
    for path in files.keys() - missing:
        there = into / path
        found = f"{there.stat().st_size:,} bytes" if there.is_file() else "no file"
        if found != f"{files[path]:,} bytes":
            raise DatasetError(f"cannot unpack {archive}: {there} is there with {found}, expected "
                               f"{files[path]:,} bytes; move it away, it is not overwritten")
    return missing


def _move(source: Path, target: Path) -> None:
    """Move what is in a folder, as few and as large pieces as possible, to where nothing of that name is."""
    for entry in source.iterdir():
        place = target / entry.name
        if not os.path.lexists(place):
            entry.rename(place)
        elif entry.is_dir():
            _move(entry, place)


# formats

class _Headers:
    """A tar of which headers alone are read, data are stepped over. A huge header would fill the memory: refused."""

    def __init__(self, stream: IO[bytes]):
        self._stream, self.seek, self.tell = stream, stream.seek, stream.tell
        self.last = b""

    def read(self, size: int) -> bytes:
        if not 0 <= size <= LONGEST_HEADER:
            raise tarfile.ReadError(f"a header of {size:,} bytes, expected at most {LONGEST_HEADER:,}")
        self.last = self._stream.read(size)
        return self.last


def _open_tar(archive: Path) -> IO[bytes]:
    """The tar without its compression, which its first bytes tell: some servers and browsers take it off."""
    with archive.open("rb") as file:
        start = file.read(6)
    return next((opener for magic, opener in MAGIC.items() if start.startswith(magic)), open)(archive, "rb")


def _list_tar(archive: Path, most: int) -> Iterator[_Member]:
    with _open_tar(archive) as stream:
        headers = _Headers(stream)
        with tarfile.TarFile(fileobj=headers) as tar:
            for member in tar:
                kind = ("file" if member.isreg() else "folder" if member.isdir() else
                        "a link" if member.issym() or member.islnk() else "a device, a pipe or the like")
                yield _Member(member.name, member.size, kind)
        if len(headers.last) != tarfile.BLOCKSIZE or any(headers.last):  # tarfile takes any nonsense for the end
            raise tarfile.ReadError("it has no end")


def _unpack_tar(archive: Path, wanted: set[PurePosixPath], folder: Path) -> None:
    with _open_tar(archive) as stream, tarfile.TarFile(fileobj=stream) as tar:
        for member in tar:
            if PurePosixPath(member.name) in wanted and member.isreg():
                tar.extract(member, folder, set_attrs=False, **FILTER)  # neither owners nor permissions of strangers


def _list_zip(archive: Path, most: int) -> Iterator[_Member]:
    with zipfile.ZipFile(archive) as opened:
        for member in opened.infolist():
            kind = stat.S_IFMT(member.external_attr >> 16)
            kind = ("an encrypted file" if member.flag_bits & 1 else "folder" if member.is_dir() else
                    "file" if kind in (0, stat.S_IFREG) else "a link" if kind == stat.S_IFLNK else "neither")
            yield _Member(member.orig_filename, member.file_size, kind)


def _unpack_zip(archive: Path, wanted: set[PurePosixPath], folder: Path) -> None:
    with zipfile.ZipFile(archive) as opened:
        opened.extractall(folder, [name for name in opened.namelist() if PurePosixPath(name) in wanted])


def _list_gzip(archive: Path, most: int) -> Iterator[_Member]:
    """Its size is known once it has been read: not further than to ``most``."""
    size = 0
    with gzip.open(archive) as stream:
        while size <= most and (chunk := stream.read(CHUNK)):
            size += len(chunk)
    yield _Member(archive.name[:-len(".gz")], size, "file")


def _unpack_gzip(archive: Path, wanted: set[PurePosixPath], folder: Path) -> None:
    for path in wanted:
        with gzip.open(archive) as stream, (folder / path).open("wb") as file:
            shutil.copyfileobj(stream, file, CHUNK)
