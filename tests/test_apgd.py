"""APGD: held to its algorithm written out for one image, to its package, and to what any attack must keep."""

import math

import pytest
import torch
import torch.nn.functional as F

from zsar.attacks import apgd, cross_entropy, dlr_loss, pgd, targeted_dlr_loss
from zsar.attacks.apgd import checkpoints
from zsar.attacks.balls import random_point
from zsar.clip import ZeroShotClassifier
from zsar.errors import AttackSettingsError, PixelRangeError, UnknownNameError

EPS = 4 / 255


class Unbroken:
    """A classifier that is climbed as another, and whose class 0 always wins: no image is let go."""

    def __init__(self, inner):
        self.inner = inner

    def __call__(self, images):
        return self.inner(images)

    def exact(self, images):
        return torch.eye(4)[:1].expand(len(images), 4)


ZEROS = torch.zeros(8, dtype=torch.int64)


def written_out(logits_of, image, label, seed, eps, steps):
    """Algorithm 1 of Croce and Hein (2020) for one image on its cross-entropy: the best point."""
    def loss_and_gradient(x):
        x = x.detach().requires_grad_()
        loss = F.cross_entropy(logits_of(x), label)
        return loss.item(), torch.autograd.grad(loss, x)[0]

    def inside(x):
        return torch.min(torch.max(x, image - eps), image + eps).clamp(0, 1)

    share = [0, .22]
    while share[-1] < 1:
        share.append(share[-1] + max(share[-1] - share[-2] - .03, .06))
    checks = [math.ceil(round(p * steps, 6)) for p in share if p < 1]
    size, x = 2 * eps, random_point(image, seed, 0, eps, "linf")
    loss, gradient = loss_and_gradient(x)
    before, best, best_loss, best_gradient, losses = x, x, loss, gradient, [loss]
    halved, best_at_check = True, loss
    for k in range(steps):
        weight = 1 if k == 0 else .75
        z = inside(x + size * gradient.sign())
        x, before = inside(x + weight * (z - x) + (1 - weight) * (x - before)), x
        loss, gradient = loss_and_gradient(x)
        losses.append(loss)
        if loss > best_loss:
            best, best_loss, best_gradient = x, loss, gradient
        if k + 1 in checks[1:]:
            last = checks[checks.index(k + 1) - 1]
            rises = sum(losses[i + 1] > losses[i] for i in range(last, k + 1))
            stuck = rises < .75 * (k + 1 - last) or (not halved and best_at_check == best_loss)
            halved, best_at_check = stuck, best_loss
            if stuck:
                size, x, gradient = size / 2, best, best_gradient
    return best


@pytest.mark.parametrize("steps", [5, 30])
def test_it_is_the_algorithm(steps, classifier, images):
    """Where the label cannot lose, image by image, the best point is that of the algorithm written out."""
    for row in range(4):
        image, seed, label = images[[row]], torch.tensor([row + 7]), ZEROS[:1]
        found = apgd(Unbroken(classifier), image, label, eps=EPS, steps=steps, seeds=seed, micro_batch=1)
        expected = written_out(classifier, image, label, seed, EPS, steps)
        assert torch.allclose(found, expected, atol=1e-6, rtol=0) and (found != image).any()


def test_checkpoints_are_those_of_the_paper():
    assert list(checkpoints(100)) == [22, 41, 57, 70, 80, 87, 93, 99]
    assert sum(checkpoints(1000).values()) == 990
    assert list(checkpoints(1)) == [] and all(1 <= at < 7 for at in checkpoints(7))


@pytest.mark.parametrize("loss", ["ce", "dlr", "targeted-dlr"])
@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_inside_the_ball_and_the_pixel_range(loss, norm, classifier, images, labels):
    eps = EPS if norm == "linf" else .5
    found = apgd(classifier, images, labels, eps=eps, steps=8, loss=loss, norm=norm)
    change = (found - images).flatten(1)
    length = change.abs().amax(1) if norm == "linf" else change.norm(dim=1)
    assert length.max() <= eps + 1e-5 and found.min() >= 0 and found.max() <= 1


@pytest.mark.parametrize("loss", ["ce", "dlr", "targeted-dlr"])
def test_an_image_does_not_depend_on_its_neighbours(loss, classifier, images):
    settings = {"eps": 2 / 255, "steps": 12, "loss": loss, "micro_batch": 4, "restarts": 2}
    labels, seeds = classifier(images).argmax(1), torch.arange(8)
    whole = apgd(classifier, images, labels, seeds=seeds, **settings)
    parts = [apgd(classifier, images[[i]], labels[[i]], seeds=seeds[[i]], **settings) for i in range(8)]
    assert torch.equal(whole, torch.cat(parts))
    back = apgd(classifier, images.flip(0), labels.flip(0), seeds=seeds.flip(0), **settings)
    assert torch.equal(whole, back.flip(0))


def losses_at(classifier, images):
    with torch.no_grad():
        return cross_entropy(classifier, ZEROS)(images, torch.arange(8))


def test_not_weaker_than_pgd_of_as_many_steps(classifier, images):
    plain = pgd(cross_entropy(classifier, ZEROS), images, eps=EPS, alpha=EPS / 4, steps=20, micro_batch=8)
    found = apgd(Unbroken(classifier), images, ZEROS, eps=EPS, steps=20, micro_batch=8)
    assert (losses_at(classifier, found) >= losses_at(classifier, plain) - 1e-3).all()


def test_as_strong_as_the_package(classifier, images):
    """The mean of the highest losses is that of pyautoattack's APGD, whose starts are others, within 2 %."""
    package = pytest.importorskip("pyautoattack.autopgd_base", reason="install it with: pip install pyautoattack")
    with torch.random.fork_rng():
        theirs = package.APGDAttack(classifier, n_iter=50, eps=EPS, device="cpu")
        theirs = theirs.perturb(images, ZEROS, best_loss=True)
    ours = apgd(Unbroken(classifier), images, ZEROS, eps=EPS, steps=50, micro_batch=8)
    assert losses_at(classifier, ours).mean() == pytest.approx(losses_at(classifier, theirs).mean().item(), rel=.02)


def test_dlr_is_that_of_the_package(classifier, images, labels):
    package = pytest.importorskip("pyautoattack.autopgd_base", reason="install it with: pip install pyautoattack")
    with torch.no_grad():
        logits, rows, theirs = classifier(images), torch.arange(8), package.APGDAttack_targeted(classifier, eps=EPS)
    theirs.y_target = (labels + 1) % 4
    assert torch.allclose(dlr_loss(labels)(logits, rows), theirs.dlr_loss(logits, labels), atol=1e-5)
    assert torch.allclose(targeted_dlr_loss(labels, theirs.y_target)(logits, rows),
                          theirs.dlr_loss_targeted(logits, labels), atol=1e-5)


@pytest.mark.parametrize(("classes", "loss", "warned"), [
    (2, "dlr", "needs 3 classes and found 2"), (2, "targeted-dlr", "needs 4 classes and found 2"),
    (3, "targeted-dlr", "needs 4 classes and found 3"), (2, "ce", None), (3, "dlr", None)])
def test_few_classes(classes, loss, warned, tiny_clip, images, recwarn):
    classifier = ZeroShotClassifier(tiny_clip, ["cat", "dog", "car"][:classes])
    labels = classifier(images).argmax(1)
    found = apgd(classifier, images, labels, eps=8 / 255, steps=10, loss=loss)
    assert [str(w.message) for w in recwarn if "classes" in str(w.message)] == [] if warned is None else any(
        warned in str(w.message) for w in recwarn)
    assert (classifier(found).argmax(1) != labels).any()


def test_dlr_does_not_saturate(classifier, images):
    """Logits a thousand times as large leave no cross-entropy to climb; DLR finds the same points as before."""
    labels = classifier(images).argmax(1)
    settings = {"eps": EPS, "steps": 10, "loss": "dlr", "micro_batch": 8}
    plain = apgd(classifier, images, labels, **settings)
    scaled = apgd(lambda x: 1024 * classifier(x), images, labels, **settings)
    assert torch.equal(plain, scaled)


def test_bad_input(classifier, images, labels):
    with pytest.raises(UnknownNameError, match="unknown loss of APGD 'cw'"):
        apgd(classifier, images, labels, eps=EPS, loss="cw")
    with pytest.raises(AttackSettingsError, match="steps = 0"):
        apgd(classifier, images, labels, eps=EPS, steps=0)
    with pytest.raises(AttackSettingsError, match="labels: found"):
        apgd(classifier, images, labels + 4, eps=EPS)
    with pytest.raises(PixelRangeError):
        apgd(classifier, images * 255, labels, eps=EPS)
    assert torch.equal(apgd(classifier, images, labels, eps=0), images)
