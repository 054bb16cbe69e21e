"""Micro-batches side by side on a CPU: the images of one thread, bit for bit, and only where nothing is shared."""

import threading

import pytest
import torch

from zsar.attacks import apgd, cross_entropy, ensemble, pgd, pgd_until_fooled
from zsar.attacks.engine import for_each, shares_nothing

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
        raise RuntimeError("no room")

    with pytest.raises(RuntimeError, match="no room"):
        for_each(work, 400, CPU, 2, True)
    assert len(begun) < 200 and torch.get_num_threads() == 2


def test_only_a_frozen_classifier_is_asked_by_several(classifier, tiny_clip):
    assert shares_nothing(classifier)
    assert not shares_nothing(lambda images: images) and not shares_nothing(None)
    block = tiny_clip.model.visual.transformer.resblocks[0]
    block.train()
    try:
        assert not shares_nothing(classifier)
    finally:
        block.eval()
