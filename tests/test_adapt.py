"""``python -m zsar adapt`` and its function: every loss by every method, what is written, and bad input in one line."""

import builtins
import re
import shlex
import signal
import sys
from dataclasses import replace
from itertools import product
from pathlib import Path

import open_clip
import pytest
import torch
from made_up import NAMES, made_up
from safetensors import safe_open
from test_training import main_thread

from zsar import __main__ as cli
from zsar import adapt as module
from zsar import trainer
from zsar.adapt import adapt, report, tensorboard
from zsar.attacks import MICRO_BATCH, cross_entropy
from zsar.clip import Clip, ZeroShotClassifier, load_clip
from zsar.errors import AdaptationError, OutputError, UnknownNameError
from zsar.losses import LOSSES
from zsar.methods import METHODS, load_adapted
from zsar.recipes import RECIPES, Recipe
from zsar.trainer import History, Trainer

RECIPE = Recipe(batch=4, steps=3, warmup=0, held_out=4, validate_every=3, pad=4, tokens=2, precision="bf16")


@pytest.fixture(autouse=True)
def small_micro_batches(monkeypatch):
    """So that looks at four held-out images do not take as long as at forty."""
    monkeypatch.setitem(MICRO_BATCH, "cpu", 4)


# every loss by every method

@pytest.fixture(scope="module")
def small_clip(tiny_config, tiny_clip) -> Clip:
    """Built as ViT-B/32 is, with its activation, only smaller."""
    vision = {"image_size": 32, "patch_size": 16, "width": 64, "head_width": 32, "layers": 2}
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = open_clip.CLIP(**tiny_config | {"vision_cfg": vision}, quick_gelu=True)
    return Clip(model, tiny_clip.tokenizer, name="small")


def check_three_steps(original, loss, method, source, recipe):
    """Three steps whose losses are finite move every weight that the method names, and no other."""
    before = {name: value.clone() for name, value in original.model.state_dict().items()}
    adapted = adapt(original, source, loss=loss, method=method, recipe=recipe)
    losses = torch.tensor([value for _, value in adapted.history.losses])
    assert len(losses) == 3 and losses.isfinite().all()
    after = adapted.clip.model.state_dict()
    changed = {f"model.{name}" for name, value in after.items()
               if name in before and not torch.equal(value, before[name])}
    prompts = {f"model.prompts.{part}" for part in ("pad.values", "token.tokens") if part.split(".")[0] in method}
    assert adapted.trained.keys() == changed | prompts and prompts <= {f"model.{name}" for name in after}
    assert ("model.visual.conv1.weight" in changed) == ("finetune" in method)
    if "finetune" not in method:
        blocks = len(original.model.visual.transformer.resblocks)
        first = blocks - int(method[7:]) if method.startswith("blocks-") else blocks
        assert {int(name.split(".")[4]) for name in changed} == set(range(first, blocks))
    assert all(value.isfinite().all() for value in adapted.trained.values())
    assert all(torch.equal(value, before[name]) for name, value in original.model.state_dict().items())


def pairs() -> list:
    """Every loss by every method, marked ``long`` but for the losses by finetuning, and the methods with TeCoA."""
    return [pytest.param(loss, method, marks=[] if loss == "tecoa" or method == "finetune" else pytest.mark.long)
            for loss, method in product(LOSSES, METHODS)]


@pytest.mark.parametrize(("loss", "method"), pairs())
def test_every_loss_by_every_method(loss, method, small_clip):
    check_three_steps(small_clip, loss, method, made_up(12), RECIPE)


#: The same on the paper's model, with random weights.
VIT_RECIPE = replace(RECIPES["paper"], batch=2, steps=3, warmup=0, held_out=1, validate_every=3, optimizer="adamw",
                     prompt_lr=.1, weight_decay=1e-4, tokens=8)
#: In bf16 where the processor has instructions for it; elsewhere that takes fifty times as long (measured).
VIT_PRECISION = "bf16" if torch.backends.cpu.get_cpu_capability() == "AVX512" else "fp32"


@pytest.mark.long
@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("loss", LOSSES)
def test_vit_b_32_by_every_loss_and_method(loss, method, monkeypatch):
    monkeypatch.setitem(MICRO_BATCH, "cpu", 1)
    original = load_clip("ViT-B-32-quickgelu", pretrained="random", device="cpu")
    recipe = replace(VIT_RECIPE, precision=VIT_PRECISION)
    check_three_steps(original, loss, method, made_up(5, NAMES[:2], size=32), recipe)


# the command line

@pytest.fixture
def world(monkeypatch, tiny_clip):
    """The command line on the tiny CLIP and made-up pictures."""
    monkeypatch.setattr(module, "load_dataset", lambda name, split, *where: made_up(60))
    monkeypatch.setattr(module, "load_clip", lambda *args, **how: tiny_clip)


QUICK = ["--batch", "8", "--steps", "6", "--held-out", "8", "--validate-every", "3"]


def error_of(capsys, *words: str) -> str:
    """The one line on standard error of a command that must end with status 2."""
    assert cli.main(["adapt", *words]) == 2
    captured = capsys.readouterr()
    assert captured.out == "" and captured.err.startswith("zsar: error: ") and captured.err.count("\n") == 1
    return captured.err


def test_the_command_adapts_and_says_so(world, tiny_clip, tmp_path, capsys):
    assert cli.main(["adapt", "--loss", "fare", "--method", "pad+token", "--pad", "2", "--tokens", "3",
                     "--out", str(tmp_path / "new"), *QUICK]) == 0
    out = capsys.readouterr().out
    for part in ("fare by pad+token: 432 parameters, 6 steps of 8 images of made-up", "held-out source: clean ",
                 "at eps 4/255 (PGD-10, worst iterate)", "is kept (best)",
                 f"--adapted {tmp_path / 'new' / 'adapted.safetensors'}"):
        assert part in out
    assert {path.name for path in (tmp_path / "new").iterdir()} == {"checkpoint.pt", "adapted.safetensors",
                                                                     "record.json"}
    adapted = load_adapted(tmp_path / "new" / "adapted.safetensors", tiny_clip)
    assert adapted.digest != tiny_clip.digest
    with safe_open(tmp_path / "new" / "adapted.safetensors", "pt") as file:
        assert sum(file.get_tensor(name).numel() for name in file.keys()) == 3 * 112 + 3 * 32  # noqa: SIM118


def test_what_is_written_is_what_was_trained(tiny_clip, tmp_path):
    source = made_up(60)
    adapted = adapt(tiny_clip, source, method="finetune+pad", recipe=replace(RECIPE, steps=5), out=tmp_path)
    again = load_adapted(tmp_path / "adapted.safetensors", tiny_clip)
    images, labels = source.stack()
    logits = [ZeroShotClassifier(clip, source.classnames)(images) for clip in (adapted.clip, again, tiny_clip)]
    assert torch.equal(logits[0], logits[1]) and not torch.allclose(logits[0], logits[2])
    assert report(adapted, tmp_path).startswith("tecoa by finetune+pad: ")


def test_adaptation_makes_robust(tiny_clip, tmp_path):
    source = made_up(80)
    recipe = replace(RECIPE, batch=10, steps=60, precision="fp32", eps_255=8, alpha_255=8, validate_every=60)
    losses = []
    for clip in (tiny_clip, adapt(tiny_clip, source, recipe=recipe).clip):
        objective = cross_entropy(ZeroShotClassifier(clip, source.classnames, source.templates), source.labels)
        attacked = trainer.pgd(objective, source.stack()[0], eps=8 / 255, alpha=2 / 255, steps=10, micro_batch=80)
        losses.append(objective(attacked, torch.arange(80)).mean().item())
    assert losses[1] < .7 * losses[0]


def test_images_are_counted_beside_those_held_out(world, tmp_path, monkeypatch, capsys):
    sizes = []
    plain = Trainer.run
    monkeypatch.setattr(Trainer, "run", lambda self: sizes.append((len(self.train), len(self.held_out))) or plain(self))
    assert cli.main(["adapt", "--images", "20", "--out", str(tmp_path), *QUICK]) == 0
    assert sizes == [(20, 8)]


def test_eps_0_is_allowed_and_said(world, tmp_path, capsys):
    assert cli.main(["adapt", "--eps", "0", "--out", str(tmp_path), *QUICK]) == 0
    captured = capsys.readouterr()
    assert "eps 0: trained without an attack" in captured.out
    assert "zsar: warning: eps 0: tecoa is trained on clean images, without an attack\n" in captured.err


def test_the_next_command_can_be_pasted(world, tmp_path, capsys):
    folder = tmp_path / "a b's"
    assert cli.main(["adapt", "--out", str(folder), *QUICK]) == 0
    words = shlex.split(capsys.readouterr().out.splitlines()[-1])
    assert words[0] == "next" and words[-1] == str(folder / "adapted.safetensors")
    assert Path(words[1]).absolute() == Path(sys.executable)


@main_thread
def test_an_interrupted_command_goes_on(world, tmp_path, monkeypatch, capsys):
    plain, steps = Trainer.step, []

    def step(self, *batch):
        steps.append(self.history.step)
        if len(steps) == 5:
            signal.raise_signal(signal.SIGINT)
        return plain(self, *batch)

    monkeypatch.setattr(Trainer, "step", step)
    words = ["adapt", "--method", "pad", "--pad", "2", "--out", str(tmp_path), *QUICK]
    assert cli.main(words) == 130
    assert capsys.readouterr().err.endswith(
        f"zsar: interrupted: step 5 is saved in {tmp_path}; the same call goes on from there\n")
    assert steps == [0, 1, 2, 3, 4]
    assert cli.main(words) == 0 and steps == [0, 1, 2, 3, 4, 5]
    captured = capsys.readouterr()
    assert "6 steps of 8 images" in captured.out
    assert f"continuing {tmp_path / 'checkpoint.pt'} at step 5 of 6\n" in captured.err
    assert "prompt_lr was 0.1, is 0.5" in error_of(capsys, *words[1:], "--prompt-lr", ".5")


def test_a_broken_checkpoint_is_one_line(world, tmp_path, capsys):
    (tmp_path / "checkpoint.pt").write_bytes(b"half a file")
    assert "cannot read the checkpoint" in error_of(capsys, "--out", str(tmp_path), *QUICK)


@pytest.mark.parametrize(("words", "message"), [
    (["--loss", "tekoa"], "unknown loss 'tekoa': did you mean .*tecoa"),
    (["--method", "finetun"], "unknown method 'finetun': did you mean finetune"),
    (["--method", "blocks-0"], "trains nothing: expected blocks-1"), (["--method", "blocks-9"], "has 2 blocks"),
    (["--method", "pad+pad"], "each at most once"), (["--recipe", "papers"], "unknown recipe 'papers'"),
    (["--optimizer", "adam"], "unknown optimizer 'adam'"), (["--precision", "fp16"], "unknown precision 'fp16'"),
    (["--keep", "first"], "unknown keep 'first'"), (["--profile", "ful"], "unknown profile 'ful'"),
    (["--method", "pad", "--pad", "30"], "30 pixels on an image of 16: expected a whole number from 1 to 8"),
    (["--method", "token", "--tokens", "0"], "token prompt of 0 tokens"), (["--lr", "-1"], "lr = -1"),
    (["--batch", "9", "--accumulate", "2"], "a batch of 9 does not divide"), (["--batch", "two"], "invalid int value"),
    (["--images", "0"], "--images 0"),
    (["--images", "7"], "made-up has 15 images, of which 8 are held out: too few"),
    (["--eps", "300"], "eps = 300"),
    (["--alpha", "0"], "alpha = 0"), (["--steps", "0"], "steps = 0"), (["--seed", "-1"], "seed -1"),
    (["--pad", "2"], "--pad changes nothing with --method finetune: leave it out"),
    (["--tokens", "2", "--method", "pad"], "--tokens changes nothing with --method pad"),
    (["--prompt-lr", "1", "--method", "blocks-1"], "--prompt-lr changes nothing with --method blocks-1"),
    (["--momentum", ".5"], "--momentum changes nothing with --optimizer adamw"),
    (["--lr", "1", "--method", "pad"], "--lr changes nothing with --method pad"),
    (["--weight-decay", "1", "--method", "token"], "--weight-decay changes nothing with --method token"),
    (["--alpha", "1", "--eps", "0"], "--alpha changes nothing with --eps 0"),
    (["--attack-steps", "1", "--loss", "clean"], "--attack-steps changes nothing with --loss clean"),
    (["--out", ""], "--out is empty: give it a value"), (["--warmup", "6"], "warmup = 6: expected"),
    (["--weights", "x"], "unrecognized arguments")])
def test_bad_input(words, message, world, tmp_path, capsys):
    assert re.search(message, error_of(capsys, "--out", str(tmp_path), *QUICK, *words))  # of two options the later


def test_names_are_checked_before_anything_is_loaded(monkeypatch, tmp_path, capsys):
    monkeypatch.setattr(module, "load_dataset", lambda *args: pytest.fail("work had begun"))
    monkeypatch.setattr(module, "load_clip", lambda *args, **how: pytest.fail("work had begun"))
    (tmp_path / "file").write_text("")
    for words in (["--loss", "x"], ["--method", "x"], ["--recipe", "x"], ["--lr", "nan"], ["--profile", "x"]):
        error_of(capsys, "--out", str(tmp_path), *words)
    assert "cannot write into the folder" in error_of(capsys, "--out", str(tmp_path / "file" / "inside"))
    assert "the following arguments are required: --out" in error_of(capsys)


def test_bad_input_of_the_function(tiny_clip, tmp_path):
    source = made_up(60)
    with pytest.raises(UnknownNameError, match="unknown loss 'adw': did you mean adv"):
        adapt(tiny_clip, source, loss="adw", recipe=RECIPE)
    with pytest.raises(UnknownNameError, match="unknown method 'tokens': did you mean .*, token"):
        adapt(tiny_clip, source, method="tokens", recipe=RECIPE)
    with pytest.raises(AdaptationError, match="batch = 0"):
        adapt(tiny_clip, source, recipe=replace(RECIPE, batch=0))
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError, match="cannot write into the folder"):
        adapt(tiny_clip, source, recipe=RECIPE, out=tmp_path / "file" / "inside")


# curves

def test_tensorboard_that_is_not_there(monkeypatch, world, tmp_path, capsys):
    plain = builtins.__import__

    def without(name, *args):
        if name.startswith(("torch.utils.tensorboard", "tensorboard")):
            raise ModuleNotFoundError(f"No module named {name!r}")
        return plain(name, *args)

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(OutputError, match="--tensorboard needs the package tensorboard: pip install tensorboard"):
        tensorboard(tmp_path)
    assert "pip install tensorboard" in error_of(capsys, "--out", str(tmp_path), "--tensorboard", str(tmp_path))


def test_tensorboard_gets_the_curves(tmp_path):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    watch = tensorboard(tmp_path)
    history = History(step=2, losses=[[1, .5], [2, .25]])
    watch(history)
    history.losses.append([3, .125])
    history.held_out.append({"step": 3, "clean": 75., "robust": 25.})
    watch(history)
    tensorboard(tmp_path)(history)  # a continued run begins with all that it knows
    events = EventAccumulator(str(tmp_path)).Reload()
    assert [(event.step, event.value) for event in events.Scalars("loss")] == [(1, .5), (2, .25), (3, .125)]
    assert [event.value for event in events.Scalars("held-out source/robust")] == [25]
