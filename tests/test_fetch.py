"""Downloads from a real server on this machine, with every way in which one breaks: the error, and what is on disk."""

import errno
import hashlib
import io
import json
import multiprocessing
import os
import random
import shutil
import socket
import tarfile
import threading
from collections import namedtuple
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import unquote

import huggingface_hub
import pytest

from zsar.datasets import fetch as module
from zsar.datasets.fetch import check_files, fetch
from zsar.datasets.manifest import Source
from zsar.errors import DatasetError, OutputError

DATA = random.Random(0).randbytes(200_000)
CHUNK = 10_000


class Handler(BaseHTTPRequestHandler):
    """Files of ``server.files``, as the server's attributes say."""

    def do_HEAD(self):
        self.do_GET()

    def do_GET(self):
        server, start = self.server, 0
        server.requests.append((self.command, self.path, dict(self.headers)))
        if server.statuses:
            return self.refuse(server.statuses.pop(0))
        if self.path not in server.files:
            return self.refuse(404)
        content, wanted = server.files[self.path], self.headers["Range"]
        if wanted and server.ranges and (server.careless or self.headers["If-Range"] in (server.etag, server.date)):
            start = int(wanted.removeprefix("bytes=").rstrip("-"))
            if start >= len(content):
                return self.refuse(416)
            self.send_response(206)
            self.send_header("Content-Range", f"bytes {start}-{len(content) - 1}/{len(content)}")
        else:
            self.send_response(200)
        for name, value in (("ETag", server.etag), ("Last-Modified", server.date)):
            if value:
                self.send_header(name, value)
        if server.tells_size:
            self.send_header("Content-Length", str(len(content) - start))
        self.end_headers()
        if self.command == "GET":
            self.send(content[start:])

    def send(self, content):
        if self.server.drops:
            content = content[:self.server.drops.pop(0)]
        for at in range(0, len(content), CHUNK):
            self.wfile.write(content[at:at + CHUNK])
        if self.server.afterwards:
            self.server.afterwards.pop(0)()

    def refuse(self, status):
        self.send_response(status)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, *arguments):
        pass


def running(server):
    """A server in a thread of its own, until the test is over."""
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    yield server
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.fixture
def server(monkeypatch):
    """drops: after how many bytes the connections break, in turn; statuses: what is answered instead, in turn."""
    monkeypatch.setattr(module, "PAUSE", 0)
    monkeypatch.setattr(module, "CHUNK", CHUNK)
    monkeypatch.setenv("no_proxy", "*")
    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.files, server.requests = {"/data.bin": DATA}, []
    server.drops, server.statuses, server.afterwards = [], [], []
    server.ranges, server.careless, server.tells_size, server.etag, server.date = True, False, True, '"first"', None
    yield from running(server)


def source_of(server, *names, kind="archive", **known):
    """A source whose files are those of the server; known: for all of them."""
    base = f"http://127.0.0.1:{server.server_port}"
    files = {name: {"address": f"{base}/{name}", **known} for name in names or ("data.bin",)}
    return Source(kind, base, None, files, ("Ask for it.", "Put it there."), verified=True)


def get(source, root, **options):
    return fetch(source, root, name="Made up", **{"agreed": lambda size: pytest.fail("asked"), **options})


def contents(folder):
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*")
            if path.is_file() and not path.name.endswith(".lock")}


def fails(source, root, kind=DatasetError, **options):
    """The one line of the error."""
    with pytest.raises(kind) as error:
        get(source, root, **options)
    assert "\n" not in str(error.value)
    return str(error.value)


def asked_for(server):
    """The Range of every request for a file."""
    return [headers.get("Range") for command, _, headers in server.requests if command == "GET"]


MD5, SHA256 = hashlib.md5(DATA).hexdigest(), hashlib.sha256(DATA).hexdigest()


@pytest.mark.parametrize("known", [{}, {"size": len(DATA)}, {"md5": MD5}, {"md5": MD5.upper()}, {"sha256": SHA256},
                                   {"md5": MD5, "sha256": None, "size": None}])
def test_a_file_is_downloaded(server, tmp_path, known):
    received = []
    assert get(source_of(server, **known), tmp_path / "new" / "root", progress=received.append) == ""
    assert contents(tmp_path / "new" / "root") == {"data.bin": DATA}
    assert sum(received) == len(DATA)
    assert len(received) > 5


def test_what_is_complete_is_neither_touched_nor_asked_for(server, tmp_path):
    (tmp_path / "data.bin").write_bytes(DATA)
    before = (tmp_path / "data.bin").stat()
    get(source_of(server, md5=MD5, size=len(DATA)), tmp_path)
    after = (tmp_path / "data.bin").stat()
    assert server.requests == []
    assert (before.st_ino, before.st_mtime_ns) == (after.st_ino, after.st_mtime_ns)


@pytest.mark.parametrize("there", [DATA[:50], DATA[:-1] + b"?"])
def test_what_lies_there_and_is_not_the_file_is_kept_aside(server, tmp_path, there):
    (tmp_path / "data.bin").write_bytes(there)
    get(source_of(server, md5=MD5, size=len(DATA)), tmp_path)
    assert contents(tmp_path) == {"data.bin": DATA, "data.bin.mismatch": there}


@pytest.mark.parametrize(("there", "why"), [
    (DATA[:50], "found 50 bytes, expected 200,000"),
    (DATA[:-1] + b"?", f"found the md5 {hashlib.md5(DATA[:-1] + b'?').hexdigest()}, expected {MD5}")])
def test_what_was_put_there_by_hand_and_is_not_the_file_is_said(server, tmp_path, there, why):
    server.statuses = [404]
    (tmp_path / "data.bin").write_bytes(there)
    message = fails(source_of(server, md5=MD5, size=len(DATA)), tmp_path)
    assert f"put it at {tmp_path / 'data.bin'}" in message
    assert message.endswith(f"; what was at {tmp_path / 'data.bin'} is not it ({why}) and is kept as "
                            f"{tmp_path / 'data.bin.mismatch'}")


def test_a_broken_connection_goes_on_where_it_broke(server, tmp_path):
    server.drops = [70_000, 50_000]
    received = []
    get(source_of(server, md5=MD5), tmp_path, progress=received.append)
    assert contents(tmp_path) == {"data.bin": DATA}
    assert asked_for(server) == [None, "bytes=70000-", "bytes=120000-"]
    assert sum(received) == len(DATA)


def test_a_date_serves_where_there_is_no_strong_etag(server, tmp_path):
    server.etag, server.date, server.drops = 'W/"weak"', "Mon, 01 Jan 2024 00:00:00 GMT", [70_000]
    get(source_of(server, md5=MD5), tmp_path)
    assert contents(tmp_path) == {"data.bin": DATA}
    assert asked_for(server) == [None, "bytes=70000-"]
    assert server.requests[-1][2]["If-Range"] == server.date


@pytest.mark.parametrize("etag", [None, 'W/"weak"'])
def test_a_server_that_does_not_name_the_version_is_begun_anew(server, tmp_path, etag):
    server.etag, server.careless, server.drops = etag, True, [70_000]
    get(source_of(server), tmp_path)
    assert contents(tmp_path) == {"data.bin": DATA}
    assert asked_for(server) == [None, None]


def test_a_server_without_ranges_is_begun_anew(server, tmp_path):
    server.ranges, server.drops = False, [70_000]
    get(source_of(server, md5=MD5), tmp_path)
    assert contents(tmp_path) == {"data.bin": DATA}
    assert asked_for(server) == [None, "bytes=70000-"]


@pytest.mark.parametrize("careless", [False, True])
def test_a_file_that_changes_in_between_is_not_glued(server, tmp_path, careless):
    new = DATA[::-1]

    def change():
        server.files["/data.bin"], server.etag, server.careless = new, '"second"', careless

    server.drops, server.afterwards = [70_000], [change]
    get(source_of(server), tmp_path)
    assert contents(tmp_path) == {"data.bin": new}


@pytest.mark.parametrize("new", [DATA[:100_000], DATA[:50_000]])
def test_a_file_that_shrinks_in_between_is_not_glued(server, tmp_path, new):
    """The second is shorter than what is there, so that the server has nothing to send."""
    def change():
        server.files["/data.bin"], server.careless = new, True

    server.drops, server.afterwards = [70_000], [change]
    get(source_of(server), tmp_path)
    assert contents(tmp_path) == {"data.bin": new}


def test_interrupted_by_ctrl_c_it_goes_on_in_the_next_process(server, tmp_path):
    def interrupt(received):
        if (tmp_path / "data.bin.part").stat().st_size >= 90_000:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        get(source_of(server, md5=MD5), tmp_path, progress=interrupt)
    assert contents(tmp_path)["data.bin.part"] == DATA[:90_000]
    assert set(contents(tmp_path)) == {"data.bin.part", "data.bin.part.json"}
    get(source_of(server, md5=MD5), tmp_path)
    assert contents(tmp_path) == {"data.bin": DATA}
    assert asked_for(server) == [None, "bytes=90000-"]


def test_a_part_that_was_whole_is_only_put_in_place(server, tmp_path):
    (tmp_path / "data.bin.part").write_bytes(DATA)
    (tmp_path / "data.bin.part.json").write_text(json.dumps({"called": '"first"', "size": len(DATA)}))
    get(source_of(server, md5=MD5, size=len(DATA)), tmp_path)
    assert contents(tmp_path) == {"data.bin": DATA}
    assert server.requests == []


@pytest.mark.parametrize("note", [None, "", "[1]", "{}", '{"called": null, "size": 9}'])
def test_a_part_of_which_nothing_is_known_is_begun_anew(server, tmp_path, note):
    (tmp_path / "data.bin.part").write_bytes(b"something else")
    if note is not None:
        (tmp_path / "data.bin.part.json").write_text(note)
    get(source_of(server), tmp_path)
    assert contents(tmp_path) == {"data.bin": DATA}
    assert asked_for(server) == [None]


@pytest.mark.parametrize("known", [{"md5": MD5[::-1]}, {"sha256": SHA256[::-1]}, {"size": 200_001}])
def test_a_mismatch_is_kept_aside_and_not_used(server, tmp_path, known):
    message = fails(source_of(server, **known), tmp_path)
    assert contents(tmp_path) == {"data.bin.mismatch": DATA}
    for expected in ("data.bin.mismatch", "expected", f"put it at {tmp_path / 'data.bin'}"):
        assert expected in message
    fails(source_of(server, **known), tmp_path)
    assert asked_for(server) == [None, None]
    assert contents(tmp_path) == {"data.bin.mismatch": DATA}


def test_a_second_mismatch_leaves_the_first(server, tmp_path):
    for there in (b"one", b"two", b"two", b"three"):
        (tmp_path / "data.bin").write_bytes(there)
        get(source_of(server, md5=MD5, size=len(DATA)), tmp_path)
    assert contents(tmp_path) == {"data.bin": DATA, "data.bin.mismatch": b"one", "data.bin.2.mismatch": b"two",
                                  "data.bin.3.mismatch": b"three"}


def test_a_mismatch_with_a_figure_that_nobody_checked_says_so(server, tmp_path):
    source = source_of(server, size=3)
    unverified = Source(source.kind, source.address, source.size, source.files, source.steps, verified=False)
    assert "never compared with the genuine file" in fails(unverified, tmp_path)
    assert "never compared" not in fails(source, tmp_path)


@pytest.mark.parametrize(("known", "said"), [
    ({"size": len(DATA), "md5": MD5}, []), ({}, []), ({"size": 3}, ["found 200,000 bytes, expected 3"]),
    ({"sha256": MD5 * 2}, [f"found the sha256 {SHA256}, expected {MD5 * 2}"])])
@pytest.mark.parametrize("verified", [True, False])
def test_files_are_compared_with_what_is_known(tmp_path, known, said, verified):
    (tmp_path / "data.bin").write_bytes(DATA)
    files = {name: {"address": "", **known} for name in ("data.bin", "absent.bin")}
    for kind in ("archive", "manual"):
        found = check_files(Source(kind, "", None, files, (), verified), tmp_path)
        doubt = "" if verified else " (which was never compared with the genuine file)"
        assert found == [f"{tmp_path / 'data.bin'}: {line}{doubt}" for line in said]
    assert check_files(Source("parquet", "", None, {}, (), verified), tmp_path) == []


@pytest.mark.parametrize("status", [401, 403, 404, 410])
def test_a_refusal_is_final_and_says_what_to_put_where(server, tmp_path, status):
    server.statuses = [status]
    message = fails(source_of(server, "sub/data.bin", md5=MD5, size=len(DATA)), tmp_path)
    assert f"HTTP {status}" in message
    assert f"put it at {tmp_path / 'sub' / 'data.bin'} (200,000 bytes, md5 {MD5})" in message
    assert contents(tmp_path) == {}
    assert len(server.requests) == 1


@pytest.mark.parametrize("status", [429, 500, 503])
def test_a_server_in_trouble_is_tried_again(server, tmp_path, status):
    server.statuses = [status] * (module.ATTEMPTS - 1)
    get(source_of(server, md5=MD5, size=len(DATA)), tmp_path)
    assert contents(tmp_path) == {"data.bin": DATA}
    server.statuses = [status] * module.ATTEMPTS
    assert f"HTTP {status}" in fails(source_of(server, size=len(DATA)), tmp_path / "other")


def test_a_connection_that_brings_nothing_new_is_given_up(server, tmp_path):
    server.drops = [70_000] + [0] * 50
    message = fails(source_of(server, size=len(DATA)), tmp_path)
    assert "it broke off after 70,000 of 200,000 bytes" in message
    assert contents(tmp_path)["data.bin.part"] == DATA[:70_000]
    assert len(server.requests) == module.ATTEMPTS


def test_a_slow_but_sure_connection_is_not_given_up(server, tmp_path):
    server.drops = [15_000] * 13
    get(source_of(server, md5=MD5, size=len(DATA)), tmp_path)
    assert contents(tmp_path) == {"data.bin": DATA}
    assert len(server.requests) == 14 > module.ATTEMPTS


def test_waits_grow(server, tmp_path, monkeypatch):
    waits = []
    monkeypatch.setattr(module, "PAUSE", 1.0)
    monkeypatch.setattr(module.time, "sleep", waits.append)
    server.statuses = [503] * module.ATTEMPTS
    fails(source_of(server, size=len(DATA)), tmp_path)
    assert waits == [1, 2, 4, 8]


@pytest.mark.parametrize("host", ["127.0.0.1", "no-such-host.invalid"])
def test_no_server_is_said_in_one_line(tmp_path, monkeypatch, host):
    monkeypatch.setattr(module, "PAUSE", 0)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    files = {"data.bin": {"address": f"http://{host}:{port}/data.bin"}}
    message = fails(Source("archive", "", None, files, (), verified=False), tmp_path)
    assert f"put it at {tmp_path / 'data.bin'}" in message
    assert contents(tmp_path) == {}


def test_a_server_that_falls_silent_is_given_up(server, tmp_path, monkeypatch):
    monkeypatch.setattr(module, "TIMEOUT", 0.2)
    monkeypatch.setattr(module, "ATTEMPTS", 1)
    done = threading.Event()
    server.drops, server.afterwards = [70_000], [lambda: done.wait(5)]
    assert "timed out" in fails(source_of(server, size=len(DATA)), tmp_path)
    done.set()
    assert contents(tmp_path)["data.bin.part"] == DATA[:70_000]


def tar_gz(**files):
    raw = io.BytesIO()
    with tarfile.open(fileobj=raw, mode="w:gz") as tar:
        for name, content in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
    return raw.getvalue()


def test_archives_are_unpacked_in_their_folders(server, tmp_path):
    server.files = {"/flowers/jpg.tgz": tar_gz(**{"jpg/1.jpg": b"1"}), "/flowers/labels.mat": b"labels"}
    source = source_of(server, "flowers/jpg.tgz", "flowers/labels.mat")
    for _ in range(2):
        get(source, tmp_path)
        assert contents(tmp_path) == {"flowers/jpg.tgz": server.files["/flowers/jpg.tgz"],
                                      "flowers/jpg/1.jpg": b"1", "flowers/labels.mat": b"labels"}
    assert len(asked_for(server)) == 2


def test_an_archive_in_an_archive_is_unpacked_where_the_manifest_says_so(server, tmp_path):
    inner = tar_gz(**{"images/1.jpg": b"1"})
    server.files = {"/birds/outer.tgz": tar_gz(**{"outer/inner.tar.gz": inner})}
    get(source_of(server, "birds/outer.tgz", inner=["outer/inner.tar.gz"]), tmp_path)
    assert contents(tmp_path)["birds/images/1.jpg"] == b"1"


def test_a_hostile_archive_is_refused(server, tmp_path):
    server.files = {"/birds/bad.tgz": tar_gz(**{"../../evil": b"evil"})}
    assert "'../../evil'" in fails(source_of(server, "birds/bad.tgz"), tmp_path / "root")
    assert set(contents(tmp_path)) == {"root/birds/bad.tgz"}


def test_more_than_five_gigabytes_are_asked_for(server, tmp_path, monkeypatch):
    monkeypatch.setattr(module, "ASK_ABOVE", 250_000)
    server.files["/more.bin"] = DATA
    source, asked = source_of(server, "data.bin", "more.bin"), []
    message = fails(source, tmp_path, agreed=asked.append)
    assert asked == [400_000]
    assert "400,000 bytes were not agreed to" in message
    assert contents(tmp_path) == {}
    assert asked_for(server) == []
    get(source, tmp_path, agreed=lambda size: True)
    assert contents(tmp_path) == {"data.bin": DATA, "more.bin": DATA}


@pytest.mark.parametrize("there", [
    {"data.bin": DATA},
    {"data.bin.part": DATA[:160_000], "data.bin.part.json": b'{"called": "\\"first\\"", "size": 200000}'},
])
def test_what_is_there_already_does_not_count(server, tmp_path, monkeypatch, there):
    monkeypatch.setattr(module, "ASK_ABOVE", 250_000)
    server.files["/more.bin"] = DATA
    for name, content in there.items():
        (tmp_path / name).write_bytes(content)
    get(source_of(server, "data.bin", "more.bin"), tmp_path)
    assert contents(tmp_path) == {"data.bin": DATA, "more.bin": DATA}


@pytest.mark.parametrize(("name", "needed"), [("data.bin", "200,000"), ("data.zip", "450,000")])
def test_no_space_is_known_before_anything_is_downloaded(server, tmp_path, monkeypatch, name, needed):
    server.files[f"/{name}"] = DATA
    monkeypatch.setattr(shutil, "disk_usage", lambda folder: namedtuple("usage", "total used free")(0, 0, 199_999))
    message = fails(source_of(server, name), tmp_path, OutputError)
    assert f"{needed} bytes are needed, 199,999 are free" in message
    assert contents(tmp_path) == {}
    assert asked_for(server) == []


def test_a_disk_that_fills_up_leaves_a_part_to_go_on_with(server, tmp_path, monkeypatch):
    real = Path.open

    def full(self, mode="r", *rest, **options):
        if "a" in mode and self.stat().st_size >= 60_000:
            raise OSError(errno.ENOSPC, "No space left on device", str(self))
        return real(self, mode, *rest, **options)

    monkeypatch.setattr(Path, "open", full)
    message = fails(source_of(server, md5=MD5), tmp_path, OutputError)
    assert "No space left on device" in message
    assert contents(tmp_path)["data.bin.part"] == DATA[:60_000]
    assert len(asked_for(server)) == 1
    monkeypatch.setattr(Path, "open", real)
    get(source_of(server, md5=MD5), tmp_path)
    assert contents(tmp_path) == {"data.bin": DATA}


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="no /dev/full here")
def test_a_device_that_is_full_is_said(tmp_path):
    part = module._Part(tmp_path / "data.bin.part", "md5")
    part.path.symlink_to("/dev/full")
    with pytest.raises(OutputError, match="No space left on device"):
        part.append(DATA)


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="root may write everywhere")
def test_no_permission_is_said(server, tmp_path):
    folder = tmp_path / "root"
    folder.mkdir(mode=0o500)
    assert "change its permissions" in fails(source_of(server), folder, OutputError)
    assert asked_for(server) == []


def test_a_root_that_is_a_file_is_said(server, tmp_path):
    (tmp_path / "root").write_text("mine")
    assert "cannot write into the folder" in fails(source_of(server), tmp_path / "root", OutputError)
    assert contents(tmp_path) == {"root": b"mine"}


def in_a_process(source, root, barrier, said):
    barrier.wait()
    received = []
    fetch(source, root, name="Made up", agreed=lambda size: True, progress=received.append)
    said.put(sum(received))


def test_two_processes_share_one_download(server, tmp_path):
    context = multiprocessing.get_context("fork")  # spawned ones would import torch first
    server.files = {"/data.tar.gz": tar_gz(**{"data.bin": DATA})}
    size = len(server.files["/data.tar.gz"])
    source, barrier, said = source_of(server, "data.tar.gz", size=size), context.Barrier(2), context.Queue()
    processes = [context.Process(target=in_a_process, args=(source, tmp_path, barrier, said)) for _ in range(2)]
    for process in processes:
        process.start()
    received = sorted(said.get(timeout=30) for _ in processes)
    for process in processes:
        process.join()
    assert received == [0, size]
    assert asked_for(server) == [None]
    assert contents(tmp_path) == {"data.tar.gz": server.files["/data.tar.gz"], "data.bin": DATA}


def test_steps_of_one_to_be_had_by_hand_are_returned(server, tmp_path):
    assert get(source_of(server, kind="manual"), tmp_path / "root") == "Ask for it.\nPut it there."
    assert not (tmp_path / "root").exists()


class Hub(BaseHTTPRequestHandler):
    """As much of the Hugging Face hub as its client needs to download a dataset."""

    def do_HEAD(self):
        self.do_GET()

    def do_GET(self):
        server, path = self.server, unquote(self.path).partition("?")[0]
        head = f"/datasets/made/up/resolve/{'a' * 40}/"
        if error := server.errors.get("api" if path.startswith("/api/") else "file"):
            return self.answer(b"", status=403 if error == "GatedRepo" else 404, **{"X-Error-Code": error})
        if path.startswith("/api/datasets/made/up/tree/"):
            return self.answer(json.dumps([{"type": "file", "path": name, "size": len(content), "oid": "b" * 40}
                                           for name, content in server.files.items()]).encode())
        if path.startswith("/api/datasets/made/up"):
            siblings = [{"rfilename": name, "size": len(content)} for name, content in server.files.items()]
            return self.answer(json.dumps({"id": "made/up", "sha": "a" * 40, "siblings": siblings, "private": False,
                                           "disabled": False, "downloads": 0, "likes": 0, "tags": []}).encode())
        content = server.files[path.removeprefix(head)]
        server.sent.append(f"{self.command} {path.removeprefix(head)}")
        self.answer(content, ETag=f'"{hashlib.md5(content).hexdigest()}"', **{"X-Repo-Commit": "a" * 40})

    def answer(self, content, status=200, **headers):
        self.send_response(status)
        for name, value in {"Content-Length": str(len(content)), **headers}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(content)

    def log_message(self, *arguments):
        pass


def point_client_at(port, monkeypatch):
    """As HF_ENDPOINT does where it is set before the client is imported."""
    endpoint, constants = f"http://127.0.0.1:{port}", huggingface_hub.constants
    template = constants.HUGGINGFACE_CO_URL_TEMPLATE.replace(constants.ENDPOINT, endpoint)
    monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)
    monkeypatch.setattr(constants, "ENDPOINT", endpoint)


@pytest.fixture
def hub(monkeypatch):
    server = ThreadingHTTPServer(("127.0.0.1", 0), Hub)
    server.files = {"data/train-00000-of-00001.parquet": b"train" * 100, "data/test-00000-of-00001.parquet": b"test",
                    "test/0.tar": b"tar", "test/nshards.txt": b"1", "train/0.tar": b"train", "train/nshards.txt": b"1",
                    "classnames.txt": b"a\nb\n", "README.md": b"read"}
    server.errors, server.sent = {}, []
    point_client_at(server.server_port, monkeypatch)
    monkeypatch.setenv("no_proxy", "*")
    yield from running(server)


def shards(kind):
    return Source(kind, "made/up", None, {}, (), verified=False)


def downloaded(folder):
    return {name for name in contents(folder) if ".cache" not in name}


TEST, TRAIN = "data/test-00000-of-00001.parquet", "data/train-00000-of-00001.parquet"
TEST_TARS, TRAIN_TARS = {"test/0.tar", "test/nshards.txt"}, {"train/0.tar", "train/nshards.txt"}


@pytest.mark.parametrize(("kind", "split", "expected"), [
    ("parquet", "test", {TEST}), ("parquet", "train", {TRAIN}), ("parquet", "all", {TEST, TRAIN}),
    ("wds", "test", {"classnames.txt", *TEST_TARS}), ("wds", "train", {"classnames.txt", *TRAIN_TARS}),
    ("wds", "all", {"classnames.txt", *TEST_TARS, *TRAIN_TARS}),
])
def test_shards_of_a_split_come_from_the_hub_once(hub, tmp_path, kind, split, expected):
    assert get(shards(kind), tmp_path, split=split) == ""
    assert downloaded(tmp_path) == {f"{kind}/Made up/{name}" for name in expected}
    assert all((tmp_path / kind / "Made up" / name).read_bytes() == hub.files[name] for name in expected)
    hub.sent.clear()
    get(shards(kind), tmp_path, split=split)
    assert [line for line in hub.sent if line.startswith("GET")] == []


def test_a_split_that_no_shard_is_named_after_brings_all_of_them(hub, tmp_path):
    hub.files = {"[a] data/part-0.parquet": b"0", "[a] data/part-1.parquet": b"1", "README.md": b"read"}
    get(shards("parquet"), tmp_path)
    assert downloaded(tmp_path) == {f"parquet/Made up/[a] data/part-{number}.parquet" for number in (0, 1)}


def test_shards_are_asked_for_and_need_space(hub, tmp_path, monkeypatch):
    monkeypatch.setattr(module, "ASK_ABOVE", 500)
    asked = []
    fails(shards("parquet"), tmp_path, agreed=asked.append, split="all")
    assert asked == [504]
    get(shards("parquet"), tmp_path / "test alone is less")
    monkeypatch.setattr(shutil, "disk_usage", lambda folder: namedtuple("usage", "total used free")(0, 0, 503))
    assert "504 bytes are needed, 503 are free" in fails(shards("parquet"), tmp_path, OutputError, split="all")
    assert downloaded(tmp_path) == {f"test alone is less/parquet/Made up/{TEST}"}


@pytest.mark.parametrize("where", ["api", "file"])
def test_a_gated_dataset_names_the_page_and_the_command(hub, tmp_path, where):
    hub.errors[where] = "GatedRepo"
    message = fails(shards("parquet"), tmp_path)
    assert "https://huggingface.co/datasets/made/up" in message
    assert "hf auth login" in message
    assert "terms" in message
    assert downloaded(tmp_path) == set()


def test_a_dataset_that_the_hub_does_not_have_is_said(hub, tmp_path):
    hub.errors["api"] = "RepoNotFound"
    assert "the hub has no https://huggingface.co/datasets/made/up" in fails(shards("parquet"), tmp_path)


def test_a_hub_without_such_files_is_said(hub, tmp_path):
    hub.files = {"README.md": b"read"}
    assert "has no files *.parquet: expected some" in fails(shards("parquet"), tmp_path)
    assert "has no files *.tar, *.txt: expected some" in fails(shards("wds"), tmp_path)


def test_a_hub_out_of_reach_is_said(tmp_path, monkeypatch, hub):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    point_client_at(port, monkeypatch)
    message = fails(shards("wds"), tmp_path)
    assert f"put its files into {tmp_path / 'wds' / 'Made up'}" in message


def test_offline_mode_is_said(hub, tmp_path, monkeypatch):
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    assert "offline" in fails(shards("wds"), tmp_path).lower()
