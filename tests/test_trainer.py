"""The loop: its update is the one on paper, nothing of the attack gets into it, and a stopped run goes on."""

import copy
import math
import signal
from dataclasses import asdict, replace
from functools import partial

import numpy as np
import open_clip
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from made_up import NAMES, made_up
from test_training import full_disk, main_thread
from torch.utils._python_dispatch import TorchDispatchMode

from zsar import trainer as module
from zsar.attacks import pgd
from zsar.clip import Clip, ZeroShotClassifier
from zsar.datasets import ImageDataset
from zsar.errors import AdaptationError, AttackSettingsError, CheckpointError, DivergenceError, OutputError, PromptError
from zsar.losses import LOSSES, Adv, Loss, TeCoA, code_digest, loss_name
from zsar.methods import load_adapted, trainable
from zsar.recipes import Recipe
from zsar.trainer import CHECKPOINT, History, Trainer, criterion, rows_at

RECIPE = Recipe(batch=8, steps=9, warmup=3, held_out=12, validate_every=5, pad=2, tokens=3, lr=3e-3, seed=5)


@pytest.fixture(scope="module")
def source():
    return made_up(60)


def weights_of(trainer):
    return {name: value.detach().clone() for name, value in
            [*trainer.student.model.named_parameters(), *trainer.loss.named_parameters()]}


def same(a, b):
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


# the update

def by_hand(clip, source, recipe):
    """TeCoA by finetuning, as it stands in textbooks: the weights after each step."""
    clip, texts = copy.deepcopy(clip), ZeroShotClassifier(clip, source.classnames, source.templates).text_features
    train = source.hold_out(recipe.held_out)[0]
    weights = list(clip.model.visual.requires_grad_(True).parameters())
    first, second = ([torch.zeros_like(value) for value in weights] for _ in range(2))
    for step in range(recipe.steps):
        images, labels = (torch.stack(part) if torch.is_tensor(part[0]) else torch.tensor(part) for part in
                          zip(*train.__getitems__(rows_at(step, len(train), recipe)), strict=True))

        def losses(pixels, rows, labels=labels):
            return F.cross_entropy(clip.logit_scale * clip.features(pixels) @ texts.T, labels[rows], reduction="none")

        seeds = torch.arange(recipe.batch) + step * recipe.batch + recipe.seed * 2**40
        attacked = pgd(losses, images, eps=4 / 255, alpha=4 / 255, steps=2, seeds=seeds, micro_batch=recipe.batch)
        gradients = torch.autograd.grad(losses(attacked, torch.arange(recipe.batch)).mean(), weights)
        up, down = (step + 1) / recipe.warmup, (step - recipe.warmup) / (recipe.steps - recipe.warmup)
        rate = recipe.lr * (up if up < 1 or step < recipe.warmup else (1 + math.cos(math.pi * down)) / 2)
        with torch.no_grad():
            for w, g, m, v in zip(weights, gradients, first, second, strict=True):
                decay = recipe.weight_decay * (w.ndim >= 2)
                if recipe.optimizer == "sgd":
                    m.mul_(recipe.momentum).add_(g + decay * w)
                    w -= rate * m
                else:
                    w *= 1 - rate * decay
                    m.mul_(.9).add_(.1 * g)
                    v.mul_(.999).add_(.001 * g * g)
                    w -= rate * (m / (1 - .9**(step + 1))) / ((v / (1 - .999**(step + 1))).sqrt() + 1e-8)
    return clip.model.state_dict()


@pytest.mark.parametrize("optimizer", ["sgd", "adamw"])
def test_the_update_is_the_one_on_paper(optimizer, tiny_clip, source):
    recipe = replace(RECIPE, optimizer=optimizer, steps=4, warmup=2, weight_decay=.1, lr=1e-2, keep="last")
    trained = Trainer(tiny_clip, source, "tecoa", "finetune", recipe).run().clip.model.state_dict()
    expected, moved = by_hand(tiny_clip, source, recipe), tiny_clip.model.state_dict()
    for name, value in expected.items():
        close = torch.isclose(trained[name], value, rtol=1e-4, atol=2e-6)
        if name.endswith("in_proj_bias"):  # the keys' has no gradient but rounding, which Adam blows up
            close = close.view(3, -1)[[0, 2]]
        assert close.all(), name
    assert max((expected[name] - moved[name]).abs().max().item() for name in expected) > 1e-3


def spy_on_the_attack(monkeypatch):
    """What each attack returned, after proof that it could not have touched a weight."""
    attacked, current = [], []

    def spy(objective, images, **how):
        trainer, = current
        weights = [*trainer.student.parameters(), *trainer.loss.parameters()]

        def watched(pixels, rows):
            assert not any(weight.requires_grad for weight in weights)
            loss = objective(pixels, rows)
            loss.sum().backward(inputs=[pixels], retain_graph=True)  # as careless as released code
            loss.sum().backward(retain_graph=True)
            return loss

        assert not how["checked"]
        attacked.append(pgd(watched, images, **how))
        assert all(weight.grad is None for weight in weights)
        return attacked[-1]

    monkeypatch.setattr(module, "pgd", spy)
    return attacked, current


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.parametrize(("loss", "method"), [("tecoa", "finetune"), ("adv", "finetune"), ("imgcoadv", "pad+token"),
                                              ("fare", "finetune+pad+token")])
def test_no_gradient_of_the_attack_gets_into_the_update(loss, method, precision, tiny_clip, source, monkeypatch):
    attacked, current = spy_on_the_attack(monkeypatch)
    trainer = Trainer(tiny_clip, source, loss, method, replace(RECIPE, precision=precision))
    current.append(trainer)
    twin, loss_twin = copy.deepcopy((trainer.student, trainer.loss))
    images, labels = next(trainer.batches(0, 1))
    trainer.step(images, labels)

    # The same where the attacked images fall from the sky: no attack ran before in these weights' casts or graphs.
    with torch.autocast("cpu", torch.bfloat16, enabled=precision == "bf16"):
        with torch.no_grad():
            targets = loss_twin.prepare(twin, images, labels)
        loss = loss_twin(twin, images, attacked[0], targets)
    loss.backward()
    ours, expected = ({name: value.grad for part in pair for name, value in trainable(part).items()} for pair in
                      ((trainer.student, trainer.loss), (twin, loss_twin)))
    assert len(attacked) == 1 and ours and same(ours, expected)
    assert all(gradient.abs().max() > 0 for name, gradient in ours.items())
    change = (attacked[0] - images).abs().max()
    assert 0 < change <= 4 / 255 + 1e-6 and attacked[0].min() >= 0 and attacked[0].max() <= 1


def test_weights_can_be_trained_again_after_a_broken_attack(tiny_clip, source, monkeypatch):
    def broken(*args, **how):
        raise AttackSettingsError("broken")

    monkeypatch.setattr(module, "pgd", broken)
    trainer = Trainer(tiny_clip, source, "adv", "finetune", RECIPE)
    before = set(trainable(trainer.student)), set(trainable(trainer.loss))
    with pytest.raises(AttackSettingsError):
        trainer.run()
    assert (set(trainable(trainer.student)), set(trainable(trainer.loss))) == before


@pytest.mark.parametrize("loss", [name for name in LOSSES if name != "imgcoadv"])
def test_accumulated_parts_are_the_whole_batch(loss, tiny_clip, source):
    ends = []
    for accumulate in (1, 4):
        recipe = replace(RECIPE, optimizer="sgd", lr=1e-2, accumulate=accumulate, steps=3, warmup=0, keep="last")
        trainer = Trainer(tiny_clip, source, loss, "finetune", recipe)
        trainer.run()
        ends.append(weights_of(trainer) | {"losses": torch.tensor(trainer.history.losses)})
    assert all(torch.allclose(value, ends[1][name], rtol=1e-4, atol=1e-5) for name, value in ends[0].items())
    assert not same(weights_of(Trainer(tiny_clip, source, loss, "finetune", RECIPE)), ends[0])


def test_the_text_is_encoded_once_and_its_tower_stays(tiny_clip, source, monkeypatch):
    before, calls, encode = copy.deepcopy(tiny_clip.model.state_dict()), [], open_clip.CLIP.encode_text
    monkeypatch.setattr(open_clip.CLIP, "encode_text", lambda *args, **how: calls.append(1) or encode(*args, **how))
    trainer = Trainer(tiny_clip, source, "tecoa", "finetune", RECIPE)
    adapted = trainer.run()
    assert len(calls) == 1 and len(trainer.history.held_out) == 2
    after = adapted.clip.model.state_dict()
    frozen = [name for name in before if not name.startswith("visual.")]
    assert frozen and all(torch.equal(before[name], after[name]) for name in frozen)
    assert all(value.grad is None for name, value in trainer.student.model.named_parameters() if name in frozen)
    assert adapted.clip.model.transformer is tiny_clip.model.transformer or \
        adapted.clip.model.token_embedding.weight is tiny_clip.model.token_embedding.weight  # shared, not copied
    assert same(before, tiny_clip.model.state_dict()) and adapted.clip.digest != tiny_clip.digest
    assert not any(value.requires_grad for value in adapted.clip.parameters())


def test_encoder_and_head_have_their_own_rates(tiny_clip, source):
    recipe, rates = replace(RECIPE, lr=1e-3, prompt_lr=.3, weight_decay=.1), {}
    for loss in ("adv", "adv-slow"):
        for method in ("finetune", "pad", "finetune+pad+token"):
            trainer = Trainer(tiny_clip, source, loss, method, recipe)
            names = {id(value): name for part in (trainer.student, trainer.loss) for name, value in
                     part.named_parameters()}
            groups = {names[id(value)]: (group["initial_lr"], group["weight_decay"]) for group in
                      trainer.optimizer.param_groups for value in group["params"]}
            assert groups.keys() == trainable(trainer.student).keys() | trainable(trainer.loss).keys()
            rates[loss, method] = groups
    for (loss, _), groups in rates.items():
        assert groups["weight"] == groups["bias"] == ((1e-2 if loss == "adv" else 1e-3), 0)
        for name, (rate, decay) in groups.items():
            if name.startswith("model.visual."):
                assert rate == 1e-3 and decay == (.1 if name.endswith(("weight", "embedding", "proj")) and
                                                  trainer.original.get_parameter(name).ndim > 1 else 0)
            elif name.startswith("model.prompts."):
                assert (rate, decay) == (.3, 0)


# what a step does not wait for

class Waits(TorchDispatchMode):
    """Notes each operation for whose result an accelerator's host must wait."""

    def __init__(self):
        super().__init__()
        self.found = []

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        if function.overloadpacket.__name__ in ("_local_scalar_dense", "nonzero", "masked_select", "_unique2", "equal",
                                                "is_nonzero", "repeat_interleave"):
            self.found.append(function)
        return function(*args, **(kwargs or {}))


@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize("method", ["finetune", "pad+token"])
def test_a_step_waits_for_nothing(loss, method, tiny_clip, source, monkeypatch):
    trainer = Trainer(tiny_clip, source, loss, method, replace(RECIPE, optimizer="sgd", precision="bf16"))
    images, labels = next(trainer.batches(0, 1))
    for name in ("tolist", "numpy", "cpu"):
        monkeypatch.setattr(torch.Tensor, name, lambda *args, name=name: pytest.fail(f"{name} in a step"))
    with Waits() as waits:
        trainer.step(images, labels)
        assert waits.found == []
        torch.ones(()).item()
        assert len(waits.found) == 1  # it does see one


def test_losses_are_fetched_every_ten_steps(tiny_clip, source, monkeypatch):
    trainer = Trainer(tiny_clip, source, "tecoa", "pad", replace(RECIPE, steps=25, validate_every=12))
    fetched, seen = [], []
    collect = trainer._collect_losses
    trainer._collect_losses = lambda: fetched.append(trainer.history.step) or collect()
    trainer.watch = lambda history: seen.append((history.step, len(history.losses), len(history.held_out)))
    trainer.run()
    assert fetched == [10, 12, 20, 24, 25]
    assert seen == [(10, 10, 0), (12, 12, 1), (20, 20, 1), (24, 24, 2), (25, 25, 3)]
    assert [step for step, _ in trainer.history.losses] == list(range(1, 26))


# which images

@settings(deadline=None)
@given(n=st.integers(5, 60), batch=st.integers(1, 5), seed=st.integers(0, 2**23 - 1), epochs=st.integers(1, 3))
def test_an_image_is_seen_once_an_epoch(n, batch, seed, epochs):
    recipe = Recipe(batch=batch, seed=seed)
    steps = -(-epochs * n // batch)
    rows = sum((rows_at(step, n, recipe) for step in range(steps)), [])
    for epoch in range(epochs):
        assert sorted(rows[epoch * n:(epoch + 1) * n]) == list(range(n))
    assert rows_at(steps // 2, n, recipe) == rows[steps // 2 * batch:(steps // 2 + 1) * batch]  # whatever came before


def test_orders_differ_between_epochs_and_seeds():
    orders = {tuple(rows_at(epoch, 40, Recipe(batch=40, seed=seed))) for epoch in range(3) for seed in range(3)}
    assert len(orders) == 9


def test_batches_are_drawn_as_they_are_needed(tiny_clip, source):
    trainer = Trainer(tiny_clip, source, "tecoa", "pad", RECIPE)
    images, labels = next(trainer.batches(0, 10**12))
    assert images.shape == (8, 3, 16, 16) and labels.dtype == torch.int64


def test_only_held_out_source_images_choose_and_none_of_them_is_trained_on(tiny_clip, source, monkeypatch):
    evaluated, trained, evaluate = [], [], module.evaluate_dataset

    def spy(clip, dataset, *args, **how):
        evaluated.append(dataset)
        return evaluate(clip, dataset, *args, **how)

    monkeypatch.setattr(module, "evaluate_dataset", spy)
    trainer = Trainer(tiny_clip, source, "tecoa", "pad", RECIPE)
    read = trainer.train.read
    trainer.train.read = lambda rows: trained.extend(trainer.train.ids[row] for row in rows) or read(rows)
    trainer.run()
    assert len(evaluated) == 2 and all(part.ids == trainer.held_out.ids for part in evaluated)
    assert len(trainer.held_out) == 12 and set(trainer.held_out.ids) < set(source.ids)
    assert len(trained) == 72 and not set(trained) & set(trainer.held_out.ids)
    assert len(set(trained[:48])) == 48  # the first epoch


def test_given_held_out_images_leave_the_source_whole(tiny_clip, source):
    rest, held_out = source.hold_out(20)
    trainer = Trainer(tiny_clip, rest, "tecoa", "pad", RECIPE, held_out=held_out)
    assert trainer.train is rest and trainer.held_out is held_out
    for wrong in (held_out.select(np.arange(0)), made_up(20, ("red", "blue"))):
        with pytest.raises(AdaptationError, match="held-out images: found"):
            Trainer(tiny_clip, rest, "tecoa", "pad", RECIPE, held_out=wrong)


@pytest.mark.parametrize(("loss", "keep", "kept"), [("tecoa", "best", 4), ("clean", "best", 6), ("tecoa", "last", 9)])
def test_the_kept_weights(loss, keep, kept, tiny_clip, source, monkeypatch):
    looks = iter([{"images": 100, "clean_hits": clean, "robust_hits": robust}
                  for clean, robust in ((50, 10), (60, 30), (90, 20), (60, 30), (60, 30))])
    snapshots = {}

    def look(clip, *args, **how):
        snapshots[trainer.history.step] = weights_of(trainer)
        return next(looks)

    monkeypatch.setattr(module, "evaluate_dataset", look)
    trainer = Trainer(tiny_clip, source, loss, "finetune", replace(RECIPE, validate_every=2, keep=keep))
    adapted = trainer.run()
    assert list(snapshots) == [2, 4, 6, 8, 9] and adapted.step == kept
    end = dict(adapted.clip.model.named_parameters())
    assert all(torch.equal(end[name], snapshots[kept][name]) for name in end)
    assert all(torch.equal(value, snapshots[kept][name.removeprefix("model.")])
               for name, value in adapted.trained.items())


def test_the_criterion_is_robust_first_but_clean_for_the_control(tiny_clip):
    better, worse = {"clean": 1., "robust": 2.}, {"clean": 9., "robust": 1.}
    text = torch.eye(4, 16)
    assert criterion(TeCoA(tiny_clip, text), better) > criterion(TeCoA(tiny_clip, text), worse)
    control = LOSSES["clean"](tiny_clip, text)
    assert criterion(control, better) < criterion(control, worse)


# stopping and going on

def interrupt_at(step):
    def watch(history):
        if history.step == step:
            signal.raise_signal(signal.SIGINT)
    return watch


@main_thread
@pytest.mark.parametrize(("loss", "method", "optimizer"), [
    ("tecoa", "finetune", "adamw"), ("tecoa", "pad+token", "sgd"), ("adv", "finetune", "adamw"),
    ("adv-prefit", "blocks-1", "sgd"), ("imgcoadv", "finetune+pad+token", "adamw")])
@pytest.mark.parametrize("step", [4, 5, 9])
def test_a_stopped_run_goes_on_bit_for_bit(loss, method, optimizer, step, tiny_clip, source, tmp_path, monkeypatch):
    monkeypatch.setattr(module, "LOG_EVERY", 2)
    recipe = replace(RECIPE, optimizer=optimizer, prompt_lr=.5)
    whole = Trainer(tiny_clip, source, loss, method, recipe)
    whole.run()
    with pytest.raises(KeyboardInterrupt):
        Trainer(tiny_clip, source, loss, method, recipe, tmp_path, interrupt_at(step)).run()
    assert [path.name for path in tmp_path.iterdir()] == [CHECKPOINT]
    torch.rand(7)  # nothing depends on the global stream
    again = Trainer(tiny_clip, source, loss, method, recipe, tmp_path)
    # The signal comes after the step's own look at it, so that one more step is taken.
    assert again.history.step == min(step + 1, 9)
    adapted = again.run()
    assert same(weights_of(again), weights_of(whole)) and again.history.losses == whole.history.losses
    assert again.history.held_out == whole.history.held_out and adapted.step == whole.best["step"]


def test_a_run_is_saved_when_the_last_time_is_long_ago(tiny_clip, source, tmp_path, monkeypatch):
    def killed(history):
        if history.step == 8:
            raise SystemExit

    monkeypatch.setattr(module, "LOG_EVERY", 2)
    whole = Trainer(tiny_clip, source, "tecoa", "finetune", RECIPE)
    whole.run()
    for every, saved in ((600, 5), (-1, 8)):
        monkeypatch.setattr(module, "SAVE_EVERY", every)
        with pytest.raises(SystemExit):
            Trainer(tiny_clip, source, "tecoa", "finetune", RECIPE, tmp_path, killed).run()
        again = Trainer(tiny_clip, source, "tecoa", "finetune", RECIPE, tmp_path)
        assert again.history.step == saved
    again.run()
    assert same(weights_of(again), weights_of(whole)) and again.history.held_out == whole.history.held_out


def test_a_finished_run_is_not_run_again(tiny_clip, source, tmp_path):
    first = Trainer(tiny_clip, source, "adv", "finetune", RECIPE, tmp_path).run()
    again = Trainer(tiny_clip, source, "adv", "finetune", RECIPE, tmp_path)
    again.step = lambda *args: pytest.fail("a step more")
    found = again.run()
    assert same(found.trained, first.trained) and found.clip.digest == first.clip.digest
    assert asdict(found.history) == asdict(first.history) and same(found.loss.state_dict(), first.loss.state_dict())
    assert load_adapted(tmp_path / module.ADAPTED, tiny_clip).digest == first.clip.digest


def test_without_a_folder_nothing_is_written(tiny_clip, source, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Trainer(tiny_clip, source, "tecoa", "pad", RECIPE).run()
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(("change", "message"), [
    ({"recipe": replace(RECIPE, lr=.5, seed=6)}, r"lr was 0.003, is 0.5; seed was 5, is 6"),
    ({"loss": "fare"}, "loss was 'tecoa', is 'fare'"), ({"method": "pad"}, "method was 'finetune', is 'pad'"),
    ({"source": made_up(52)}, "images was 48, is 40; the images, labels or texts of the source differ"),
    ({"source": made_up(60, NAMES[::-1])}, "the images, labels or texts of the source differ"),
    ({"source": made_up(60, split="other")}, "the images, labels or texts of the source differ")])
def test_other_settings_do_not_go_on(change, message, tiny_clip, source, tmp_path):
    what = {"source": source, "loss": "tecoa", "method": "finetune", "recipe": RECIPE}
    Trainer(tiny_clip, **what, out=tmp_path).run()
    with pytest.raises(CheckpointError, match=message + r"\): use those, or choose another folder"):
        Trainer(tiny_clip, **what | change, out=tmp_path)


def test_a_checkpoint_of_another_architecture(tiny_clip, tiny_config, source, tmp_path):
    Trainer(tiny_clip, source, "tecoa", "finetune", RECIPE, tmp_path).run()
    other = Clip(open_clip.CLIP(**tiny_config | {"vision_cfg": tiny_config["vision_cfg"] | {"width": 48}}),
                 tiny_clip.tokenizer, name="other")
    with pytest.raises(CheckpointError, match="the original CLIP is another"):
        Trainer(other, source, "tecoa", "finetune", RECIPE, tmp_path)


def test_a_checkpoint_of_another_loss_of_the_same_name(tiny_clip, source, tmp_path):
    def head(width):
        class Mine(TeCoA):
            def __init__(self, *args):
                super().__init__(*args)
                self.more = torch.nn.Parameter(torch.zeros(width))

            def per_image(self, embeddings, targets, rows):
                return super().per_image(embeddings, targets, rows) + self.more.sum()
        return Mine

    Trainer(tiny_clip, source, head(3), "pad", RECIPE, tmp_path).run()
    Trainer(tiny_clip, source, head(3), "pad", RECIPE, tmp_path)
    with pytest.raises(CheckpointError, match="the code of the loss has changed"):
        Trainer(tiny_clip, source, head(4), "pad", RECIPE, tmp_path)


def test_a_loss_whose_code_has_changed_does_not_go_on(tiny_clip, source, tmp_path):
    def heavier(by):  # as a cell of a notebook that is run again after an edit
        space = {"TeCoA": TeCoA}
        exec("class Mine(TeCoA):\n"
             "    def per_image(self, embeddings, targets, rows):\n"
             f"        return {by} * super(Mine, self).per_image(embeddings, targets, rows)\n", space)
        return space["Mine"]

    Trainer(tiny_clip, source, heavier(2), "pad", RECIPE, tmp_path).run()
    Trainer(tiny_clip, source, heavier(2), "pad", RECIPE, tmp_path)
    with pytest.raises(CheckpointError, match="the code of the loss has changed"):
        Trainer(tiny_clip, source, heavier(3), "pad", RECIPE, tmp_path)


def test_a_loss_is_known_by_what_is_around_it():
    def weighted(by, margin=1.0):
        class Mine(TeCoA):
            scales = [1.0, by]

            def per_image(self, embeddings, targets, rows, extra=margin):
                return by * super().per_image(embeddings, targets, rows) + extra
        return Mine

    assert code_digest(weighted(2)) == code_digest(weighted(2))
    assert len({code_digest(make) for make in (weighted(2), weighted(3), weighted(2, 2.0), partial(weighted(2), 1),
                                               partial(weighted(2), fn=np.mean), lambda *a: weighted(2)(*a))}) == 6
    assert loss_name(partial(Adv, head="slow", fn=np.mean)) == "Adv(head='slow')"  # no address of a function


@pytest.mark.parametrize("result", [0.0, None, torch.zeros(8), torch.tensor(1.0)])
def test_a_loss_that_gives_no_loss(result, tiny_clip, source):
    class Odd(TeCoA):
        attacked = False

        def forward(self, *batch):
            return result

    with pytest.raises(AdaptationError, match="the loss Odd gave .*: expected a tensor without dimensions"):
        Trainer(tiny_clip, source, Odd, "pad", RECIPE).run()


def test_results_without_a_checkpoint_are_not_overwritten(tiny_clip, source, tmp_path):
    Trainer(tiny_clip, source, "tecoa", "pad", RECIPE, tmp_path).run()
    (tmp_path / CHECKPOINT).unlink()
    with pytest.raises(AdaptationError, match="holds an adapted CLIP, and no checkpoint.pt to go on from"):
        Trainer(tiny_clip, source, "fare", "pad", RECIPE, tmp_path)


@pytest.mark.parametrize("part", ["student", "loss", "optimizer", "history", "best"])
def test_a_checkpoint_that_lacks_a_part(part, tiny_clip, source, tmp_path):
    Trainer(tiny_clip, source, "tecoa", "pad", RECIPE, tmp_path).run()
    state = torch.load(tmp_path / CHECKPOINT, weights_only=True)
    torch.save({key: value for key, value in state.items() if key != part}, tmp_path / CHECKPOINT)
    with pytest.raises(CheckpointError, match=f"lacks {part}: choose another folder"):
        Trainer(tiny_clip, source, "tecoa", "pad", RECIPE, tmp_path)
    torch.save(state | {part: {"x": 1}}, tmp_path / CHECKPOINT)
    if part != "best":
        with pytest.raises(CheckpointError, match=r"another architecture|or broken"):
            Trainer(tiny_clip, source, "tecoa", "pad", RECIPE, tmp_path)


def test_a_full_disk_leaves_the_last_checkpoint(tiny_clip, source, tmp_path, monkeypatch):
    with monkeypatch.context() as patch:
        trainer = Trainer(tiny_clip, source, "tecoa", "finetune", RECIPE, tmp_path)
        trainer.watch = lambda history: full_disk(patch) if history.step == 5 else None
        with pytest.raises(OutputError, match="No space left on device"):
            trainer.run()
    again = Trainer(tiny_clip, source, "tecoa", "finetune", RECIPE, tmp_path)
    assert again.history.step == 5
    again.run()
    whole = Trainer(tiny_clip, source, "tecoa", "finetune", RECIPE)
    whole.run()
    assert same(weights_of(again), weights_of(whole))


# divergence

@pytest.mark.parametrize(("value", "precision"), [(math.nan, "bf16"), (math.inf, "fp32"), (1e4, "fp32")])
def test_divergence_says_where_and_what_to_do(value, precision, tiny_clip, source, tmp_path):
    recipe = replace(RECIPE, precision=precision)
    trainer = Trainer(tiny_clip, source, "tecoa", "finetune", recipe, tmp_path)
    step = trainer.step
    trainer.step = lambda *batch: step(*batch) if trainer.history.step != 6 else torch.tensor(value)
    with pytest.raises(DivergenceError) as error:
        trainer.run()
    for part in (f"the loss tecoa is {value:.4g} at step 7 (it began at", "diverged; try a lower --lr or --prompt-lr",
                 f"the last good checkpoint is {tmp_path / CHECKPOINT}"):
        assert part in str(error.value)
    assert ("--precision fp32" in str(error.value)) == (precision == "bf16")
    assert Trainer(tiny_clip, source, "tecoa", "finetune", recipe, tmp_path).history.step == 5


def break_weights_at(trainer, at, then=lambda: None):
    """Let step ``at`` (from 0) leave a weight that is not a number, and do ``then``."""
    step = trainer.step

    def broken(*batch):
        loss = step(*batch)
        if trainer.history.step == at:
            trainer.student.model.visual.proj.data[0, 0] = math.nan
            then()
        return loss

    trainer.step = broken


@pytest.mark.parametrize("eps_255", [0, 4])
def test_weights_that_became_nan_in_the_last_step_are_not_kept(eps_255, tiny_clip, source, tmp_path):
    recipe = replace(RECIPE, eps_255=eps_255)
    trainer = Trainer(tiny_clip, source, "tecoa", "finetune", recipe, tmp_path)
    break_weights_at(trainer, 8)
    with pytest.raises(DivergenceError, match="is nan at step 9 .*the last good checkpoint is"):
        trainer.run()
    good = Trainer(tiny_clip, source, "tecoa", "finetune", recipe, tmp_path)
    assert good.history.step == 5 and all(value.isfinite().all() for value in trainable(good.student).values())


def test_broken_weights_are_not_saved_at_ctrl_c(tiny_clip, source, tmp_path):
    trainer = Trainer(tiny_clip, source, "tecoa", "finetune", RECIPE, tmp_path)
    break_weights_at(trainer, 6, lambda: signal.raise_signal(signal.SIGINT))
    with pytest.raises(DivergenceError, match="the last good checkpoint is"):
        trainer.run()
    assert Trainer(tiny_clip, source, "tecoa", "finetune", RECIPE, tmp_path).history.step == 5


def test_a_loss_that_begins_near_zero_may_rise_to_guessing(tiny_clip, source):
    trainer = Trainer(tiny_clip, source, "clean", "finetune", RECIPE)
    trainer.history.losses.append([1, 1e-3])
    trainer._check_loss(2, 50 * math.log(len(source.classnames)))
    with pytest.raises(DivergenceError):
        trainer._check_loss(2, 200 * math.log(len(source.classnames)))


def test_a_head_is_fitted_to_pictures_of_all_classes(tiny_clip, monkeypatch):
    """On a source that is sorted by class, as folders are, its first pictures are of one."""
    source = made_up(60)
    source = source.select(np.argsort(source.labels.numpy(), kind="stable"))
    seen = []
    monkeypatch.setattr(Adv, "fit", lambda self, features, labels: seen.append(labels))
    subset = ImageDataset.subset
    monkeypatch.setattr(ImageDataset, "subset", lambda self, n, seed: subset(self, 12, seed))
    for loss in ("adv", "adv-slow", "adv-prefit"):
        Trainer(tiny_clip, source, loss, "finetune", RECIPE)
    assert len(seen) == 1 and len(seen[0].unique()) == len(source.classnames)


def test_a_class_whose_only_picture_is_held_out(tiny_clip):
    labels = made_up(60).labels.numpy()
    rows = np.flatnonzero(labels != 0)[:40]
    held_out_first = np.random.RandomState(0).permutation(40)[0]
    rows[held_out_first] = np.flatnonzero(labels == 0)[0]
    with pytest.raises(AdaptationError, match="1 of the 4 classes of made-up have no image, e.g. 'cat'"):
        Trainer(tiny_clip, made_up(60).select(rows), "tecoa", "finetune", RECIPE)


def test_a_rate_that_is_far_too_high_diverges(tiny_clip, source):
    recipe = replace(RECIPE, optimizer="sgd", lr=1e30, warmup=0)
    with pytest.raises(DivergenceError, match="diverged; try a lower --lr"):
        Trainer(tiny_clip, source, "tecoa", "finetune", recipe).run()


# a reader's own loss, and data that cannot be trained on

def test_a_loss_of_ones_own(tiny_clip, source):
    class Cosine(Loss):
        def per_image(self, embeddings, targets, rows):
            return 1 - (F.normalize(embeddings, dim=-1) * self.text[targets[rows]]).sum(1)

    adapted = Trainer(tiny_clip, source, Cosine, "finetune", replace(RECIPE, steps=20)).run()
    losses = [loss for _, loss in adapted.history.losses]
    assert adapted.settings["loss"] == "Cosine" and sum(losses[-5:]) < sum(losses[:5])
    slow = Trainer(tiny_clip, source, partial(Adv, head="slow"), "pad", RECIPE)
    assert "head='slow'" in slow.settings["loss"]


def test_numpy_numbers_in_a_recipe_do_not_spoil_the_checkpoint(tiny_clip, source, tmp_path):
    recipe = replace(RECIPE, lr=np.logspace(-3, -2, 3)[1])
    Trainer(tiny_clip, source, "tecoa", "pad", recipe, tmp_path).run()
    assert Trainer(tiny_clip, source, "tecoa", "pad", recipe, tmp_path).history.step == 9


@pytest.mark.parametrize(("what", "message"), [
    ({"recipe": "drawn"}, "recipe = 'drawn': expected a Recipe, as of get_recipe"),
    ({"source": "DrawnImageNet"}, "source = 'DrawnImageNet': expected an ImageDataset, as of load_dataset"),
    ({"loss": Loss}, "the loss Loss has no method per_image: define it"),
    ({"loss": lambda *args: torch.nn.Linear(2, 2)}, "the loss is a Linear: expected a subclass of zsar.losses.Loss"),
    ({"original": "drawn"}, "original = 'drawn': expected a Clip"),
    ({"method": None}, "method = None: expected a name"),
    ({"held_out": 100}, "held_out = 100: expected an ImageDataset or None"),
    ({"loss": 3}, "loss = an object of int: expected a name, or a class"),
    ({"recipe": replace(RECIPE, lr=0)}, "a learning rate of 0: finetune would change nothing"),
    ({"loss": "imgcoadv", "recipe": replace(RECIPE, accumulate=8)}, "ImgCoAdv compares images .*: 1 at a time")])
def test_arguments_of_another_kind(what, message, tiny_clip, source):
    with pytest.raises(AdaptationError, match=message):
        Trainer(**{"original": tiny_clip, "source": source, "loss": "tecoa", "method": "finetune",
                   "recipe": RECIPE} | what)


def test_a_loss_object_is_not_its_class(tiny_clip, source):
    trainer = Trainer(tiny_clip, source, "tecoa", "finetune", RECIPE)
    with pytest.raises(AdaptationError, match="loss = an object of TeCoA: expected a name, or a class"):
        Trainer(tiny_clip, source, trainer.loss, "finetune", RECIPE)


def relabelled(change):
    dataset = made_up(60)
    dataset.labels = change(dataset.labels.clone())
    return dataset


@pytest.mark.parametrize(("dataset", "message"), [
    (made_up(0), "made-up train is empty: there is nothing to train on"),
    (relabelled(lambda labels: labels - 1), "labels of made-up: found -1 to 2, expected 0 to 3, one a class name"),
    (relabelled(lambda labels: labels + 1), "found 1 to 4, expected 0 to 3"),
    (relabelled(lambda labels: labels * 0), r"all images of made-up are of one class \('cat'\): expected at least two"),
    (relabelled(lambda labels: labels % 3), "1 of the 4 classes of made-up have no image, e.g. 'frog'"),
    (made_up(19), "made-up has 19 images, of which 12 are held out: too few for a batch of 8")])
def test_sources_that_cannot_be_trained_on(dataset, message, tiny_clip):
    with pytest.raises(AdaptationError, match=message):
        Trainer(tiny_clip, dataset, "tecoa", "finetune", RECIPE)


def test_the_smallest_source(tiny_clip):
    assert Trainer(tiny_clip, made_up(20, NAMES[:2]), "tecoa", "finetune", RECIPE).run().history.step == 9


def test_tokens_need_a_transformer(tiny_config, tiny_clip, source):
    vision = {"image_size": 32, "layers": [1, 1, 1, 1], "width": 8}
    resnet = Clip(open_clip.CLIP(**tiny_config | {"vision_cfg": vision}), tiny_clip.tokenizer, name="small RN")
    with pytest.raises(PromptError, match="small RN has an image tower of kind ModifiedResNet: tokens"):
        Trainer(resnet, source, "tecoa", "pad+token", RECIPE)
    adapted = Trainer(resnet, source, "tecoa", "pad", replace(RECIPE, steps=4)).run()
    assert set(adapted.trained) == {"model.prompts.pad.values"}


def test_eps_0_trains_without_an_attack(tiny_clip, source, monkeypatch):
    monkeypatch.setattr(module, "pgd", lambda *args, **how: pytest.fail("an attack"))
    with pytest.warns(UserWarning, match="eps 0: tecoa is trained on clean images, without an attack"):
        adapted = Trainer(tiny_clip, source, "tecoa", "finetune", replace(RECIPE, eps_255=0)).run()
    assert all(look["clean"] == look["robust"] for look in adapted.history.held_out)
    clean = Trainer(tiny_clip, source, "clean", "finetune", replace(RECIPE, eps_255=0)).run()
    assert same(adapted.trained, clean.trained)


def test_the_history_knows_its_time(tiny_clip, source):
    history = Trainer(tiny_clip, source, "tecoa", "pad", RECIPE).run().history
    assert isinstance(history, History) and 0 < history.seconds < 60
