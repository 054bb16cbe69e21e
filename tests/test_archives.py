"""Archives, hostile ones among them, as they are on disk: what is refused, and what is in the folder afterwards."""

import errno
import gzip
import io
import os
import shutil
import stat
import tarfile
import threading
import zipfile
from collections import namedtuple
from pathlib import Path

import pytest

from zsar.datasets import archives
from zsar.datasets.archives import extract, is_archive
from zsar.errors import DatasetError, OutputError

FILES = {"birds/one.jpg": b"one", "birds/small/two.jpg": b"second", "readme.txt": b"words " * 100}
LOCK = {f".pictures{suffix}.lock" for suffix in archives.TAR_SUFFIXES} | {".pictures.zip.lock", ".labels.mat.gz.lock"}


def member(name, content=b"", **fields):
    info = tarfile.TarInfo(name)
    info.size = len(content)
    for key, value in fields.items():
        setattr(info, key, value)
    return info, io.BytesIO(content)


def write_tar(path, members):
    mode = {".gz": "w:gz", ".tgz": "w:gz", ".bz2": "w:bz2", ".xz": "w:xz"}.get(path.suffix, "w")
    with tarfile.open(path, mode) as tar:
        for info, content in members:
            tar.addfile(info, content)
    return path


def write_zip(path, members, compression=zipfile.ZIP_DEFLATED):
    with zipfile.ZipFile(path, "w", compression) as opened:
        for name, content in members:
            opened.writestr(name, content)
    return path


def write(folder, suffix, files=FILES):
    path = folder / f"pictures{suffix}"
    if suffix == ".zip":
        return write_zip(path, files.items())
    return write_tar(path, [member(name, content) for name, content in files.items()])


def contents(folder):
    """Every file below a folder but the empty lock, with its bytes."""
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*")
            if path.is_file() and not (path.name in LOCK and not path.stat().st_size)}


def refused(archive, into, **limits):
    """The message of the one line that refuses the archive, which has left no trace."""
    before = sorted(into.parent.rglob("*"))
    with pytest.raises(DatasetError) as error:
        extract(archive, into, **limits)
    assert sorted(into.parent.rglob("*")) == before
    assert "\n" not in str(error.value)
    assert str(archive) in str(error.value)
    return str(error.value)


@pytest.mark.parametrize("suffix", [*archives.TAR_SUFFIXES, ".zip"])
def test_every_format_gives_the_files(tmp_path, suffix):
    archive = write(tmp_path, suffix)
    assert is_archive(archive.name)
    paths = extract(archive, tmp_path / "into")
    assert set(paths) == {tmp_path / "into" / name for name in FILES}
    assert contents(tmp_path / "into") == FILES


def test_a_single_gz_becomes_the_file_without_its_ending(tmp_path):
    archive = tmp_path / "labels.mat.gz"
    archive.write_bytes(gzip.compress(b"labels"))
    assert extract(archive, tmp_path / "into") == [tmp_path / "into" / "labels.mat"]
    assert contents(tmp_path / "into") == {"labels.mat": b"labels"}


def test_a_tar_whose_compression_was_taken_off_on_the_way_is_read(tmp_path):
    archive = write(tmp_path, ".tar").rename(tmp_path / "pictures.tar.gz")
    extract(archive, tmp_path / "into")
    assert contents(tmp_path / "into") == FILES


def test_folders_and_dots_in_names_are_no_matter(tmp_path):
    folder = member("./birds", type=tarfile.DIRTYPE, mode=0o000)
    archive = write_tar(tmp_path / "pictures.tar", [member("./", type=tarfile.DIRTYPE), folder,
                                                   member("./birds/one.jpg", b"one")])
    assert extract(archive, tmp_path / "into") == [tmp_path / "into" / "birds" / "one.jpg"]
    assert contents(tmp_path / "into") == {"birds/one.jpg": b"one"}


@pytest.mark.parametrize("protection", [archives.FILTER, {}])
def test_permissions_and_owners_of_strangers_are_not_taken(tmp_path, protection, monkeypatch):
    """Nor does it need the protection that Python before 3.11.4 lacks."""
    monkeypatch.setattr(archives, "FILTER", protection)
    archive = write_tar(tmp_path / "pictures.tar", [member("run.sh", b"run", mode=0o6777, uid=12345, gid=12345)])
    found = extract(archive, tmp_path / "into")[0].stat()
    assert found.st_mode & 0o7111 == 0
    assert found.st_uid != 12345


@pytest.mark.parametrize(("name", "why"), [
    ("/etc/cron.d/evil", "absolute path"),
    ("//host/share/evil", "absolute path"),
    ("../evil", "'..'"),
    ("birds/../../evil", "'..'"),
    ("C:/evil", "absolute path"),
    ("C:evil", "absolute path"),
    ("\\evil", "absolute path"),
    ("..\\evil", "'..'"),
    ("birds\\evil", "backslash"),
])
@pytest.mark.parametrize("suffix", [".tar", ".tar.gz", ".zip"])
def test_paths_that_lead_out_are_refused(tmp_path, suffix, name, why):
    archive = write(tmp_path, suffix, {"good.jpg": b"good", name: b"evil"})
    message = refused(archive, tmp_path / "inside" / "into")
    assert why in message
    assert repr(name) in message


@pytest.mark.parametrize("fields", [
    {"type": tarfile.SYMTYPE, "linkname": "../../outside"},
    {"type": tarfile.SYMTYPE, "linkname": "/etc/passwd"},
    {"type": tarfile.LNKTYPE, "linkname": "/etc/passwd"},
    {"type": tarfile.SYMTYPE, "linkname": "good.jpg"},
    {"type": tarfile.LNKTYPE, "linkname": "good.jpg"},
    {"type": tarfile.FIFOTYPE},
    {"type": tarfile.CHRTYPE, "devmajor": 1, "devminor": 3},
    {"type": tarfile.BLKTYPE, "devmajor": 8, "devminor": 0},
    {"type": b"Z"},
])
def test_a_tar_with_links_or_devices_is_refused(tmp_path, fields):
    archive = write_tar(tmp_path / "pictures.tar", [member("good.jpg", b"good"), member("bad", **fields)])
    message = refused(archive, tmp_path / "into")
    assert "'bad'" in message
    assert ("a link" if fields["type"] in (tarfile.SYMTYPE, tarfile.LNKTYPE) else "a device") in message


def test_a_file_through_a_link_is_refused(tmp_path):
    (tmp_path / "outside").mkdir()
    archive = write_tar(tmp_path / "pictures.tar", [
        member("door", type=tarfile.SYMTYPE, linkname=str(tmp_path / "outside")), member("door/evil", b"evil")])
    assert "'door'" in refused(archive, tmp_path / "into")


def test_a_zip_with_a_link_is_refused(tmp_path):
    link = zipfile.ZipInfo("bad")
    link.external_attr = (stat.S_IFLNK | 0o777) << 16
    archive = write_zip(tmp_path / "pictures.zip", [("good.jpg", b"good"), (link, b"/etc/passwd")])
    assert "'bad' is a link" in refused(archive, tmp_path / "into")


def test_an_encrypted_zip_is_refused(tmp_path):
    archive = write(tmp_path, ".zip", {"bad": b"secret"})
    content = bytearray(archive.read_bytes())
    content[content.index(b"PK\x01\x02") + 8] |= 1
    archive.write_bytes(content)
    assert "'bad' is an encrypted file" in refused(archive, tmp_path / "into")


@pytest.mark.parametrize("suffix", [".tar", ".zip"])
def test_a_file_that_is_a_folder_too_is_refused(tmp_path, suffix):
    assert "'a' is a file and a folder" in refused(write(tmp_path, suffix, {"a": b"a", "a/b": b"b"}), tmp_path / "into")


@pytest.mark.parametrize("suffix", [".tar", ".tar.gz", ".zip"])
def test_too_many_bytes_are_refused(tmp_path, suffix):
    archive = write(tmp_path, suffix, {"small": b"1", "big": b"x" * 2000})
    message = refused(archive, tmp_path / "into", limit_bytes=2000)
    assert "'big'" in message
    assert "2,001 bytes, expected at most 2,000" in message
    assert len(extract(archive, tmp_path / "into", limit_bytes=2001)) == 2


@pytest.mark.parametrize("suffix", [".tar", ".tar.gz", ".zip"])
def test_too_many_members_are_refused(tmp_path, suffix):
    archive = write(tmp_path, suffix, {f"{n}": b"" for n in range(11)})
    assert "'10' is one of more than 10 members" in refused(archive, tmp_path / "into", limit_files=10)
    assert len(extract(archive, tmp_path / "into", limit_files=11)) == 11


@pytest.mark.parametrize("suffix", [".tar.gz", ".tar.xz", ".zip"])
def test_a_bomb_is_refused_by_its_ratio(tmp_path, suffix, monkeypatch):
    monkeypatch.setattr(archives, "ANY_RATIO", 10**6)
    archive = write(tmp_path, suffix, {"bomb": bytes(4 * 10**6)})
    assert archive.stat().st_size * archives.LIMIT_RATIO < 4 * 10**6
    assert "'bomb' brings it to 4,000,000 bytes" in refused(archive, tmp_path / "into")
    monkeypatch.setattr(archives, "ANY_RATIO", 4 * 10**6)
    assert extract(archive, tmp_path / "into")


def test_a_single_gz_bomb_is_read_no_further_than_to_the_limit(tmp_path):
    archive = tmp_path / "labels.mat.gz"
    archive.write_bytes(gzip.compress(bytes(20 * archives.CHUNK)))
    message = refused(archive, tmp_path / "into", limit_bytes=archives.CHUNK)
    assert f"{2 * archives.CHUNK:,} bytes" in message


def test_a_tar_that_claims_a_petabyte_is_refused_at_once(tmp_path):
    info, _ = member("bomb")
    info.size = 10**15
    archive = tmp_path / "pictures.tar.gz"
    archive.write_bytes(gzip.compress(info.tobuf(tarfile.GNU_FORMAT) + bytes(2**20)))
    assert "'bomb'" in refused(archive, tmp_path / "into")


@pytest.mark.parametrize("kind", [tarfile.GNUTYPE_LONGNAME, tarfile.XHDTYPE])
def test_a_header_that_would_fill_the_memory_is_not_read(tmp_path, kind):
    info, _ = member("bomb", type=kind)
    info.size = 2 * archives.LONGEST_HEADER
    archive = tmp_path / "pictures.tar.gz"
    archive.write_bytes(gzip.compress(info.tobuf(tarfile.GNU_FORMAT) + bytes(info.size + 1024)))
    assert "a header of 2,097,152 bytes" in refused(archive, tmp_path / "into")


def test_a_tar_that_goes_back_in_circles_is_refused(tmp_path):
    info, _ = member("round")
    info.size = -512
    archive = tmp_path / "pictures.tar"
    archive.write_bytes(info.tobuf(tarfile.GNU_FORMAT) + bytes(1024))
    assert refused(archive, tmp_path / "into")


def test_names_that_differ_in_case_are_said(tmp_path):
    archive = write(tmp_path, ".tar", {"Bird.jpg": b"1", "bird.jpg": b"2"})
    with pytest.warns(UserWarning, match="'Bird.jpg' and 'bird.jpg' are one file"):
        extract(archive, tmp_path / "into")


@pytest.mark.parametrize("suffix", [*archives.TAR_SUFFIXES, ".zip"])
@pytest.mark.parametrize("share", [0.0, 0.3, 0.8])
def test_a_truncated_archive_is_refused(tmp_path, suffix, share):
    archive = write(tmp_path, suffix, {f"{n}.jpg": os.urandom(3000) for n in range(5)})
    content = archive.read_bytes()
    end = len(content) if suffix != ".tar" else 5 * (512 + 3072)  # what follows in a tar is empty
    archive.write_bytes(content[:int(share * end)])
    assert "truncated" in refused(archive, tmp_path / "into")


@pytest.mark.parametrize("cut", [0, 100])
def test_a_tar_that_ends_between_two_members_or_in_a_header_is_refused(tmp_path, cut):
    archive = write(tmp_path, ".tar", {"1": b"x" * 512, "2": b"x" * 512})
    archive.write_bytes(archive.read_bytes()[:1024 + cut])
    assert "it has no end" in refused(archive, tmp_path / "into")


@pytest.mark.parametrize("suffix", [*archives.TAR_SUFFIXES, ".zip", ".mat.gz"])
def test_a_page_under_the_name_of_an_archive_is_refused(tmp_path, suffix):
    archive = tmp_path / f"pictures{suffix}"
    archive.write_text("<!doctype html><title>Sign in</title>" * 50)
    assert "something else under its name" in refused(archive, tmp_path / "into")


def test_a_zip_that_points_before_its_beginning_is_refused(tmp_path):
    archive = write(tmp_path, ".zip")
    content = bytearray(archive.read_bytes())
    content[-6:-2] = (2**31).to_bytes(4, "little")
    archive.write_bytes(content)
    with pytest.raises(DatasetError, match="truncated"):
        extract(archive, tmp_path / "into")
    assert contents(tmp_path / "into") == {}


def test_wrong_bytes_in_a_zip_leave_nothing(tmp_path):
    archive = write_zip(tmp_path / "pictures.zip", [("1", b"first"), ("2", b"second")], zipfile.ZIP_STORED)
    archive.write_bytes(archive.read_bytes().replace(b"second", b"sEcond"))
    with pytest.raises(DatasetError, match="CRC"):
        extract(archive, tmp_path / "into")
    assert contents(tmp_path / "into") == {}


def test_missing_and_unknown_archives_are_named(tmp_path):
    assert "missing archive" in refused(tmp_path / "pictures.tar", tmp_path / "into")
    (tmp_path / "pictures.rar").write_bytes(b"Rar!")
    assert not is_archive("pictures.rar")
    assert ".tar.gz" in refused(tmp_path / "pictures.rar", tmp_path / "into")


@pytest.mark.parametrize("suffix", [".tar.gz", ".zip"])
def test_what_is_there_stays_and_what_is_missing_comes(tmp_path, suffix):
    archive, into = write(tmp_path, suffix), tmp_path / "into"
    (into / "birds").mkdir(parents=True)
    (into / "birds" / "one.jpg").write_bytes(b"ONE")  # as long as the one in the archive
    (into / "birds" / "mine.jpg").write_bytes(b"mine")
    assert len(extract(archive, into)) == len(FILES)
    assert contents(into) == {**FILES, "birds/one.jpg": b"ONE", "birds/mine.jpg": b"mine"}


def test_a_complete_extraction_is_not_touched(tmp_path, monkeypatch):
    archive, into = write(tmp_path, ".tar"), tmp_path / "into"
    paths = extract(archive, into)
    times = [path.stat().st_mtime_ns for path in paths]
    monkeypatch.setattr(tarfile.TarFile, "extract", None)
    assert extract(archive, into) == paths
    assert [path.stat().st_mtime_ns for path in paths] == times


def test_a_differing_file_is_not_overwritten(tmp_path):
    archive, into = write(tmp_path, ".tar"), tmp_path / "into"
    into.mkdir()
    (into / "readme.txt").write_bytes(b"my own")
    with pytest.raises(DatasetError, match=r"readme.txt is there with 6 bytes, expected 600 bytes; move it away"):
        extract(archive, into)
    assert contents(into) == {"readme.txt": b"my own"}


def test_a_file_where_a_folder_should_be_stays(tmp_path):
    archive, into = write(tmp_path, ".tar"), tmp_path / "into"
    into.mkdir()
    (into / "birds").write_bytes(b"my own")
    with pytest.raises(DatasetError, match="birds is in the way"):
        extract(archive, into)
    assert contents(into) == {"birds": b"my own"}


class Killed(BaseException):
    """Stands for a signal."""


@pytest.mark.parametrize("kill", [KeyboardInterrupt, Killed])
@pytest.mark.parametrize("suffix", [".tar.gz", ".zip"])
def test_an_interrupted_extraction_leaves_nothing_and_can_be_repeated(tmp_path, suffix, kill, monkeypatch):
    archive, into, written = write(tmp_path, suffix), tmp_path / "into", []

    def copy(source, target, *rest, **options):
        if written:
            raise kill
        written.append(target.write(source.read()))

    for module in (tarfile, shutil):
        monkeypatch.setattr(module, "copyfileobj", copy)
    with pytest.raises(kill):
        extract(archive, into)
    assert written
    assert contents(into) == {}
    monkeypatch.undo()
    extract(archive, into)
    assert contents(into) == FILES


def test_one_interrupted_while_it_is_moved_is_completed(tmp_path, monkeypatch):
    archive, into, rename, moved = write(tmp_path, ".tar"), tmp_path / "into", Path.rename, []

    def once(self, target):
        if moved:
            raise KeyboardInterrupt
        moved.append(target)
        return rename(self, target)

    monkeypatch.setattr(Path, "rename", once)
    with pytest.raises(KeyboardInterrupt):
        extract(archive, into)
    monkeypatch.undo()
    whole = contents(into)
    assert whole.items() < FILES.items()
    assert whole
    extract(archive, into)
    assert contents(into) == FILES


def test_what_a_killed_process_left_is_cleared_away(tmp_path):
    archive, into = write(tmp_path, ".tar"), tmp_path / "into"
    (into / ".pictures.tar.extracting" / "birds").mkdir(parents=True)
    (into / ".pictures.tar.extracting" / "birds" / "one.jpg").write_bytes(b"o")
    extract(archive, into)
    assert contents(into) == FILES


@pytest.mark.parametrize("suffix", [".tar", ".zip", ".mat.gz"])
def test_no_space_is_known_beforehand(tmp_path, suffix, monkeypatch):
    archive = tmp_path / "labels.mat.gz"
    archive.write_bytes(gzip.compress(bytes(609)))
    archive = archive if suffix == ".mat.gz" else write(tmp_path, suffix)
    monkeypatch.setattr(shutil, "disk_usage", lambda folder: namedtuple("usage", "total used free")(1000, 400, 600))
    with pytest.raises(OutputError, match=r"609 bytes are needed, 600 are free; make room"):
        extract(archive, tmp_path / "into")
    assert contents(tmp_path / "into") == {}


@pytest.mark.parametrize("suffix", [".tar.gz", ".zip"])
def test_a_disk_that_is_full_in_the_middle_leaves_nothing(tmp_path, suffix, monkeypatch):
    def full(*arguments, **options):
        raise OSError(errno.ENOSPC, "No space left on device")

    archive = write(tmp_path, suffix)
    for module in (tarfile, shutil):
        monkeypatch.setattr(module, "copyfileobj", full)
    with pytest.raises(OutputError, match="No space left on device"):
        extract(archive, tmp_path / "into")
    assert contents(tmp_path / "into") == {}


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="root may write everywhere")
def test_no_permission_is_said(tmp_path):
    archive, into = write(tmp_path, ".tar"), tmp_path / "into"
    into.mkdir(mode=0o500)
    with pytest.raises(OutputError, match="change its permissions"):
        extract(archive, into)
    assert list(into.iterdir()) == []


def test_two_at_once_give_one_whole(tmp_path):
    archive, into = write(tmp_path, ".tar.gz", {f"{n % 7}/{n}.jpg": os.urandom(200) for n in range(200)}), []

    def work():
        into.append(len(extract(archive, tmp_path / "into")))

    threads = [threading.Thread(target=work) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert into == [200, 200]
    assert len(contents(tmp_path / "into")) == 200
