"""bench: what it times came to the same before, what did not is named, and its figures are those of the clock."""

import copy
import itertools
import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from made_up import made_up

from zsar import __main__ as cli
from zsar.attacks import cross_entropy, pgd
from zsar.bench import command, comparisons, peers, sweeps, timing
from zsar.bench.comparisons import (
    Comparison,
    Speed,
    attack_comparison,
    measure,
    micro_batch,
    same_images,
    same_weights,
)
from zsar.bench.noise import noise
from zsar.bench.peers import Released, ReleasedAttack, Task, as_open_clip
from zsar.bench.table import agreement
from zsar.clip import ZeroShotClassifier
from zsar.towers import ClassTokenBlock, trim

CPU = torch.device("cpu")
ALL = ["torchattacks' PGD", "plain PyTorch loop", "released code's attack", "released code's training step"]


@pytest.fixture(autouse=True)
def with_torchattacks():
    pytest.importorskip("torchattacks", reason=peers.NEEDED)


@pytest.fixture(scope="module")
def our_clip(tiny_clip):
    """The tiny CLIP as ``load_clip`` would give it."""
    clip = copy.deepcopy(tiny_clip)
    trim(clip.model.visual)
    return clip


@pytest.fixture
def task(our_clip, images, labels) -> Task:
    source = made_up()
    return Task(ZeroShotClassifier(our_clip, source.classnames, source.templates), images, labels, 4 / 255, 1 / 255, 3)


@pytest.fixture
def clock(monkeypatch):
    """A clock that only ``clock[0] += seconds`` moves."""
    now = [0.0]
    monkeypatch.setattr(timing.time, "perf_counter", lambda: now[0])
    return now


FLOPS = timing.Flops(10, 20, 7)


class Work:
    """Takes so many seconds in turn."""

    def __init__(self, clock: list[float], *seconds: float, spared: float = 0.0):
        self.clock, self.seconds, self.calls, self.spared = clock, itertools.cycle(seconds), 0, spared

    def __call__(self) -> str:
        self.clock[0] += next(self.seconds)
        self.calls += 1
        return "result"


def compared(own: Work, peer: Work, agrees: bool = True, peer_repeats: int = 3) -> Comparison:
    settings = {"classes": 3, "precision": "bf16", "peer_precision": "fp32"}
    return Comparison("name", "unit", 80, (2, 0, 0), (0, 3, 4), settings, own, own, peer,
                      lambda *results: {"agrees": agrees}, 3, peer_repeats)


def test_a_row_by_hand(clock):
    comparison = compared(Work(clock, 100, 2, 4, 3), Work(clock, 100, 12, 18, 15))
    row = measure(comparison, CPU, FLOPS, {"fp32": 1e3, "bf16": 1e4})
    assert row["ours"] | {"memory_bytes": 0} == {
        "images_x_steps_per_second": 80 / 3, "seconds": 3, "spread": [2, 4], "repeats": 3, "memory_bytes": 0,
        "share_of_matrix_rate": pytest.approx(80 / 3 * 2 * 10 / 1e4)}
    assert row["peer"]["share_of_matrix_rate"] == pytest.approx(80 / 15 * (3 * 20 + 4 * 7) / 1e3)
    assert row["peer"]["seconds"] == 15 and row["ratio"] == 5 and row["agreement"] == {"agrees": True}
    assert {"name", "settings", "ours", "peer", "ratio", "agreement"} <= row.keys()


def test_a_single_repeat_of_a_peer_is_its_first_call(clock):
    peer = Work(clock, 50, spared=20)
    row = measure(compared(Work(clock, 3), peer, peer_repeats=1), CPU, FLOPS, {})
    assert peer.calls == 1 and row["peer"]["seconds"] == 30 and row["peer"]["repeats"] == 1 and row["ratio"] == 10


def test_what_disagrees_is_not_timed(clock):
    own, peer = Work(clock, 3), Work(clock, 3)
    row = measure(compared(own, peer, agrees=False), CPU, FLOPS, {})
    assert (own.calls, peer.calls) == (1, 1) and row["ours"] is row["peer"] is row["ratio"] is None


def test_repeats_are_in_turn():
    order = []
    timing.in_turn([(lambda: order.append("a"), 2), (lambda: order.append("b"), 3), (order.clear, 0)], CPU)
    assert "".join(order) == "ababb"


def test_memory_is_what_the_call_held_beyond_what_was_held():
    first = timing.first_call(lambda: torch.zeros(2**24).add_(1).sum().item(), CPU)
    assert first.result == 2**24
    if first.memory_bytes is None:
        pytest.skip("this system does not tell the peak of memory")
    assert 60e6 < first.memory_bytes < 90e6


def test_operations_by_their_own_seconds_without_a_word(capfd):
    a = torch.ones(8, 8)
    found = timing.operation_seconds(lambda: (a @ a).exp())
    assert {"mm", "exp"} <= found.keys() and all(value >= 0 for value in found.values())
    assert capfd.readouterr() == ("", "")


def test_matrix_rate_counts_its_operations(clock, monkeypatch):
    monkeypatch.setattr(torch.Tensor, "__matmul__", lambda a, b: clock.__setitem__(0, clock[0] + 4))
    assert timing.matrix_rate(CPU, torch.float32, 10) == 2 * 10**3 / 4


def test_noise_is_the_same_again_and_its_classes_differ(tiny_clip):
    first, second = (noise(5, 7, 16) for _ in range(2))
    assert torch.equal(first.stack()[0], second.stack()[0]) and first.labels.tolist() == [0, 1, 2, 3, 4]
    assert first.classnames[:4] == ["cat", "dog", "dog cat", "dog dog"] and len(set(first.classnames)) == 7
    assert ZeroShotClassifier(tiny_clip, first.classnames, first.templates, first.verbatim).logits(
        first.stack()[0]).shape == (5, 7)


def test_all_sides_come_to_the_same(task):
    found = [(c.name, measure(c, CPU, FLOPS, {})["agreement"])
             for c in comparisons.comparisons(made_up(), task, Speed(repeats=1, peer_repeats=1), ("fp32",))]
    assert [name for name, _ in found] == ALL
    assert all(result["agrees"] for _, result in found)
    assert all(result["equal_pixels"] > .999 and result["correctness_differs"] == 0 for _, result in found[:3])


def test_peers_run_what_open_clip_gives_them(task):
    clip = task.classifier.clip
    peer = as_open_clip(clip)
    assert ClassTokenBlock in map(type, clip.model.visual.modules())
    assert ClassTokenBlock not in map(type, peer.model.visual.modules())
    asked = {name for name, weight in peer.named_parameters() if weight.requires_grad}
    assert asked == {name for name, _ in peer.named_parameters()} - {"model.logit_scale"}
    assert not any(weight.requires_grad for weight in clip.parameters())
    plain = peers.PlainClassifier(task.classifier, peer)
    assert torch.allclose(plain(task.images), task.classifier.logits(task.images), atol=1e-5)
    blocks = []
    last = peer.model.visual.transformer.resblocks[-1]
    last.register_forward_hook(lambda block, given, found: blocks.append(found.shape[1]))
    for side in (peers.torchattacks_pgd(task, peer), peers.plain_loop(task, peer), ReleasedAttack(task, peer, 100)):
        side()
    assert len(blocks) == 3 * task.steps and min(blocks) > 1  # tokens that the last block computes


def test_ours_fills_no_micro_batch(task):
    assert micro_batch(task) == 8 and micro_batch(replace(task, images=task.images.repeat(5, 1, 1, 1))) == 20
    seen = []
    with task.classifier.clip.model.visual.register_forward_hook(lambda tower, given, found: seen.append(len(found))):
        comparisons.ours(task)()
    assert seen == [8] * task.steps


def test_a_peer_with_another_step_is_caught(task):
    wrong = replace(task, alpha=task.alpha / 2)
    comparison = attack_comparison("wrong", task, peers.plain_loop(wrong, as_open_clip(task.classifier.clip)), Speed(),
                                   1, {}, (0, 3, 0))
    row = measure(comparison, CPU, FLOPS, {})
    assert not row["agreement"]["agrees"] and row["ratio"] is None and row["agreement"]["equal_pixels"] < .9


def test_half_precision_is_held_to_the_loss(task):
    own = comparisons.ours(task)(start=task.start())
    near = torch.where(torch.rand(own.shape, generator=torch.Generator().manual_seed(0)) < .05, task.images, own)
    assert same_images(task, True, own, near)["agrees"] and not same_images(task, False, own, near)["agrees"]
    assert not same_images(task, True, own, task.images)["agrees"]
    assert not same_images(task, True, own, task.start())["agrees"]


def test_an_attack_that_goes_astray_on_one_image_is_caught(task):
    task = replace(task, images=task.images.repeat(25, 1, 1, 1), labels=task.labels.repeat(25))
    own = comparisons.ours(task)(start=task.start())
    found = same_images(task, False, own, torch.cat([task.start()[:1], own[1:]]))
    assert found["equal_pixels"] > .99 and abs(found["loss"] - found["peer_loss"]) < .01 * (
        found["loss"] - found["clean_loss"])  # as a mean nothing is seen
    assert not found["agrees"] and found["largest_loss_difference"] > .5 * (found["loss"] - found["clean_loss"])
    assert same_images(task, False, own, own)["agrees"]


def test_weights_that_are_apart_by_a_part_of_the_update():
    before, own = [torch.zeros(3)], [torch.tensor([0., 1., -2.])]
    near, far = [torch.tensor([0., 1., -1.95])], [torch.tensor([0., 1., -1.8])]
    assert same_weights(before, own, near, False)["agrees"] and not same_weights(before, own, far, False)["agrees"]
    assert same_weights(before, own, far, True)["agrees"]
    assert not same_weights(before, before, before, False)["agrees"]  # neither has made a step


def test_a_training_of_another_rate_is_caught(task, monkeypatch):
    monkeypatch.setattr(comparisons, "ReleasedTraining", lambda task, recipe, *rest: peers.ReleasedTraining(
        task, replace(recipe, lr=2 * recipe.lr), *rest))
    comparison = comparisons.training_comparison(made_up(), task, Speed(), "fp32", {})
    found = measure(comparison, CPU, FLOPS, {})["agreement"]
    assert not found["agrees"]
    assert found["largest_difference_of_weights"] == pytest.approx(found["largest_update"], rel=.01)


def test_prompts_in_parts_give_the_gradients_of_all_at_once(task):
    gradients = []
    for chunk in (4, 3):
        clip, points = as_open_clip(task.classifier.clip), task.images.clone().requires_grad_()
        form = Released(task.classifier, clip, chunk, "fp32")
        form.backward(points, task.labels)
        gradients.append([points.grad, *(p.grad for p in clip.parameters() if p.grad is not None)])
        assert (form.spared > 0) == (chunk == 3)
    assert len(gradients[0]) == len(gradients[1]) == len(list(task.classifier.clip.parameters()))
    for whole, parts in zip(*gradients, strict=True):
        assert torch.allclose(whole, parts, rtol=1e-4, atol=1e-5)


def test_the_released_form_has_the_gradient_of_the_cached_text(task):
    attack = ReleasedAttack(task, as_open_clip(task.classifier.clip), 100)
    found = pgd(cross_entropy(task.classifier, task.labels), task.images, eps=task.eps, alpha=task.alpha,
                steps=task.steps, start=task.start(), micro_batch=8)
    assert (attack() == found).float().mean() > .999
    assert all(p.grad.abs().sum() > 0 for p in attack.form.clip.model.transformer.parameters())  # and throws it away


def run(*words: str) -> str:
    parser = cli._parser(["bench"])
    return command.run(parser.parse_args(["bench", *words]))


@pytest.fixture
def tiny(monkeypatch, our_clip):
    monkeypatch.setattr(command, "load_clip", lambda *args, **kwargs: our_clip)
    monkeypatch.setattr(command, "load_dataset", lambda name: made_up(60))
    monkeypatch.setattr(command, "matrix_rate", lambda device, kind: 1e12)
    monkeypatch.setattr(command, "BATCHES", (2, 4))


def test_quick(tiny, tmp_path):
    text = run("--quick", "--json", str(tmp_path / "new" / "out.json"))
    found = json.loads((tmp_path / "new" / "out.json").read_text())
    assert found["complete"] and [row["name"] for row in found["rows"]] == ALL
    assert all(row["settings"]["classes"] == 4 and row["settings"]["images"] == 40 for row in found["rows"])
    assert [row["settings"].get("micro_batch") for row in found["rows"]] == [20, 20, 20, None]
    assert [row["settings"]["steps"] for row in found["rows"]] == [10, 10, 10, 1] and "scaling" not in found
    assert all(row["ratio"] == pytest.approx(row["peer"]["seconds"] / row["ours"]["seconds"]) for row in found["rows"])
    assert "ours 20 images at a time" in text
    assert all(line in text for line in [*ALL, "the same, bit for bit", f"torch {torch.__version__}"])
    assert {"device", "commit"} <= found["provenance"].keys() and found["threads"] == torch.get_num_threads()


def test_every_number_of_classes_and_the_sweeps(tiny, tmp_path):
    text = run("--batch", "4", "--classes", "2,5", "--steps", "2", "--chunk", "3", "--json", str(tmp_path / "out.json"))
    found = json.loads((tmp_path / "out.json").read_text())
    assert [(row["settings"]["classes"], row["name"]) for row in found["rows"]] == [(k, n) for k in (2, 5) for n in ALL]
    assert [row["settings"]["steps"] for row in found["rows"]] == [2, 2, 2, 1, 2, 2, 1, 1]
    assert "(3 prompts at a time, 1 step)" in text and found["rows"][2]["peer"]["repeats"] == 1
    varied = [tuple(row[key] for key in ("varied", "batch", "classes", "steps")) for row in found["scaling"]]
    assert varied == sweeps.points(4, [2, 5]) and all(row["torchattacks"] > 0 for row in found["scaling"])
    assert "images x steps/s by steps" in text


@pytest.mark.filterwarnings("ignore:precision bf16")
def test_what_an_accelerator_is_asked_for(tiny, monkeypatch, tmp_path, tiny_clip):
    monkeypatch.setattr(command.Bench, "accelerated", True)
    monkeypatch.setattr(command, "best_batch", lambda task, speed: sweeps.best_batch(task, speed, (2, 4)))
    monkeypatch.setattr(command, "drawn_in_both", lambda device: [sweeps.robust_in_both(tiny_clip, [made_up(20)], 4)])
    text = run("--batch", "4", "--classes", "4", "--precision", "bf16", "--json", str(tmp_path / "out.json"))
    found = json.loads((tmp_path / "out.json").read_text())
    assert [(row["name"], row["settings"]["peer_precision"]) for row in found["rows"]] == [
        *zip(ALL[:3], ["fp32"] * 3, strict=True), (ALL[2], "fp16"), (ALL[3], "fp32"), (ALL[3], "fp16")]
    assert all(row[side]["share_of_matrix_rate"] > 0 for row in found["rows"] for side in ("ours", "peer"))
    assert {row["batch"] for row in found["batches"]} == {2, 4} and found["sign_agreement_bf16"] > .97
    assert found["robust_bf16"][0]["images"] == 20
    assert all(words in text for words in ("best batch", "of the rate in bf16", "% the same", "by gradients in bf16"))


def test_best_batch_ends_where_the_memory_does(task, monkeypatch):
    def side(at, *speed):
        def attack(micro_batch):
            if micro_batch > 4:
                raise torch.OutOfMemoryError("out of memory")
        return attack

    monkeypatch.setattr(sweeps, "ours", side)
    assert {row["batch"] for row in sweeps.best_batch(task, Speed(), (2, 4, 8))} == {2, 4}


def test_without_torchattacks_the_rest_is_measured(tiny, monkeypatch):
    for module in (comparisons, command, sweeps):
        monkeypatch.setattr(module, "HERE", False)
    text = run("--quick")
    assert "torchattacks' PGD" not in text and ALL[1] in text
    assert text.endswith('pip install --no-deps "torchattacks>=3.5.1"')


def test_a_disagreement_is_named_after_the_other_rows(tiny, monkeypatch, capsys):
    monkeypatch.setattr(comparisons, "plain_loop", lambda task, clip: lambda: task.images)
    assert cli.main(["bench", "--quick"]) == 2
    captured = capsys.readouterr()
    last = captured.err.splitlines()[-1]
    assert last.startswith("zsar: error: not timed, for ours came to something else: plain PyTorch loop (fp32, 4 class")
    assert all(name in captured.out for name in ALL) and captured.out.count("not timed") == 1


def test_where_the_memory_ends_the_rows_before_are_shown(tiny, monkeypatch, capsys):
    class Hungry:
        def __init__(self, *given):
            raise torch.OutOfMemoryError("out of memory")

    monkeypatch.setattr(comparisons, "ReleasedAttack", Hungry)
    assert cli.main(["bench", "--quick"]) == 2
    captured = capsys.readouterr()
    assert all(name in captured.out for name in ALL[:2]) and ALL[2] not in captured.out
    assert "out of memory after 2 comparisons" in captured.err.splitlines()[-1]


@pytest.mark.parametrize(("words", "message"), [
    (["--batch", "0"], "--batch 0: expected at least 1"), (["--steps", "0"], "--steps 0"),
    (["--classes", "1"], "--classes 1: expected numbers"), (["--classes", "10,x"], "--classes 10,x"),
    (["--repeats", "0"], "--repeats 0"), (["--peer-repeats", "-1"], "--peer-repeats -1"), (["--chunk", "0"], "--chunk"),
    (["--precision", "fp16"], "expected one of bf16, fp32"), (["--device", "meta"], "device 'meta'"),
    (["--quick", "--batch", "4", "--peer-repeats", "2"], "leave out --batch, --peer-repeats"),
    (["--quick", "--compile"], "leave out --compile"), (["--quick", "--json", "/dev/null/x"], "cannot write"),
    (["--model", "ViT-B-33"], "unknown model")])
def test_bad_words(words, message, monkeypatch, capsys):
    monkeypatch.setattr(command, "_fill", lambda *args: pytest.fail("measured before the words were checked"))
    assert cli.main(["bench", *words]) == 2
    captured = capsys.readouterr()
    assert captured.out == "" and captured.err.startswith("zsar: error: ") and captured.err.count("\n") == 1
    assert message in captured.err


def test_agreement_in_words():
    pixels = {"equal_pixels": .99991, "largest_difference_255": 2.0, "loss": 10.888, "peer_loss": 10.887,
              "largest_loss_difference": .0123, "correctness_differs": 1, "images": 40}
    assert agreement(pixels | {"equal_pixels": 1}) == "every pixel the same, bit for bit"
    assert agreement(pixels) == (
        "90 in a million pixels differ, by up to 2 grey levels; loss 10.888, 10.887, of an image apart by 0.01 at "
        "most; 1 of 40 differ in being fooled")


def test_points_are_pictures_of_the_task(tiny, tiny_clip):
    settings = command.Settings("tiny", None, 4, (5,), 2, 1, Speed())
    found = command.Bench(tiny_clip, settings).task(3, 5, 2)
    assert found.images.shape == (3, 3, 16, 16) and found.alpha == found.eps / 4 == 1 / 255 / 4
    assert found.labels.tolist() == [0, 1, 2] and np.isclose(found.images.mean(), .5, atol=.05)
