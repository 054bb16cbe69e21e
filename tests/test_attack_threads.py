"""Micro-batches side by side on a CPU: the images of one thread, bit for bit, and only where nothing is shared."""

import threading
import time
from functools import partial

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from zsar.attacks import (
    apgd,
    attack_from_settings,
    attack_settings,
    cross_entropy,
    ensemble,
    image_seeds,
    pgd,
    pgd_until_fooled,
    square,
)
from zsar.attacks.engine import for_each, look, side_by_side
from zsar.evaluate import Room, answer
from zsar.evaluate.accuracy import _Counted
from zsar.fast import FastClassifier

EPS = 4 / 255
CPU = torch.device("cpu")


@pytest.fixture
def two_threads():
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(1)


def who_works(together: bool, n: int = 8) -> set[int]:
    """The threads that are asked for micro-batches of two, each for as long as another needs to begin."""
    found, begun = [], threading.Barrier(2)

    def work(rows, index):
        if together:
            begun.wait(10)
        found.append((threading.get_ident(), torch.get_num_threads()))

    for_each(work, n, CPU, 2, together)
    assert all(threads == 1 for _, threads in found) or not together
    return {thread for thread, _ in found}


def test_threads_share_the_work_and_are_given_back(two_threads):
    assert len(who_works(True)) == 2 and torch.get_num_threads() == 2
    assert who_works(False) == {threading.get_ident()}


ATTACKS = {"pgd": lambda c, x, y: pgd(cross_entropy(c, y), x, eps=EPS, alpha=EPS / 4, steps=4, micro_batch=3),
           "worst": lambda c, x, y: pgd_until_fooled(c, x, y, eps=EPS, alpha=EPS / 4, steps=4, micro_batch=3),
           "apgd": lambda c, x, y: apgd(c, x, y, eps=EPS, steps=6, micro_batch=3),
           "ensemble": lambda c, x, y: ensemble(c, x, y, eps=EPS, steps=4, queries=20, micro_batch=3)}


@pytest.mark.parametrize("attack", ATTACKS.values(), ids=ATTACKS)
def test_the_same_images_on_any_number_of_threads(attack, classifier, images):
    labels = classifier(images).argmax(1)
    torch.set_num_threads(1)
    alone = attack(classifier, images, labels)
    for threads in (2, 3):
        torch.set_num_threads(threads)
        try:
            assert torch.equal(attack(classifier, images, labels), alone)
        finally:
            torch.set_num_threads(1)


def test_an_error_ends_the_others(two_threads):
    begun = []

    def work(rows, index):
        begun.append(rows)
        time.sleep(.02)
        if len(begun) > 2:
            raise RuntimeError("no room")

    with pytest.raises(RuntimeError, match="no room"):
        for_each(work, 400, CPU, 2, True)
    assert len(begun) < 20 and torch.get_num_threads() == 2


def test_the_other_threads_end_at_their_next_look(two_threads, images):
    """One that fails while another is in a long attack: that one stops too."""
    looks, failed = [], threading.Event()

    def objective(points, index):
        looks.append(index)
        return points.sum((1, 2, 3))

    def work(rows, index):
        if rows[0] == 0:
            failed.set()
            raise RuntimeError("no room")
        failed.wait(10)
        for _ in range(2000):
            look(objective, images[index], index)
            time.sleep(.002)

    with pytest.raises(RuntimeError, match="no room"):
        for_each(work, 8, CPU, 4, True)
    assert len(looks) < 1000


def threads_of(work, classifier) -> int:
    found = set()
    with classifier.clip.model.visual.register_forward_hook(lambda *given: found.add(threading.get_ident())):
        work()
    return len(found - {threading.get_ident()})


def test_evaluations_and_attacks_use_them(two_threads, classifier, images):
    labels, attack = classifier(images).argmax(1), attack_from_settings(attack_settings("pgd", 4, iterate="worst"))
    given = classifier, attack, images, labels, image_seeds("abcdefgh"), Room(CPU, 2)
    assert threads_of(lambda: answer(*given), classifier) >= 2
    assert threads_of(lambda: ATTACKS["pgd"](classifier, images, labels), classifier) >= 2
    alone = answer(*given[:-1], Room(CPU, 2)).passes
    torch.set_num_threads(1)
    assert answer(*given).passes == alone  # none is lost between threads


def test_not_inside_contexts_that_other_threads_would_not_see(two_threads, classifier, images, labels):
    attack = partial(ATTACKS["pgd"], classifier, images, labels)
    with FlopCounterMode(display=False) as counter:
        assert threads_of(attack, classifier) == 0
    assert counter.get_total_flops() > 0
    with torch.autocast("cpu", torch.bfloat16):
        assert threads_of(attack, classifier) == 0
    with torch.inference_mode():
        blind = partial(square, classifier, images, labels, eps=EPS, queries=3, micro_batch=2)
        assert threads_of(blind, classifier) == 0


def test_only_a_frozen_classifier_is_asked_by_several(classifier, tiny_clip):
    assert side_by_side(classifier)
    assert not side_by_side(lambda images: images) and not side_by_side(None)
    assert side_by_side(_Counted(classifier)) and not side_by_side(_Counted(FastClassifier(classifier, compiled=True)))
    block = tiny_clip.model.visual.transformer.resblocks[0]
    block.train()
    try:
        assert not side_by_side(classifier)
    finally:
        block.eval()
