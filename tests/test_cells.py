"""Filling cells: the answers of a plain loop, whatever is interrupted, shared or short of memory."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from made_up import made_up

from zsar import cells, evaluate
from zsar.attacks import MICRO_BATCH, attack_from_settings, image_seeds, parse_attack
from zsar.cells import Subject, evaluate_cells, task_of
from zsar.clip import ZeroShotClassifier
from zsar.datasets import ImageDataset
from zsar.errors import OutputError, UnreadableImageError, ZsarError
from zsar.evaluate import Room, answer, predict
from zsar.evaluate.accuracy import is_out_of_memory
from zsar.fast import fast
from zsar.results import Store

ATTACKS = [parse_attack(word, 8) for word in ("none", "pgd-3", "pgd-4-worst")]


@pytest.fixture
def subject(tiny_clip) -> Subject:
    return Subject(tiny_clip, tiny_clip.digest, "none", 3, {})


@pytest.fixture(autouse=True)
def small_units(monkeypatch):
    """Units of ten images, in micro-batches of five."""
    monkeypatch.setitem(MICRO_BATCH, "cpu", 5)
    monkeypatch.setitem(evaluate.TOGETHER, "cpu", 2)


def plain(clip, dataset, attack, seed=3, precision="fp32") -> np.ndarray:
    """All images at once."""
    exact = ZeroShotClassifier(clip, dataset.classnames, dataset.templates, dataset.verbatim)
    classifier = fast(exact, precision)
    (images, labels), run = dataset.stack(), attack_from_settings(attack)
    if run:
        images = run(classifier, images, labels, image_seeds(dataset.ids, seed))
    return predict(exact, images).numpy()


def found(store, subject, dataset) -> list[np.ndarray]:
    return [store.find(subject.key(task_of(dataset), attack)).predictions for attack in ATTACKS]


def test_cells_hold_what_a_plain_loop_answers(subject, tmp_path):
    dataset, store, told = made_up(33), Store(tmp_path), []
    evaluate_cells(subject, dataset, ATTACKS, store, progress=lambda attack, images, answers: told.append(images))
    for attack, predictions in zip(ATTACKS, found(store, subject, dataset), strict=True):
        np.testing.assert_array_equal(predictions, plain(subject.clip, dataset, attack))
    assert sum(told) == 3 * 33 and sorted(set(told)) == [3, 10]
    assert not list((tmp_path / "units").glob("*/*"))
    about = store.headers()[0]["about"]["attack"]
    assert about in ATTACKS


@pytest.mark.filterwarnings("ignore:precision bf16")
def test_gradients_in_another_precision_and_answers_in_fp32(subject, tmp_path, monkeypatch):
    dataset, store, asked = made_up(33), Store(tmp_path), []
    half = replace(subject, precision="bf16", compiled=True)
    evaluate_cells(subject, dataset, ATTACKS, store)
    monkeypatch.setattr(cells, "fast", lambda exact, *how: asked.append(how) or fast(exact, how[0]))
    evaluate_cells(half, dataset, ATTACKS, store)
    assert asked == [("bf16", True)] and len(store.headers()) == 2 * len(ATTACKS)
    for attack, full, lower in zip(ATTACKS, found(store, subject, dataset), found(store, half, dataset), strict=True):
        np.testing.assert_array_equal(full, plain(subject.clip, dataset, attack))
        np.testing.assert_array_equal(lower, plain(subject.clip, dataset, attack, precision="bf16"))
    assert {header["key"]["precision"]: header["run"].get("compiled") for header in store.headers()} == {
        "fp32": None, "bf16": "yes"}


def test_what_is_there_is_not_computed_again(subject, tmp_path, monkeypatch):
    dataset, store = made_up(33), Store(tmp_path)
    evaluate_cells(subject, dataset, ATTACKS, store)
    monkeypatch.setattr(cells, "batches", lambda *args, **kwargs: pytest.fail("nothing was left to do"))
    evaluate_cells(subject, dataset, ATTACKS, store)


@pytest.mark.parametrize("after", [1, 4, 7, 11])
def test_a_run_that_is_killed_repeats_less_than_a_unit(after, subject, tmp_path):
    dataset, store, told = made_up(33), Store(tmp_path / "killed"), []

    def count(attack, images, answers):
        told.append(images)
        if len(told) == after:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        evaluate_cells(subject, dataset, ATTACKS, store, progress=count)
    evaluate_cells(subject, dataset, ATTACKS, store, progress=lambda *unit: told.append(unit[1]))
    assert sum(told) == 3 * 33  # every unit once
    for attack, predictions in zip(ATTACKS, found(store, subject, dataset), strict=True):
        np.testing.assert_array_equal(predictions, plain(subject.clip, dataset, attack))


def test_ranks_share_the_units(subject, tmp_path, monkeypatch):
    dataset, told = made_up(63), {0: 0, 1: 0}

    def run(rank: int) -> None:
        monkeypatch.setattr(cells.distributed, "claim", lambda work, n: range(rank, n, 2))
        evaluate_cells(subject, dataset, ATTACKS, Store(tmp_path),
                       progress=lambda attack, images, answers: told.update({rank: told[rank] + images}))

    run(1)
    assert not Store(tmp_path).headers()  # half of each is not a cell
    run(0)
    assert told == {0: 3 * 33, 1: 3 * 30}
    for attack, predictions in zip(ATTACKS, found(Store(tmp_path), subject, dataset), strict=True):
        np.testing.assert_array_equal(predictions, plain(subject.clip, dataset, attack))


def with_broken(dataset: ImageDataset, broken: set[int]) -> ImageDataset:
    whole = dataset.read

    def read(rows):
        if bad := broken & set(rows.tolist()):
            raise UnreadableImageError(f"cannot read the image {dataset.ids[min(bad)]}")
        return whole(rows)

    return ImageDataset(dataset.name, dataset.split, dataset.classnames, dataset.templates, dataset.labels, dataset.ids,
                        read)


def test_unreadable_images_do_not_count_and_are_named(subject, tmp_path):
    dataset, store = made_up(33), Store(tmp_path)
    evaluate_cells(subject, with_broken(dataset, {0, 12, *range(20, 30)}), ATTACKS, store)
    for attack, predictions in zip(ATTACKS, found(store, subject, dataset), strict=True):
        expected = plain(subject.clip, dataset, attack)
        expected[[0, 12, *range(20, 30)]] = -1
        np.testing.assert_array_equal(predictions, expected)
    header = store.headers()[0]
    assert header["images"] == 21 and header["unreadable"] == 12
    assert set(store.find(subject.key(task_of(dataset), ATTACKS[0])).unreadable) == {
        dataset.ids[i] for i in (0, 12, *range(20, 30))}


def test_strict_and_all_unreadable_raise_and_leave_no_cell(subject, tmp_path):
    dataset = made_up(13)
    with pytest.raises(UnreadableImageError, match="train-4"):
        evaluate_cells(subject, with_broken(dataset, {4}), ATTACKS, Store(tmp_path / "a"), strict=True)
    with pytest.raises(UnreadableImageError, match="none of the images of made-up can be read"):
        evaluate_cells(subject, with_broken(dataset, set(range(13))), ATTACKS, Store(tmp_path / "b"))
    assert not Store(tmp_path / "b").headers()


def test_strict_holds_for_cells_that_are_there_and_keeps_them(subject, tmp_path):
    dataset, store = made_up(33), Store(tmp_path)
    evaluate_cells(subject, with_broken(dataset, {3, 15}), ATTACKS, store)
    evaluate_cells(subject, with_broken(made_up(20), set()), ATTACKS, store, strict=True)
    for broken in ({3, 15}, {15}):
        with pytest.raises(UnreadableImageError, match=f"train-{min(broken)}"):
            evaluate_cells(subject, with_broken(dataset, broken), ATTACKS, store, strict=True)
    assert len(store.headers()) == 2 * len(ATTACKS)
    evaluate_cells(subject, dataset, ATTACKS, store, strict=True)
    assert all(header["unreadable"] == 0 for header in store.headers())


def test_images_that_were_mended_are_evaluated(subject, tmp_path):
    dataset, store = made_up(33), Store(tmp_path)
    for broken, images in (({3, 15}, 31), ({3, 15}, 31), ({3}, 32), (set(), 33)):
        evaluate_cells(subject, with_broken(dataset, broken), ATTACKS, store)
        assert {header["images"] for header in store.headers()} == {images}
    for attack, predictions in zip(ATTACKS, found(store, subject, dataset), strict=True):
        np.testing.assert_array_equal(predictions, plain(subject.clip, dataset, attack))


def test_a_full_disk_loses_no_unit(subject, tmp_path, monkeypatch):
    dataset, store, write = made_up(33), Store(tmp_path), Store.write_unit
    done = []

    def fill(self, key, unit):
        if len(done) == 5:
            raise OutputError("cannot write (No space left on device)")
        done.append(unit.first)
        write(self, key, unit)

    monkeypatch.setattr(Store, "write_unit", fill)
    with pytest.raises(OutputError, match="No space left"):
        evaluate_cells(subject, dataset, ATTACKS, store)
    monkeypatch.undo()
    monkeypatch.setitem(evaluate.TOGETHER, "cpu", 2)
    monkeypatch.setitem(MICRO_BATCH, "cpu", 5)
    told = []
    evaluate_cells(subject, dataset, ATTACKS, store, progress=lambda *unit: told.append(unit[1]))
    assert len(done) + len(told) == 12


# memory

@pytest.mark.parametrize("kind", ["device", "cpu"])
def test_out_of_memory_halves_and_goes_on_with_the_same_result(kind, subject, monkeypatch):
    dataset = made_up(23)
    classifier = ZeroShotClassifier(subject.clip, dataset.classnames, dataset.templates)
    (images, labels), seeds = dataset.stack(), image_seeds(dataset.ids)
    logits, sizes = ZeroShotClassifier.logits, []

    def small(self, images):
        sizes.append(len(images))
        if len(images) > 2:
            raise torch.OutOfMemoryError("CUDA out of memory") if kind == "device" else RuntimeError(
                "DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes")
        return logits(self, images)

    expected = answer(classifier, attack_from_settings(ATTACKS[1]), images, labels, seeds, Room(subject.clip.device))
    monkeypatch.setattr(ZeroShotClassifier, "logits", small)
    room = Room(subject.clip.device, 9)
    with pytest.warns(UserWarning, match="out of memory: going on with 2 images"):
        found = answer(classifier, attack_from_settings(ATTACKS[1]), images, labels, seeds, room)
    assert torch.equal(found.predictions, expected.predictions) and room.size == 2
    assert sizes[:4] == [9, 4, 2, 2]


def test_no_room_for_one_image_is_one_line(subject):
    def work(size):
        raise torch.OutOfMemoryError("CUDA out of memory")

    with pytest.raises(ZsarError, match="out of memory with a single image"), pytest.warns(UserWarning):
        Room(subject.clip.device, 4).run(work)


def test_other_errors_pass_through(subject):
    def work(size):
        raise RuntimeError("shapes differ")

    with pytest.raises(RuntimeError, match="shapes differ"):
        Room(subject.clip.device).run(work)
    assert not is_out_of_memory(RuntimeError("shapes differ"))


def test_passes_are_counted(subject):
    dataset = made_up(12)
    classifier = ZeroShotClassifier(subject.clip, dataset.classnames, dataset.templates)
    given = (*dataset.stack(), image_seeds(dataset.ids), Room(subject.clip.device, 5))
    assert answer(classifier, None, *given).passes == 15  # three micro-batches of five
    assert answer(classifier, attack_from_settings(ATTACKS[1]), *given).passes == 15 * 3 + 15
