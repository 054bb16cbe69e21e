"""A packed split is the split itself, only faster, and whatever breaks while it is written leaves none or the old."""

import json
import multiprocessing
import os
import pickle
import shutil
from collections import namedtuple

import numpy as np
import pytest
import torch
from made_up import made_up

from zsar.datasets import packed
from zsar.datasets.base import ImageDataset
from zsar.datasets.packed import pack, read_packed
from zsar.errors import DatasetError, OutputError, UnreadableImageError


def test_a_copy_carries_the_layout_that_it_was_packed_from(tmp_path):
    source = made_up(30)
    source.layout = "wds"
    pack(source, tmp_path / "packed")
    assert read_packed(tmp_path / "packed")[0]["layout"] == "wds"
    about = json.loads((tmp_path / "packed" / "about.json").read_text())
    del about["layout"]  # as older copies are
    (tmp_path / "packed" / "about.json").write_text(json.dumps(about))
    assert read_packed(tmp_path / "packed")[0]["layout"] == "unknown"


def unpack(folder, source):
    about, read = read_packed(folder)
    return ImageDataset(about["name"], about["split"], source.classnames, source.templates,
                        torch.tensor(about["labels"]), about["ids"], read)


def same(a, b):
    return a.ids == b.ids and all(map(torch.equal, a.stack(), b.stack()))


def test_the_packed_split_is_the_split(tmp_path, monkeypatch):
    monkeypatch.setattr(packed, "_CHUNK", 7)
    source, done = made_up(30), []
    pack(source, tmp_path / "new" / "packed", progress=done.append)
    found = unpack(tmp_path / "new" / "packed", source)
    assert same(found, source) and sum(done) == 30
    assert same(found.select(np.array([8, 3, 3])), source.select(np.array([8, 3, 3])))
    again = pickle.loads(pickle.dumps(found._read))  # as a worker process gets it
    assert np.array_equal(again(np.array([4])), source.read(np.array([4])))
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["packed"]


def test_a_copy_says_what_it_is(tmp_path):
    pack(made_up(30), tmp_path / "packed", {"classes": "abc"})
    assert read_packed(tmp_path / "packed", {"name": "made-up", "classes": "abc"})
    with pytest.raises(DatasetError, match="are of something else .classes is 'abc', expected 'xyz'.*pack again"):
        read_packed(tmp_path / "packed", {"classes": "xyz"})


@pytest.mark.skipif(os.name != "posix", reason="modes are those of POSIX")
def test_others_may_read_a_copy(tmp_path):
    before = os.umask(0o022)
    try:
        pack(made_up(4), tmp_path / "packed")
    finally:
        os.umask(before)
    assert (tmp_path / "packed").stat().st_mode & 0o777 == 0o755


def test_packing_again_replaces_it(tmp_path):
    pack(made_up(30), tmp_path / "packed")
    pack(made_up(20), tmp_path / "packed")
    assert same(unpack(tmp_path / "packed", made_up(20)), made_up(20))
    assert [path.name for path in tmp_path.iterdir()] == ["packed"]


def broken_at(n):
    source = made_up(30)

    def read(rows):
        if n in rows:
            raise UnreadableImageError(f"cannot read the image train-{n}: truncated")
        return source._read(rows)

    return ImageDataset("made-up", "train", source.classnames, source.templates, source.labels, source.ids, read)


def test_an_unreadable_image_packs_nothing(tmp_path, monkeypatch):
    monkeypatch.setattr(packed, "_CHUNK", 7)
    with pytest.raises(UnreadableImageError, match="train-20"):
        pack(broken_at(20), tmp_path / "packed")
    assert list(tmp_path.iterdir()) == [] and read_packed(tmp_path / "packed") is None


def test_too_little_room_is_seen_before_anything_is_read(tmp_path, monkeypatch):
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage(10**6, 10**6 - 1000, 1000))
    with pytest.raises(OutputError, match=r"no room to pack made-up into .*: 0.00 GB needed, 0.00 GB free"):
        pack(made_up(30), tmp_path / "packed")
    assert list(tmp_path.iterdir()) == []


def test_a_disk_that_fills_up_leaves_the_old_copy(tmp_path, monkeypatch):
    pack(made_up(20), tmp_path / "packed")
    plain = packed.Path.open

    def full(path, mode="r", **how):
        if path.name != "images.npy":
            return plain(path, mode, **how)
        return open("/dev/full", mode)

    monkeypatch.setattr(packed.Path, "open", full)
    with pytest.raises(OutputError, match="cannot write the packed made-up to .*No space left"):
        pack(made_up(30), tmp_path / "packed")
    monkeypatch.undo()
    assert same(unpack(tmp_path / "packed", made_up(20)), made_up(20))
    assert [path.name for path in tmp_path.iterdir()] == ["packed"]


def pack_often(folder):
    for _ in range(20):
        pack(made_up(30), folder)


def test_two_processes_pack_one_split(tmp_path):
    context = multiprocessing.get_context("fork")
    processes = [context.Process(target=pack_often, args=(tmp_path / "packed",)) for _ in range(2)]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
    assert [process.exitcode for process in processes] == [0, 0]
    assert same(unpack(tmp_path / "packed", made_up(30)), made_up(30))
    assert [path.name for path in tmp_path.iterdir()] == ["packed"]


@pytest.mark.parametrize(("change", "message"), [
    (lambda folder: (folder / "about.json").unlink(), "cannot read the packed images"),
    (lambda folder: (folder / "about.json").write_text("[]"), "cannot read the packed images"),
    (lambda folder: (folder / "images.npy").write_bytes(b"half"), "cannot read the packed images"),
    (lambda folder: (folder / "images.npy").write_bytes((folder / "images.npy").read_bytes()[:5000]), "cannot read"),
    (lambda folder: (folder / "about.json").write_text(json.dumps({"ids": [], "labels": []})), "are incomplete")])
def test_a_broken_copy_is_refused(change, message, tmp_path):
    pack(made_up(30), tmp_path / "packed")
    change(tmp_path / "packed")
    with pytest.raises(DatasetError, match=message + ".*delete that folder"):
        read_packed(tmp_path / "packed")
