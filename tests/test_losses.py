"""Losses: each against its formula written out again, row by row, and who gets gradients from it."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from made_up import made_up

from zsar.adapt import adapt
from zsar.attacks import pgd
from zsar.clip import Clip
from zsar.errors import AdaptationError, UnknownNameError
from zsar.losses import (
    FARE,
    FAST_HEAD_RATE,
    LOSSES,
    Adv,
    AdvFixed,
    Clean,
    CoAdv,
    ImgCoAdv,
    Loss,
    TeCoA,
    UnlabelledTeCoA,
    get_loss,
)
from zsar.methods import make_student, trainable
from zsar.recipes import Recipe

WITH_PARAMETERS = {"adv", "adv-slow", "adv-prefit", "coadv"}
ROWS = torch.tensor([5, 0, 3, 3, 7])


@pytest.fixture(params=LOSSES)
def name(request) -> str:
    return request.param


@pytest.fixture
def text(classifier) -> torch.Tensor:
    return classifier.text_features


@pytest.fixture
def student(tiny_clip) -> Clip:
    """A CLIP that has moved away from the original."""
    student = make_student(tiny_clip, "finetune")
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for value in trainable(student).values():
            value += 0.05 * torch.randn(value.shape, generator=generator)
    return student


@pytest.fixture
def attacked(images) -> torch.Tensor:
    return (images + 0.1 * torch.randn(images.shape, generator=torch.Generator().manual_seed(2))).clamp(0, 1)


@torch.no_grad()
def prepared(loss: Loss, student: Clip, images: torch.Tensor, labels: torch.Tensor):
    return loss.prepare(student, images, labels)


# the formulas, once more

def numbers(tensor: torch.Tensor) -> np.ndarray:
    return tensor.detach().double().numpy()


def unit(vectors: np.ndarray) -> np.ndarray:
    return vectors / np.sqrt((vectors**2).sum(1, keepdims=True))


def cross_entropies(logits: np.ndarray, labels: torch.Tensor) -> np.ndarray:
    """-log( exp(l_y) / sum_k exp(l_k) ), image by image."""
    return np.array([np.log(np.exp(row - row[y]).sum()) for row, y in zip(logits, labels.tolist(), strict=True)])


def by_hand(name: str, loss: Loss, original: Clip, student: Clip, images, attacked, labels) -> np.ndarray:
    """The formula of the docstring for each image, in double precision."""
    s = np.exp(original.model.logit_scale.item())
    with torch.no_grad():
        f_a, f, f_0 = (numbers(clip.embed(x)) for clip, x in ((student, attacked), (student, images),
                                                               (original, images)))
    z_a, z, u = unit(f_a), unit(f), unit(numbers(loss.text))
    if name == "fare":
        return ((f_a - f_0)**2).sum(1)
    if name == "imgcoadv":
        found = []
        for i, y in enumerate(labels.tolist()):
            exponentials = np.exp(s * z @ z_a[i])
            positives = [j for j, other in enumerate(labels.tolist()) if other == y]
            found.append(-np.mean([np.log(exponentials[j] / exponentials.sum()) for j in positives]))
        return np.array(found)
    if name == "tecoa-unlabelled":
        labels = torch.from_numpy((unit(f_0) @ u.T).argmax(1))
    classes = {"coadv": lambda: unit(numbers(loss.classes)), "adv-random": lambda: numbers(loss.vectors),
               "adv-onehot": lambda: np.eye(16)[:4]}.get(name, lambda: u)()
    if name in ("adv", "adv-slow", "adv-prefit"):
        return cross_entropies(z_a @ numbers(loss.weight).T + numbers(loss.bias), labels)
    return cross_entropies(s * z_a @ classes.T, labels)


def test_each_loss_is_its_formula(name, tiny_clip, student, text, images, attacked, labels):
    labels = labels.clone()
    labels[4:] = torch.tensor([0, 0, 1, 3])  # classes of three, two and one image
    loss = get_loss(name)(tiny_clip, text, 0)
    with torch.no_grad():
        for value in trainable(loss).values():  # not where it starts: a bias of zero or a unit vector could be dropped
            value += torch.randn(value.shape, generator=torch.Generator().manual_seed(4))
    expected = by_hand(name, loss, tiny_clip, student, images, attacked, labels)
    targets = prepared(loss, student, images, labels)
    found = loss.per_image(student.embed(attacked), targets, torch.arange(8))
    assert numbers(found) == pytest.approx(expected, rel=1e-4, abs=1e-5)
    assert loss(student, images, attacked, targets).item() == pytest.approx(expected.mean(), rel=1e-4)
    assert numbers(loss.objective(student, targets)(attacked, torch.arange(8))) == pytest.approx(expected, rel=1e-4)


def test_rows_say_which_images_are_meant(name, tiny_clip, student, text, images, attacked, labels):
    loss = get_loss(name)(tiny_clip, text, 0)
    targets = prepared(loss, student, images, labels)
    everything = loss.per_image(student.embed(attacked), targets, torch.arange(8))
    some = loss.objective(student, targets)(attacked[ROWS], ROWS)
    assert everything.shape == (8,)
    assert everything.dtype == torch.float32
    assert len(everything.unique()) == 8
    assert torch.allclose(some, everything[ROWS], atol=1e-5)


def test_losses_are_float32_under_autocast(name, tiny_clip, student, text, images, attacked, labels):
    loss = get_loss(name)(tiny_clip, text, 0)
    exact = loss(student, images, attacked, prepared(loss, student, images, labels))
    with torch.autocast("cpu", torch.bfloat16):
        targets = prepared(loss, student, images, labels)
        half = loss(student, images, attacked, targets)
    half.backward()
    assert half.dtype == torch.float32
    assert half.item() == pytest.approx(exact.item(), rel=0.1)
    assert all(value.grad.isfinite().all() for value in trainable(student).values())


def test_unlabelled_asks_the_original_about_the_clean_image(tiny_clip, student, text, images, attacked):
    loss = UnlabelledTeCoA(tiny_clip, text)
    no_labels = torch.full((8,), -1)
    answers = {clip.name: (clip.features(x) @ text.T).argmax(1)
               for clip, x in ((tiny_clip, images), (student, images))}
    assert not torch.equal(answers["tiny"], answers[student.name])
    assert torch.equal(prepared(loss, student, images, no_labels), answers["tiny"])
    assert torch.equal(prepared(loss, student, images, torch.arange(8)), answers["tiny"])


def test_fare_and_unlabelled_look_at_no_label(tiny_clip, student, text, images, attacked, labels):
    for make in (FARE, UnlabelledTeCoA):
        loss = make(tiny_clip, text)
        values = [loss(student, images, attacked, prepared(loss, student, images, y)) for y in (labels, labels.flip(0))]
        assert torch.equal(*values)


def test_fare_is_zero_for_the_original_and_minds_length(tiny_clip, text, images, labels):
    loss = FARE(tiny_clip, text)
    targets = prepared(loss, tiny_clip, images, labels)
    rows = torch.arange(8)
    assert loss.per_image(targets, targets, rows).eq(0).all()
    assert torch.allclose(loss.per_image(2 * targets, targets, rows), targets.square().sum(1))


@pytest.mark.parametrize("name", [name for name in LOSSES if name != "fare"])
def test_all_but_fare_mind_directions_only(name, tiny_clip, student, text, images, labels):
    loss = get_loss(name)(tiny_clip, text, 0)
    targets, embeddings, rows = prepared(loss, student, images, labels), student.embed(images), torch.arange(8)
    assert torch.allclose(loss.per_image(3 * embeddings, targets, rows), loss.per_image(embeddings, targets, rows),
                          atol=1e-5)


# attack up, training down

@pytest.mark.parametrize("name", [name for name in LOSSES if name != "clean"])
def test_the_attack_raises_what_training_lowers(name, tiny_clip, student, text, images, labels):
    loss = get_loss(name)(tiny_clip, text, 0)
    targets, rows = prepared(loss, student, images, labels), torch.arange(8)
    objective = loss.objective(student, targets)
    adversarial = pgd(objective, images, eps=8 / 255, alpha=4 / 255, steps=3, seeds=rows, micro_batch=8)
    with torch.no_grad():
        assert (objective(adversarial, rows) > objective(images, rows)).all()
    optimizer = torch.optim.SGD([*trainable(student).values(), *trainable(loss).values()], lr=1e-3)
    before = loss(student, images, adversarial, targets)
    before.backward()
    optimizer.step()
    assert loss(student, images, adversarial, targets) < before


def test_only_clean_is_not_attacked(name, tiny_clip, text):
    assert get_loss(name)(tiny_clip, text).attacked == (name != "clean")


def test_clean_is_tecoa_of_clean_images(tiny_clip, student, text, images, labels):
    values = [make(tiny_clip, text)(student, images, images, labels) for make in (Clean, TeCoA)]
    assert torch.equal(*values)


# gradients

def test_who_gets_gradients(name, tiny_clip, student, text, images, attacked, labels):
    digest = tiny_clip.digest
    loss = get_loss(name)(tiny_clip, text, 0)
    assert bool(trainable(loss)) == (name in WITH_PARAMETERS)
    loss(student, images, attacked, prepared(loss, student, images, labels)).backward()
    assert all(value.grad.abs().sum() > 0 for value in trainable(student).values())
    assert all(value.grad.abs().sum() > 0 for value in loss.parameters())
    assert not [n for n, value in tiny_clip.named_parameters() if value.grad is not None]
    assert not [n for n, value in student.named_parameters() if value.grad is not None and ".visual." not in n]
    assert loss.text.grad is None
    assert not loss.text.requires_grad
    assert tiny_clip.digest == digest


def test_the_original_and_the_text_are_not_saved_with_a_loss(name, tiny_clip, text):
    loss = get_loss(name)(tiny_clip, text, 0)
    assert loss.state_dict().keys() == trainable(loss).keys()
    assert loss.original is tiny_clip


def test_the_clean_embeddings_of_imgcoadv_are_the_students_and_held_constant(tiny_clip, student, text, images, labels):
    loss = ImgCoAdv(tiny_clip, text)
    keys, positives = prepared(loss, student, images, labels)
    assert torch.allclose(keys, student.features(images), atol=1e-6)
    assert not keys.requires_grad
    assert torch.equal(positives, torch.eye(4).repeat(2, 2) / 2)


# heads and class vectors

@pytest.mark.parametrize("name", ["adv", "adv-slow", "adv-prefit", "adv-random", "coadv"])
def test_random_starts_come_from_the_seed(name, tiny_clip, text):
    def start(seed: int, world: int = 0) -> torch.Tensor:
        with torch.random.fork_rng():
            torch.manual_seed(world)  # which has no say
            loss = get_loss(name)(tiny_clip, text, seed)
        return next(value for key, value in (*loss.named_parameters(), *loss.named_buffers()) if key != "text").detach()

    assert torch.equal(start(0), start(0, world=1))
    assert not torch.allclose(start(0), start(1))


def test_making_a_loss_leaves_the_global_generator_alone(name, tiny_clip, text):
    state = torch.get_rng_state()
    get_loss(name)(tiny_clip, text, 3)
    assert torch.equal(torch.get_rng_state(), state)


def test_fixed_vectors_are_unit_vectors_and_know_no_text(tiny_clip, text):
    for vectors in ("random", "one-hot"):
        losses = [AdvFixed(tiny_clip, words, vectors=vectors) for words in (text, text.flip(0))]
        assert torch.allclose(losses[0].vectors.norm(dim=1), torch.ones(4))
        assert torch.equal(losses[0].vectors, losses[1].vectors)
    assert torch.equal(losses[0].vectors, torch.eye(16)[:4])


def test_one_hot_vectors_need_as_many_dimensions_as_classes(tiny_clip):
    assert AdvFixed(tiny_clip, torch.eye(16), vectors="one-hot").vectors.shape == (16, 16)
    with pytest.raises(AdaptationError, match="17 classes do not fit into 16 dimensions; use adv-random"):
        AdvFixed(tiny_clip, torch.randn(17, 16), vectors="one-hot")
    assert AdvFixed(tiny_clip, torch.randn(17, 16)).vectors.shape == (17, 16)


@pytest.mark.parametrize(("make", "option", "known"), [(Adv, "head", "fast"), (AdvFixed, "vectors", "one-hot")])
def test_unknown_options_are_refused(tiny_clip, text, make, option, known):
    with pytest.raises(UnknownNameError, match=f"unknown {option} 'onehot': expected one of .*{known}"):
        make(tiny_clip, text, **{option: "onehot"})


def test_rates_of_the_heads(tiny_clip, text):
    rates = {name: get_loss(name)(tiny_clip, text).head_rate("adamw") for name in sorted(WITH_PARAMETERS)}
    assert rates == {"adv": FAST_HEAD_RATE["adamw"], "adv-slow": None, "adv-prefit": None,
                     "coadv": FAST_HEAD_RATE["adamw"]}
    assert CoAdv(tiny_clip, text).head_rate("sgd") == FAST_HEAD_RATE["sgd"] > FAST_HEAD_RATE["adamw"]


def clusters(n: int = 200) -> tuple[torch.Tensor, torch.Tensor]:
    """Unit features [n, 16] of four classes that overlap a little, and their labels."""
    generator, labels = torch.Generator().manual_seed(0), torch.arange(n) % 4
    centres = torch.randn(4, 16, generator=generator)
    return F.normalize(centres[labels] + 0.8 * torch.randn(n, 16, generator=generator), dim=1), labels


def accuracy(loss: Adv, features: torch.Tensor, labels: torch.Tensor) -> float:
    logits = F.linear(features, loss.weight, loss.bias)
    return (logits.argmax(1) == labels).float().mean().item()


def test_a_prefit_head_fits_and_leaves_no_gradient(tiny_clip, text):
    features, labels = clusters()
    loss = get_loss("adv-prefit")(tiny_clip, text, 0)
    before = accuracy(loss, features, labels)
    with torch.no_grad():  # as a trainer may well call it
        loss.fit(features, labels)
    assert accuracy(loss, features, labels) > max(0.9, before + 0.3)
    assert all(value.grad is None and value.requires_grad for value in loss.parameters())
    gradients = torch.autograd.grad(F.cross_entropy(F.linear(features, loss.weight, loss.bias), labels)
                                    + 1e-5 * loss.weight.square().sum(), [*loss.parameters()])
    assert max(gradient.abs().max() for gradient in gradients) < 1e-3


@pytest.mark.parametrize("name", LOSSES)
def test_no_other_loss_is_fitted(name, tiny_clip, text):
    assert get_loss(name)(tiny_clip, text, 0).fitted == (name == "adv-prefit")


def test_logits_are_float32_under_autocast(tiny_clip, text, monkeypatch):
    """Eight bits of a logit would name another of two texts that are near, and lose what a head has learned."""
    seen = []
    linear = F.linear
    monkeypatch.setattr(F, "linear", lambda *args: seen.append(linear(*args)) or seen[-1])
    adv, embeddings = get_loss("adv")(tiny_clip, text, 0), torch.randn(4, text.shape[1])
    images = torch.rand(4, 3, tiny_clip.image_size, tiny_clip.image_size)
    unlabelled = get_loss("tecoa-unlabelled")(tiny_clip, text, 0)
    wanted = unlabelled.prepare(tiny_clip, images, None)
    asked, features = [], type(tiny_clip).features
    monkeypatch.setattr(type(tiny_clip), "features", lambda self, images: asked.append(
        torch.is_autocast_enabled("cpu")) or features(self, images))
    with torch.autocast("cpu", torch.bfloat16), torch.no_grad():
        adv.per_image(embeddings.bfloat16(), torch.zeros(4, dtype=torch.int64), torch.arange(4))
        assert seen[-1].dtype == torch.float32
        assert torch.equal(unlabelled.prepare(tiny_clip, images, None), wanted)
    assert asked == [False]


# names and words

def test_each_loss_says_what_it_is(name, tiny_clip, text):
    loss = get_loss(name)(tiny_clip, text)
    assert loss.attack_maximises and loss.training_minimises and loss.source
    assert (loss.attack_maximises == loss.training_minimises) == loss.attacked
    own = name.startswith("adv") or name in ("coadv", "imgcoadv")
    assert own == ("this project's own" in " ".join(type(loss).__doc__.split()))
    assert own == ("this definition is this project's own" in loss.source)
    assert any(sign in type(loss).__doc__ for sign in ("CE(", "log(", "|F(x_a)", "argmax"))


@pytest.mark.parametrize(("unknown", "nearest"), [("teco", "tecoa"), ("TeCoA", "tecoa"), ("imgcoav", "imgcoadv"),
                                                  ("adv-one-hot", "adv-onehot"), ("FARE", "fare")])
def test_an_unknown_loss_is_told_the_nearest(unknown, nearest):
    with pytest.raises(UnknownNameError, match=f"unknown loss {unknown!r}: did you mean .*{nearest}") as caught:
        get_loss(unknown)
    assert "\n" not in str(caught.value)


class Cosine(Loss):
    """A reader's own: 1 - <z_a, u_y>."""

    def per_image(self, embeddings: torch.Tensor, targets: torch.Tensor, rows: torch.Tensor) -> torch.Tensor:
        return 1 - (F.normalize(embeddings, dim=-1) * self.text[targets[rows]]).sum(1)


def test_a_readers_own_loss_trains_without_touching_the_package(tiny_clip):
    recipe = Recipe(batch=8, steps=2, warmup=0, held_out=8, validate_every=2, lr=1e-3)
    before = dict(LOSSES)
    adapted = adapt(tiny_clip, made_up(48), loss=Cosine, recipe=recipe)
    losses = [value for _, value in adapted.history.losses]
    assert len(losses) == 2
    assert all(0 < value < 2 for value in losses)
    assert adapted.settings["loss"] == "Cosine"
    assert adapted.clip.digest != tiny_clip.digest
    assert before == LOSSES
