"""The Square attack, the ensemble, the reference, and what holds for every attack that can be named."""

import random
import sys

import numpy as np
import pytest
import torch

from zsar.attacks import (
    ATTACKS,
    apgd,
    attack_from_settings,
    autoattack,
    ensemble,
    misclassified,
    parse_attack,
    pgd,
    square,
)
from zsar.attacks.objectives import cross_entropy, lead, margin
from zsar.attacks.square import side_of_square
from zsar.clip import ZeroShotClassifier
from zsar.errors import AttackSettingsError, PixelRangeError

EPS = 8 / 255
SHORT = {"apgd-ce": "apgd-ce-5", "apgd-dlr": "apgd-dlr-5", "apgd-t": "apgd-t-5", "square": "square-20"}


@pytest.fixture
def right(classifier, images):
    """The labels that the classifier gives."""
    return classifier(images).argmax(1)


# Square

def test_square_needs_no_gradient(classifier, images, right):
    """It lowers the label's lead through a step function, at which every gradient is zero."""
    def stairs(pictures):
        return classifier((pictures * 255).round().detach() / 255)

    found = square(stairs, images, right, eps=EPS, queries=200)
    with torch.no_grad():
        assert (lead(stairs(found), right) > lead(stairs(images), right)).all()
    assert misclassified(stairs, found, right).any()
    assert (found - images).abs().max() <= EPS + 1e-6 and found.min() >= 0 and found.max() <= 1


def test_more_queries_find_no_less(classifier, images, right):
    leads = [lead(classifier(square(classifier, images, right, eps=2 / 255, queries=n)), right) for n in (1, 300)]
    assert (leads[1] >= leads[0]).all() and (leads[1] > leads[0]).any()


def test_an_image_does_not_depend_on_its_neighbours(classifier, images, right):
    settings, seeds = {"eps": 2 / 255, "queries": 30, "micro_batch": 4}, torch.arange(8)
    whole = square(classifier, images, right, seeds=seeds, **settings)
    parts = [square(classifier, images[[i]], right[[i]], seeds=seeds[[i]], **settings) for i in range(8)]
    assert torch.equal(whole, torch.cat(parts))


def test_squares_shrink_as_published():
    """The share of the area is 0.8, halved after 10, 50, 200, ... of 10,000 queries."""
    sides = [side_of_square(query, 10_000, 224, 224) for query in (0, 10, 11, 51, 201, 8001, 9999)]
    assert sides == [200, 200, 142, 100, 71, 9, 9]
    assert side_of_square(4999, 5000, 224, 224) == 9 and side_of_square(0, 100, 4, 6) == 4


# the ensemble and the reference

def test_the_ensemble_is_the_worst_of_its_attacks(classifier, images, right):
    settings = {"eps": 2 / 255, "seeds": torch.arange(8), "micro_batch": 8}
    found = misclassified(classifier, ensemble(classifier, images, right, steps=10, queries=50, **settings), right)
    alone = [apgd(classifier, images, right, steps=10, **settings),
             apgd(classifier, images, right, steps=10, loss="targeted-dlr", **settings),
             square(classifier, images, right, queries=50, **settings)]
    expected = torch.stack([misclassified(classifier, images, right) for images in alone]).any(0)
    assert torch.equal(found, expected) and 0 < found.sum()


@pytest.mark.parametrize("classes", [2, 3, 4])
def test_the_reference_runs_on_few_classes(classes, tiny_clip, images):
    pytest.importorskip("pyautoattack", reason="install it with: pip install pyautoattack")
    classifier = ZeroShotClassifier(tiny_clip, ["cat", "dog", "car", "frog"][:classes])
    labels = classifier(images).argmax(1)
    tracer = sys.gettrace()
    found = autoattack(classifier, images, labels, eps=EPS, attacks=("apgd-ce", "apgd-t", "fab-t"))
    assert misclassified(classifier, found, labels).any() and (found - images).abs().max() <= EPS + 1e-6
    assert sys.gettrace() is tracer


def test_the_reference_climbs_and_judges_exactly(classifier, images, right):
    """Behind a fast classifier that is wrong about every image it still finds what it finds without."""
    pytest.importorskip("pyautoattack", reason="install it with: pip install pyautoattack")

    class Liar:
        exact = classifier

        def __call__(self, pictures):
            return -classifier(pictures)

    found, plain = (autoattack(model, images, right, eps=2 / 255, attacks=("apgd-ce",))
                    for model in (Liar(), classifier))
    assert torch.equal(found, plain) and misclassified(classifier, plain, right).any()


def test_counts_and_labels_that_cannot_be(classifier, images, right):
    with pytest.raises(AttackSettingsError, match="queries = 0"):
        ensemble(classifier, images, right, eps=EPS, queries=0)
    with pytest.raises(AttackSettingsError, match="steps = 0"):
        ensemble(classifier, images, right, eps=EPS, steps=0)
    with pytest.raises(PixelRangeError):
        apgd(classifier, images[:0], right[:0], eps=EPS)
    with pytest.raises(AttackSettingsError, match="found 0 to 4, expected 0 to 3"):
        misclassified(lambda x: classifier(x), images, torch.arange(8) % 5)


def test_the_reference_says_how_to_get_it(classifier, images, labels, monkeypatch):
    monkeypatch.setitem(sys.modules, "pyautoattack", None)
    with pytest.raises(AttackSettingsError, match="pip install pyautoattack"):
        autoattack(classifier, images, labels, eps=EPS)


def test_the_margin_is_that_of_the_papers_code(classifier, images, labels):
    """-relu(z_y - max_{k != y} z_k + 50), and nothing to climb once the other class leads by 50."""
    with torch.no_grad():
        logits = classifier(images)
    own = torch.nn.functional.one_hot(labels, 4)
    expected = -torch.relu((own * logits).sum(1) - ((1 - own) * logits - 1e4 * own).amax(1) + 50)
    assert torch.allclose(margin(classifier, labels)(images, torch.arange(8)), expected, atol=1e-4)
    beaten = margin(lambda x: 1e3 * classifier(x), (classifier(images).argmin(1)))
    assert (beaten(images, torch.arange(8)) == 0).any()


# every attack

@pytest.mark.parametrize("name", sorted(set(ATTACKS) - {"none"}))
def test_the_global_generators_are_not_touched(name, classifier, images, right):
    if name == "autoattack":
        pytest.importorskip("pyautoattack", reason="install it with: pip install pyautoattack")
    attack = attack_from_settings(parse_attack(SHORT.get(name, name), 8))
    if name in ("autoattack", "ensemble"):
        images, right = images[:1], right[:1]
    before = torch.get_rng_state(), random.getstate(), np.random.get_state()[1].tolist()  # noqa: NPY002
    found = attack(classifier, images, right, torch.arange(len(images)))
    after = torch.get_rng_state(), random.getstate(), np.random.get_state()[1].tolist()  # noqa: NPY002
    assert torch.equal(before[0], after[0]) and before[1:] == after[1:]
    assert (found - images).abs().max() <= EPS + 1e-6 and not found.requires_grad


@pytest.mark.parametrize("word", ["pgd-3-worst", "cw-3-worst", "apgd-ce-3", "apgd-t-3", "square-3", "ensemble"])
def test_logits_that_are_not_finite_are_told(word, classifier, images, labels):
    """argmax calls NaN the highest: every image would count as fooled."""
    attack = attack_from_settings(parse_attack(word, 4))
    with pytest.raises(AttackSettingsError, match="logits are NaN or infinite"):
        attack(lambda x: classifier(x) * torch.nan, images, labels, torch.arange(8))


@pytest.mark.parametrize("word", ["fgsm", "pgd-3", "pgd-3-worst", "cw-3", "apgd-ce-3"])
def test_a_model_without_gradients_is_told_at_the_first_look(word, classifier, images, labels):
    seen = []

    def cut(pictures):
        seen.append(len(pictures))
        return classifier(pictures).detach()

    with pytest.raises(AttackSettingsError, match="does not depend on the images"):
        attack_from_settings(parse_attack(word, 4))(cut, images, labels, torch.arange(8), micro_batch=8)
    assert len(seen) <= 3


def test_cw_in_a_word_is_pgd_on_the_margin(classifier, images, right):
    found = attack_from_settings(parse_attack("cw-4@4:1", 1))(classifier, images, right, torch.arange(8))
    assert torch.equal(found, pgd(margin(classifier, right), images, eps=4 / 255, alpha=1 / 255, steps=4))
    assert not torch.equal(found, pgd(cross_entropy(classifier, right), images, eps=4 / 255, alpha=1 / 255, steps=4))


@pytest.mark.parametrize("word", ["pgd-4", "pgd-4-worst", "apgd-ce-6", "square-12"])
def test_the_count_does_not_depend_on_the_batch(word, classifier):
    """Whoever asks for 1, 7, 64 or 256 images at a time gets the same pixels: the model sees one shape anyway."""
    with torch.random.fork_rng():
        torch.manual_seed(3)
        images = torch.rand(256, 3, 16, 16)
    labels, seeds, attack = classifier(images).argmax(1), torch.arange(256), attack_from_settings(parse_attack(word, 1))
    whole = attack(classifier, images, labels, seeds)
    for size in (1, 7, 64):
        rows = torch.arange(256).split(size)[:4]
        parts = [attack(classifier, images[part], labels[part], seeds[part]) for part in rows]
        assert torch.equal(torch.cat(parts), whole[torch.cat(rows)])
