import math

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from zsar.attacks import (
    check_settings,
    cross_entropy,
    fgsm,
    from_grey_levels,
    image_seeds,
    pgd,
    pgd_until_fooled,
    quantize_inside,
)
from zsar.attacks.balls import _splitmix64, random_point, uniform
from zsar.errors import AttackSettingsError, PixelRangeError, UnknownNameError, ZsarError

EPS = 4 / 255
PGD = {"eps": EPS, "alpha": 1 / 255, "steps": 5}


@pytest.fixture
def objective(classifier, labels):
    return cross_entropy(classifier, labels)


def loss_of(objective, images):
    with torch.no_grad():
        return objective(images, torch.arange(len(images)))


def plain_pgd(classifier, images, labels, start, eps, alpha, steps):
    """The loop that the book writes out."""
    adversarial = start.clone()
    for _ in range(steps):
        adversarial.requires_grad_()
        gradient, = torch.autograd.grad(F.cross_entropy(classifier(adversarial), labels, reduction="sum"), adversarial)
        adversarial = adversarial.detach() + alpha * gradient.sign()
        adversarial = (images + (adversarial - images).clamp(-eps, eps)).clamp(0, 1)
    return adversarial


# what it computes

def test_pgd_is_the_plain_loop(classifier, objective, images, labels):
    expected = plain_pgd(classifier, images, labels, images, **PGD)
    assert torch.equal(pgd(objective, images, **PGD, random_start=False, micro_batch=8), expected)


def test_fgsm_is_one_signed_step(classifier, objective, images, labels):
    inputs = images.clone().requires_grad_()
    gradient, = torch.autograd.grad(F.cross_entropy(classifier(inputs), labels, reduction="sum"), inputs)
    expected = (images + EPS * gradient.sign()).clamp(0, 1)
    assert torch.allclose(fgsm(objective, images, eps=EPS, micro_batch=8), expected, atol=1e-7, rtol=0)


@pytest.mark.parametrize("batch", [1, 2, 4, 8])
@pytest.mark.parametrize("targeted", [False, True])
def test_pgd_is_that_of_torchattacks_bit_for_bit(batch, targeted, classifier, images, labels):
    torchattacks = pytest.importorskip("torchattacks", reason="install it with: pip install --no-deps torchattacks")
    images, labels = images[:batch], labels[:batch]
    theirs = torchattacks.PGD(classifier, eps=EPS, alpha=1 / 255, steps=10, random_start=True)
    if targeted:
        theirs.set_mode_targeted_by_label(quiet=True)
    torch.manual_seed(5)
    expected = theirs(images, labels)
    torch.manual_seed(5)
    start = (images + torch.empty_like(images).uniform_(-EPS, EPS)).clamp(0, 1)
    found = pgd(cross_entropy(classifier, labels, targeted=targeted), images, eps=EPS, alpha=1 / 255, steps=10,
                start=start, micro_batch=batch)
    assert torch.equal(found, expected)


def test_fgsm_and_momentum_are_those_of_torchattacks(classifier, objective, images, labels):
    torchattacks = pytest.importorskip("torchattacks", reason="install it with: pip install --no-deps torchattacks")
    theirs = torchattacks.FGSM(classifier, eps=EPS)(images, labels)
    assert torch.allclose(fgsm(objective, images, eps=EPS, micro_batch=8), theirs, atol=1e-7, rtol=0)
    theirs = torchattacks.MIFGSM(classifier, eps=EPS, alpha=1 / 255, steps=8, decay=0.9)(images, labels)
    ours = pgd(objective, images, eps=EPS, alpha=1 / 255, steps=8, momentum=0.9, random_start=False, micro_batch=8)
    assert torch.equal(ours, theirs)


def test_l2_is_that_of_torchattacks(classifier, objective, images, labels):
    torchattacks = pytest.importorskip("torchattacks", reason="install it with: pip install --no-deps torchattacks")
    theirs = torchattacks.PGDL2(classifier, eps=0.5, alpha=0.1, steps=10, random_start=False)(images, labels)
    ours = pgd(objective, images, eps=0.5, alpha=0.1, steps=10, norm="l2", random_start=False)
    assert torch.allclose(ours, theirs, atol=1e-5)


def test_a_target_is_approached(classifier, images, labels):
    target = (labels + 1) % 4
    attacked = pgd(cross_entropy(classifier, target, targeted=True), images, eps=16 / 255, alpha=2 / 255, steps=20)
    chance = classifier(attacked).softmax(1).gather(1, target[:, None])
    assert (chance > classifier(images).softmax(1).gather(1, target[:, None])).all()


def test_any_objective(tiny_clip, images):
    """FARE's: away from one's own embedding, without labels."""
    own = tiny_clip.encode_image(images)
    found = pgd(lambda x, index: (tiny_clip.features(x) - own[index]).square().sum(1), images, **PGD)
    noise = random_point(images, torch.arange(8), 0, EPS, "linf")
    moved = (tiny_clip.encode_image(found) - own).norm(dim=1)
    assert (moved > (tiny_clip.encode_image(noise) - own).norm(dim=1)).all()


# what holds of every attack

@settings(max_examples=25, deadline=None)
@given(eps_255=st.floats(0.1, 40), ratio=st.floats(0.1, 3), steps=st.integers(1, 3),
       norm=st.sampled_from(["linf", "l2"]), momentum=st.sampled_from([0.0, 0.9]), random_start=st.booleans())
def test_inside_the_ball_and_the_pixel_range(eps_255, ratio, steps, norm, momentum, random_start, classifier, images,
                                             labels):
    eps = eps_255 / 255 * (10 if norm == "l2" else 1)
    found = pgd(cross_entropy(classifier, labels[:3]), images[:3], eps=eps, alpha=ratio * eps, steps=steps, norm=norm,
                momentum=momentum, random_start=random_start, micro_batch=3)
    assert found.min() >= 0 and found.max() <= 1 and found.dtype == torch.float32
    change = (found - images[:3]).flatten(1).norm(dim=1, p=math.inf if norm == "linf" else 2)
    assert change.max() <= eps + 1e-6
    assert change.min() > 0


@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_eps_zero_is_the_identity(norm, objective, images):
    found = pgd(objective, images, eps=0, alpha=0, steps=3, norm=norm)
    assert torch.equal(found, images) and found is not images


def test_stronger_settings_raise_the_loss(objective, images):
    attacked = [images, *(pgd(objective, images, eps=EPS, alpha=1 / 255, steps=steps, random_start=False)
                          for steps in (1, 2, 4, 20)), pgd(objective, images, eps=4 * EPS, alpha=EPS, steps=10)]
    losses = [loss_of(objective, each).sum() for each in attacked]
    assert all(weaker < stronger for weaker, stronger in zip(losses, losses[1:], strict=False))


def test_labels_starts_and_seeds_must_fit(classifier, images):
    with pytest.raises(AttackSettingsError, match="found -100 to 3, expected 0 to 3"):
        cross_entropy(classifier, torch.tensor([-100, 3]))
    objective = cross_entropy(classifier, torch.zeros(len(images), dtype=torch.int64))
    for wrong in ({"start": images[:1]}, {"seeds": torch.arange(2)}):
        with pytest.raises(AttackSettingsError, match="expected"):
            pgd(objective, images, eps=EPS, alpha=EPS, steps=1, **wrong)


def test_the_best_restart_is_kept_per_image(objective, images):
    runs = [loss_of(objective, pgd(objective, images, **PGD, restarts=n, micro_batch=8)) for n in (1, 2, 4)]
    assert (runs[1] >= runs[0]).all() and (runs[2] >= runs[1]).all() and (runs[2] > runs[0]).any()


def test_the_model_is_left_as_found(tiny_clip, images, labels, classifier):
    weight = tiny_clip.model.visual.conv1.weight
    weight.requires_grad_(True)
    classifier.train()
    try:
        with torch.no_grad():  # as an evaluation loop would call it
            pgd(cross_entropy(classifier, labels), images, **PGD)
        assert weight.requires_grad and weight.grad is None and classifier.training
        assert not images.requires_grad and images.grad is None
    finally:
        weight.requires_grad_(False)
        classifier.eval()


def test_the_global_random_state_is_not_touched(objective, images):
    state = torch.random.get_rng_state()
    pgd(objective, images, **PGD, restarts=2)
    assert torch.equal(state, torch.random.get_rng_state())


# one image's result is its own

def test_the_result_does_not_depend_on_the_batch(classifier, images, labels):
    seeds = image_seeds([f"picture {i}" for i in range(8)])
    for norm in ("linf", "l2"):
        kwargs = {**PGD, "norm": norm, "restarts": 2, "micro_batch": 5}
        whole = pgd(cross_entropy(classifier, labels), images, seeds=seeds, **kwargs)
        order = torch.tensor([6, 2, 7, 0, 3, 1, 5, 4])
        for size in (1, 2, 3, 8):
            parts = [pgd(cross_entropy(classifier, labels[rows]), images[rows], seeds=seeds[rows], **kwargs)
                     for rows in order.split(size)]
            assert torch.equal(torch.cat(parts), whole[order])


def test_random_starts_are_uniform_in_the_ball():
    clean = torch.full((4, 3, 32, 32), 0.5)
    change = (random_point(clean, torch.arange(4), 0, 0.1, "linf") - clean) / 0.1
    values = change.flatten().sort().values
    assert (values - torch.linspace(-1, 1, len(values))).abs().max() < 0.02  # Kolmogorov-Smirnov, p about 0.01
    lengths = (random_point(clean, torch.arange(4), 0, 0.1, "l2") - clean).flatten(1).norm(dim=1)
    assert (lengths <= 0.1 + 1e-6).all() and (lengths > 0.09).all()  # nearly all of a ball's volume is at its surface


def test_starts_differ_by_image_by_restart_and_by_seed():
    clean = torch.full((2, 3, 8, 8), 0.5)
    starts = [*random_point(clean, torch.tensor([0, 1]), 0, EPS, "linf"),
              *random_point(clean, torch.tensor([0, 1]), 1, EPS, "linf"),
              *random_point(clean, image_seeds(["a", "b"], seed=1), 0, EPS, "linf")]
    flat = torch.stack(starts).flatten(1)
    assert (torch.corrcoef(flat - 0.5) - torch.eye(6)).abs().max() < 0.3
    assert len(set(image_seeds(["a", "b"], 0).tolist() + image_seeds(["a", "b"], 1).tolist())) == 4


def test_the_hash_is_splitmix64():
    """Against its definition in plain integers, and the published first output for seed 0."""
    def reference(x):
        wrap = (1 << 64) - 1
        x = x + 0x9E3779B97F4A7C15 & wrap
        x = (x ^ x >> 30) * 0xBF58476D1CE4E5B9 & wrap
        x = (x ^ x >> 27) * 0x94D049BB133111EB & wrap
        return x ^ x >> 31

    numbers = [0, 1, 2**62, -1, -(2**63), 123456789123456789]
    found = [x % (1 << 64) for x in _splitmix64(torch.tensor(numbers)).tolist()]
    assert found == [reference(x % (1 << 64)) for x in numbers] and found[0] == 0xE220A8397B1DCDAF
    numbers_found = uniform(torch.zeros(2, 3, 4, 4), torch.tensor([5, 6]), 0)
    assert numbers_found.min() >= 0 and numbers_found.max() < 1 and numbers_found.unique().numel() == 96


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU here")
def test_random_starts_are_the_same_bits_on_the_gpu(images):
    seeds = image_seeds([str(i) for i in range(8)])
    there = random_point(images.cuda(), seeds.cuda(), 3, EPS, "linf").cpu()
    assert torch.equal(there, random_point(images, seeds, 3, EPS, "linf"))


# the 8-bit grid

@settings(max_examples=60, deadline=None)
@given(st.integers(0, 2**31), st.one_of(st.integers(0, 40), st.floats(0, 40)), st.floats(0, 1.5))
def test_quantized_images_are_on_the_grid_inside_the_ball(seed, eps_255, reach):
    random = torch.Generator().manual_seed(seed)
    clean = torch.randint(0, 256, (2, 3, 5, 5), generator=random) / 255
    noise = 2 * torch.rand(clean.shape, generator=random) - 1
    adversarial = (clean + reach * eps_255 / 255 * noise).clamp(0, 1)
    found = quantize_inside(adversarial, clean, eps_255)
    levels = (found.double() * 255).round()
    assert torch.equal((levels / 255).float(), found) and found.min() >= 0 and found.max() <= 1
    assert ((levels - (clean.double() * 255).round()).abs() <= eps_255 + 1e-4).all()
    if reach <= 1 and eps_255 == int(eps_255):  # rounding alone stays inside
        assert torch.equal(levels, (adversarial.double() * 255).round())
    assert torch.equal(quantize_inside(found, clean, eps_255), found)


def test_no_grid_point_in_the_ball():
    clean = torch.full((1, 3, 2, 2), 100.5 / 255)
    with pytest.raises(AttackSettingsError, match="no 8-bit value"):
        quantize_inside(clean, clean, 0.3)


def test_whole_steps_from_an_8_bit_picture_stay_on_the_grid(objective, images):
    clean = (images * 255).round() / 255
    found = pgd(objective, clean, eps=EPS, alpha=1 / 255, steps=9, random_start=False)
    assert torch.allclose(quantize_inside(found, clean, 4), found, atol=1e-6)


# bad settings

@pytest.mark.parametrize(("changes", "message"), [
    ({"eps": -1 / 255}, "eps = -0.0039"), ({"eps": 4}, r"did you mean 4 / 255\?"), ({"alpha": 2}, "alpha = 2 .*255"),
    ({"alpha": -1e-3}, "alpha"), ({"alpha": 0}, "goes nowhere"), ({"eps": math.nan}, "eps = nan"),
    ({"eps": math.inf}, "eps = inf"), ({"steps": 0}, "steps = 0"), ({"steps": 2.5}, "steps = 2.5"),
    ({"restarts": 0}, "restarts = 0"), ({"momentum": -0.1}, "momentum")])
def test_bad_settings(changes, message, objective, images):
    for call in (lambda **kw: check_settings(**kw), lambda **kw: pgd(objective, images, **kw)):
        with pytest.raises(AttackSettingsError, match=message):
            call(**PGD | changes)


def test_unknown_norm(objective, images):
    with pytest.raises(UnknownNameError, match="norm 'l1'.*l2"):
        pgd(objective, images, **PGD, norm="l1")


def test_restarts_need_random_starts(objective, images):
    with pytest.raises(AttackSettingsError, match="2 restarts from one start"):
        pgd(objective, images, **PGD, restarts=2, random_start=False)


@pytest.mark.parametrize("eps_255", [-1, 256, math.nan])
def test_grey_levels_outside_0_to_255(eps_255):
    with pytest.raises(AttackSettingsError, match="expected grey levels from 0 to 255"):
        from_grey_levels(eps_255)


def test_images_are_checked_at_the_door(objective, images):
    with pytest.raises(PixelRangeError, match="divide by 255"):
        pgd(objective, images * 255, **PGD)


def test_an_objective_must_keep_images_apart(classifier, images, labels):
    with pytest.raises(AttackSettingsError, match="one number an image"):
        pgd(lambda x, index: F.cross_entropy(classifier(x), labels[index]), images, **PGD, micro_batch=8)


def test_a_gradient_of_nan_is_told(images):
    with pytest.raises(ZsarError, match="NaN"):
        pgd(lambda x, index: (x.sum((1, 2, 3)) * 0).log() * math.nan, images, **PGD)


def test_until_fooled_is_the_worst_of_all_iterates(classifier, images, labels):
    """An image counts as right only if it is so clean, at its random start, and after every number of steps."""
    settings, seeds = {"eps": 4 / 255, "alpha": 1 / 255}, torch.arange(8) + 5
    labels = classifier(images).argmax(1)
    labels[:2] = (labels[:2] + 1) % 4  # two that are wrong from the beginning
    objective = cross_entropy(classifier, labels)
    worst = pgd_until_fooled(classifier, images, labels, steps=6, seeds=seeds, micro_batch=3, **settings)
    runs = [images, pgd(objective, images, steps=1, seeds=seeds, eps=4 / 255, alpha=1e-12)]
    runs += [pgd(objective, images, steps=steps, seeds=seeds, **settings) for steps in range(1, 7)]
    right = torch.stack([classifier(run).argmax(1) == labels for run in runs]).all(0)
    assert torch.equal(classifier(worst).argmax(1) == labels, right)
    assert torch.equal(worst[:2], images[:2]) and 0 < right.sum() < 6
    assert (worst - images).abs().max() <= 4 / 255 + 1e-6 and worst.min() >= 0 and worst.max() <= 1


def test_until_fooled_does_not_depend_on_neighbours(classifier, images, labels):
    settings, seeds = {"eps": 2 / 255, "alpha": .5 / 255, "steps": 5, "micro_batch": 4}, torch.arange(8)
    whole = pgd_until_fooled(classifier, images, labels, seeds=seeds, **settings)
    parts = [pgd_until_fooled(classifier, images[[i]], labels[[i]], seeds=seeds[[i]], **settings) for i in range(8)]
    assert torch.equal(whole, torch.cat(parts))
    assert torch.equal(pgd_until_fooled(classifier, images, labels, eps=0, alpha=0, steps=3), images)
