"""The store: what is written is what is read, whatever happens to the files in between."""

import errno
import json
import tempfile
import time
import warnings
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import pytest

from zsar.errors import OutputError, StoreError
from zsar.results import Cell, Key, Store, Task, Unit, interval, unpack_bits
from zsar.results import sealed as sealed_module
from zsar.results.cell import UNREADABLE

GOLDEN = Path(__file__).parent / "reference" / "store-1"
TASK = Task("DrawnDTD", "test", "drawn", tuple(f"id/{i}" for i in range(10)), (0, 1, 2, 0, 1, 2, 0, 1, 2, 0),
            ("cat", "dog", "car"), ("a photo of a {}",))
KEY = Key("0123456789abcdef", "tecoa:finetune", "DrawnDTD", "test", TASK.digest, "pgd-20@4:1", "fp32", 0)
PREDICTIONS = np.array([0, 1, 2, 1, 1, 2, 2, 1, UNREADABLE, 0])


def cell(**changes) -> Cell:
    return Cell(replace(KEY, **changes), PREDICTIONS, {"attack": {"attack": "pgd"}}, {"id/8": "cut off"},
                {"seconds": 1.5, "device": "cpu"})


@pytest.fixture
def store(tmp_path) -> Store:
    store = Store(tmp_path / "store")
    store.add_task(TASK)
    return store


def test_a_cell_is_read_as_it_was_written(store):
    path = store.write(cell())
    found = store.find(KEY)
    assert found.key == KEY and found.run == {"seconds": 1.5, "device": "cpu"}
    assert found.unreadable == {"id/8": "cut off"}
    np.testing.assert_array_equal(found.predictions, PREDICTIONS)
    np.testing.assert_array_equal(found.correct(TASK), [1, 1, 1, 0, 1, 1, 0, 1, 1])
    assert path.parent.name == "DrawnDTD" and path.name.startswith("tecoa-finetune_pgd-20@4-1_seed-0_")
    assert Store(store.folder, write=False).task(TASK.digest) == TASK


def test_the_header_says_what_a_plain_count_says(store):
    store.write(cell())
    header, = store.headers()
    assert header["images"] == 9 and header["hits"] == 7 and header["classes"] == 3 and header["unreadable"] == 1
    assert header["accuracy"] == round(700 / 9, 4)
    assert header["interval"] == pytest.approx(interval(7, 9), abs=.01)
    assert header["mean_per_class"] == pytest.approx(100 * (2 / 4 + 3 / 3 + 2 / 2) / 3, abs=1e-3)
    answers = json.loads((store.folder / "cells" / KEY.path).read_text().splitlines()[1])
    np.testing.assert_array_equal(unpack_bits(answers["correct"], 9), [1, 1, 1, 0, 1, 1, 0, 1, 1])


@pytest.mark.parametrize("field", ["model", "adaptation", "dataset", "split", "task", "attack", "precision", "seed"])
def test_whatever_differs_makes_another_cell(field):
    other = replace(KEY, **{field: 1 if field == "seed" else "other"})
    assert other.id != KEY.id and other.path != KEY.path


@pytest.mark.parametrize("field", ["ids", "labels", "classnames", "templates", "layout"])
def test_whatever_differs_makes_another_task(field):
    other = {"labels": (1,) * 10}.get(field, ("x",) * 10 if field != "layout" else "wds")
    assert replace(TASK, **{field: other}).digest != TASK.digest


def test_a_store_written_by_the_first_release_is_read():
    store = Store(GOLDEN, write=False)
    header, = store.headers()
    found = store.find(Key(**header["key"]))
    assert header["accuracy"] == round(700 / 9, 4) and found.key == KEY
    np.testing.assert_array_equal(found.predictions, PREDICTIONS)


def test_an_older_format_is_migrated(store, monkeypatch):
    store.write(cell())
    monkeypatch.setattr(sealed_module, "FORMAT", 2)
    monkeypatch.setattr("zsar.results.store.FORMAT", 2)
    with pytest.raises(StoreError, match="has the format 1, this release reads up to 2"):
        store.find(KEY)
    monkeypatch.setitem(sealed_module.MIGRATIONS, 1, lambda header, answers: (
        header | {"format": 2, "about": {"moved": True}}, answers))
    assert store.find(KEY).about == {"moved": True} and store.headers()[0]["about"] == {"moved": True}


def test_a_cell_of_a_later_release_is_not_touched(store, monkeypatch):
    monkeypatch.setattr(sealed_module, "FORMAT", 7)
    path = store.write(cell())
    content = path.read_bytes()
    monkeypatch.undo()
    for look in (lambda: store.find(KEY), store.headers):
        with pytest.raises(StoreError, match="format 7, this release reads up to 1: install"):
            look()
    assert path.read_bytes() == content


@pytest.mark.parametrize("damage", [lambda b: b[:-30], lambda b: b.replace(b'"hits": 7', b'"hits": 9'),
                                    lambda b: b"", lambda b: b[:200] + b"\0" * 20 + b[220:]])
def test_a_damaged_cell_is_put_aside_and_said(store, damage):
    path = store.write(cell())
    path.write_bytes(damage(path.read_bytes()))
    with pytest.warns(UserWarning, match="damaged.*computed again"):
        assert store.find(KEY) is None
    assert not path.exists() and path.with_name(path.name + ".damaged").exists()
    store.write(cell())
    assert store.find(KEY) is not None
    path.write_bytes(b"damaged in another way")
    with pytest.warns(UserWarning, match=r"it is kept as .*\.json\.2\.damaged and computed again"):
        assert store.find(KEY) is None
    assert path.with_name(path.name + ".damaged").exists() and not store.headers()


def test_a_changed_task_is_noticed(store):
    path = store.folder / "tasks" / f"{TASK.digest}.json"
    path.write_text(path.read_text().replace("id/3", "id/33"))
    with pytest.raises(StoreError, match="was changed"):
        Store(store.folder).task(TASK.digest)
    path.unlink()
    with pytest.raises(StoreError, match="cannot read the task"):
        Store(store.folder).task(TASK.digest)


# units

def test_units_become_the_cell_once_all_are_there(store):
    parts = [Unit(0, PREDICTIONS[:4], {}, {"passes": 4, "seconds": .5, "device": "a"}),
             Unit(4, PREDICTIONS[4:], {"id/8": "cut off"}, {"passes": 6, "seconds": 1., "device": "b"})]
    store.write_unit(KEY, parts[1])
    assert not store.all_units(KEY) and store.has_unit(KEY, 4, 6) and not store.has_unit(KEY, 0, 4)
    store.write_unit(KEY, parts[0])
    store.compose(KEY, store.all_units(KEY), {})
    found = store.find(KEY)
    np.testing.assert_array_equal(found.predictions, PREDICTIONS)
    assert found.run == {"passes": 10, "seconds": 1.5, "device": "a, b"} and found.unreadable == {"id/8": "cut off"}
    assert not list((store.folder / "units").glob("*/*")) and store.has_unit(KEY, 0, 10)


@pytest.mark.parametrize(("sizes", "whole"), [
    ([(0, 4), (0, 10)], 1), ([(0, 4), (4, 6), (0, 8)], 2), ([(0, 8), (0, 5), (5, 5)], 2), ([(0, 6), (6, 4), (4, 6)], 2),
    ([(0, 4), (5, 5)], 0), ([(0, 8), (8, 1)], 0), ([(4, 6)], 0)])
def test_units_of_several_sizes_make_a_cell_where_some_of_them_fit(sizes, whole, store):
    for first, n in sizes:
        store.write_unit(KEY, Unit(first, PREDICTIONS[first:first + n]))
    units = store.all_units(KEY)
    assert len(units) == whole
    if whole:
        np.testing.assert_array_equal(np.concatenate([unit.predictions for unit in units]), PREDICTIONS)


def test_a_damaged_unit_is_computed_again(store):
    for first in (0, 5):
        store.write_unit(KEY, Unit(first, PREDICTIONS[first:first + 5]))
    path = store.folder / "units" / KEY.id / "5-5.json"
    path.write_bytes(path.read_bytes()[:-9])
    assert store.all_units(KEY) == [] and store.has_unit(KEY, 0, 5) and not store.has_unit(KEY, 5, 5)


def test_two_processes_may_complete_one_cell(store):
    units = [Unit(0, PREDICTIONS)]
    store.write_unit(KEY, units[0])
    store.compose(KEY, units, {})
    store.write_unit(KEY, units[0])  # the slower one, whose folder of units is gone
    store.compose(KEY, units, {})
    assert store.find(KEY) is not None and not (store.folder / "units" / KEY.id).exists()


# folders

def test_stores_merge_by_copying(store, tmp_path):
    other = Store(tmp_path / "other")
    other.add_task(TASK)
    other.write(cell())
    other.write(cell(seed=1))
    other.write_unit(replace(KEY, seed=2), Unit(0, PREDICTIONS[:4]))
    store.write(Cell(KEY, np.zeros(10, np.int64), {}))
    assert store.merge(other) == {"copied": 1, "here": 0, "differing": 1}
    assert store.merge(other) == {"copied": 0, "here": 1, "differing": 1}
    assert (store.find(KEY).predictions == 0).all() and store.has_unit(replace(KEY, seed=2), 0, 4)


def test_merging_into_an_empty_folder_is_a_copy(store, tmp_path):
    path = store.write(cell())
    copy = Store(tmp_path / "copy")
    assert copy.merge(store) == {"copied": 1, "here": 0, "differing": 0}
    assert (copy.folder / "cells" / KEY.path).read_bytes() == path.read_bytes()


def test_a_full_disk_is_one_line_and_leaves_the_rest(store, monkeypatch):
    store.write(cell(seed=1))

    def full(self, content):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(Path, "write_bytes", full)
    with pytest.raises(OutputError, match="cannot write .*No space left on device"):
        store.write(cell())
    monkeypatch.undo()
    assert store.find(replace(KEY, seed=1)) is not None and store.find(KEY) is None
    assert not list(store.folder.rglob("*.part"))


def test_a_read_only_mount_ends_the_run_at_its_start_and_can_be_read(store, monkeypatch):
    store.write(cell())

    def read_only(*args, **kwargs):
        raise OSError(errno.EROFS, "Read-only file system")

    monkeypatch.setattr(tempfile, "TemporaryFile", read_only)
    monkeypatch.setattr(Path, "write_bytes", read_only)
    with pytest.raises(OutputError, match="cannot write into the folder .*Read-only file system"):
        Store(store.folder)
    assert len(Store(store.folder, write=False).headers()) == 1


def test_a_folder_that_is_none(tmp_path):
    with pytest.raises(StoreError, match="there is no store of results in .*expected a folder"):
        Store(tmp_path / "none", write=False)
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError):
        Store(tmp_path / "file")


def test_the_clock_does_not_matter(store, monkeypatch):
    ticks = iter(range(10**9, 0, -1000))
    monkeypatch.setattr(time, "time", lambda: next(ticks))
    store.write_unit(KEY, Unit(0, PREDICTIONS))
    store.compose(KEY, store.all_units(KEY), {})
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert store.find(KEY) is not None


def test_foreign_files_are_left_alone(store):
    path = store.write(cell())
    (path.parent / "notes.txt").write_text("mine")
    (store.folder / "cells" / "README").write_text("mine")
    assert [header["key"] for header in store.headers()] == [asdict(KEY)]
