"""Faster gradients: answers stay those of the exact classifier, and what the machine lacks is said."""

import copy

import pytest
import torch

from zsar import fast as module
from zsar.attacks import apgd, misclassified, pgd, pgd_until_fooled
from zsar.attacks.objectives import cross_entropy
from zsar.clip import ZeroShotClassifier
from zsar.errors import PrecisionError, UnknownNameError
from zsar.evaluate import Room, answer, predict
from zsar.fast import FastClassifier, check_precision, cpu_has_bf16, fast, in_half

EPS = 4 / 255


@pytest.fixture
def bf16(classifier):
    with pytest.warns() if not cpu_has_bf16() else pytest.MonkeyPatch.context():
        return FastClassifier(classifier, "bf16")


@pytest.fixture
def uncompiled():
    module.compiled_embedding.cache_clear()
    yield
    module.compiled_embedding.cache_clear()


def test_nothing_to_change_is_the_classifier_itself(classifier):
    assert fast(classifier) is classifier


def test_bf16_climbs_the_same_way(bf16, classifier, images, labels):
    """The signs of its gradients are those of fp32 for all but a few pixels; logits and images stay float32."""
    points = [images.clone().requires_grad_() for _ in range(2)]
    signs = [torch.autograd.grad(cross_entropy(c, labels)(x, torch.arange(8)).sum(), x)[0].sign()
             for c, x in zip((bf16, classifier), points, strict=True)]
    assert (signs[0] == signs[1]).float().mean() > .97
    assert bf16.logits(images).dtype == torch.float32 and not torch.equal(bf16.logits(images), classifier(images))


@pytest.mark.filterwarnings("ignore:precision bf16")
def test_half_precision_has_the_weights_of_now(tiny_clip, images):
    clip = copy.deepcopy(tiny_clip)
    before = FastClassifier(ZeroShotClassifier(clip, ["cat", "dog"]), "bf16").logits(images)
    with torch.no_grad():
        clip.model.visual.proj.neg_()
    halved = in_half(clip)
    assert halved is in_half(clip) and halved.model.visual.conv1.weight.dtype == torch.bfloat16
    assert halved.model.token_embedding.weight is clip.model.token_embedding.weight
    assert halved.model.visual.ln_post.weight.dtype == clip.model.visual.conv1.weight.dtype == torch.float32
    after = FastClassifier(ZeroShotClassifier(clip, ["cat", "dog"]), "bf16").logits(images)
    assert torch.allclose(after, -before, atol=1e-3)


def test_answers_are_exact(bf16, classifier, images):
    assert torch.equal(predict(bf16, images), predict(classifier, images)) and not bf16.training
    found = answer(bf16, lambda model, x, y, s, micro_batch: pgd_until_fooled(
        model, x, y, eps=EPS, alpha=EPS / 4, steps=3, micro_batch=micro_batch), images, torch.arange(8) % 4,
        torch.arange(8), Room(torch.device("cpu"), 8))
    assert found.passes >= 8 * 3  # those of the exact classifier are counted too


@pytest.mark.parametrize("attack", [lambda *given: pgd_until_fooled(*given, eps=EPS, alpha=EPS / 4, steps=5),
                                    lambda *given: apgd(*given, eps=EPS, steps=5)])
def test_the_exact_classifier_says_who_is_fooled(attack, classifier, images):
    """A fast one that calls everything fooled at once must not end the attack."""
    class Liar:
        exact = classifier

        def __call__(self, pictures):
            logits = classifier(pictures)
            return logits - 1e4 * torch.nn.functional.one_hot(logits.argmax(1), 4)

    labels = classifier(images).argmax(1)
    found = attack(Liar(), images, labels)
    moved = (found - images).abs().amax((1, 2, 3))
    assert (moved > 0).all()  # none was let go at the clean image
    assert torch.equal(misclassified(Liar(), found, labels), misclassified(classifier, found, labels))


def test_compiled_gives_the_same(classifier, images, labels, uncompiled):
    compiled = FastClassifier(classifier, compiled=True)
    plain = pgd(cross_entropy(classifier, labels), images, eps=EPS, alpha=EPS / 4, steps=2, micro_batch=8)
    found = pgd(cross_entropy(compiled, labels), images, eps=EPS, alpha=EPS / 4, steps=2, micro_batch=8)
    assert (found != plain).float().mean() < .02


def test_a_machine_that_cannot_compile_goes_on(classifier, images, monkeypatch, uncompiled, recwarn):
    def broken(run, **options):
        def fails(pixels):
            raise RuntimeError("no compiler\nin sight")
        return fails

    monkeypatch.setattr(torch, "compile", broken)
    compiled = FastClassifier(classifier, compiled=True)
    for _ in range(2):
        assert torch.equal(compiled.logits(images), classifier(images))
    said = [str(w.message) for w in recwarn if "torch.compile" in str(w.message)]
    assert said == ["torch.compile does not work here, going on without it: no compiler"]


def test_precisions_are_checked(monkeypatch):
    with pytest.raises(UnknownNameError, match="expected one of bf16, fp32"):
        check_precision("fp16", torch.device("cpu"))
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation: False)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: "Tesla T4")
    with pytest.raises(PrecisionError, match="Tesla T4 has no bfloat16"):
        check_precision("bf16", torch.device("cuda"))
    monkeypatch.setattr(module, "cpu_has_bf16", lambda: False)
    with pytest.warns(UserWarning, match="no instructions for it"):
        check_precision("bf16", torch.device("cpu"))
