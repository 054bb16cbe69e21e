"""Ours beside a peer: whether both come to the same is looked at first, and only then which is faster."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from zsar.attacks import MICRO_BATCH, all_logits, cross_entropy, pgd
from zsar.bench.peers import (
    HALF,
    HERE,
    ReleasedAttack,
    ReleasedTraining,
    Task,
    as_open_clip,
    plain_loop,
    torchattacks_pgd,
)
from zsar.bench.timing import First, Flops, Timing, first_call, in_turn
from zsar.datasets import ImageDataset
from zsar.fast import fast
from zsar.recipes import get_recipe
from zsar.trainer import Trainer

#: Sums in another order (another batch in one product, one token in the last block where the peer has all) differ in
#: the last bit, and a gradient next to 0 then has the other sign: of a million pixels a few, whose steps go apart. A
#: peer with another step or loss moves most pixels.
EQUAL_PIXELS = 0.99
#: How far the mean losses of the attacked images may be apart, as a share of what the attack adds to the loss. In half
#: precision one sign in two hundred differs at every step, more in fp16 whose small gradients vanish, so that pixels
#: are not held to be equal there, only what they come to.
LOSS_APART = {"fp32": 0.01, "half": 0.1}
#: The same of each image by itself, in fp32: wider, for a pixel that went the other way weighs more in one image than
#: in the mean of many. A peer that goes astray on one image only is seen here.
IMAGE_LOSS_APART = 0.1
#: How far weights may be apart after the first step, as a share of its largest change of a weight: a pixel of the other
#: sign changes a gradient little, the rounding of a half precision (2^-8) adds up over tokens and layers.
WEIGHTS_APART = {"fp32": 0.05, "half": 0.5}


@dataclass(frozen=True)
class Speed:
    """How ours is run, how often each side is, and how the released code takes its prompts."""

    precision: str = "fp32"
    compiled: bool = False
    repeats: int = 3
    peer_repeats: int = 3  # of the released code
    chunk: int = 1000  # prompts that the released code encodes at once


@dataclass(frozen=True)
class Comparison:
    """Two sides of the same work. ``agree(ours, peer)`` looks at what the first calls returned."""

    name: str
    unit: str
    work: int  # images x steps of one call
    passes: tuple[float, float, float]  # of ours a unit of work, one for each of ``Flops``; there and back count two
    peer_passes: tuple[float, float, float]
    settings: dict
    checked: Callable[[], Any]  # ours from the peer's start
    ours: Callable[[], Any]  # ours as it is timed
    peer: Callable[[], Any]
    agree: Callable[[Any, Any], dict]
    repeats: int
    peer_repeats: int


def ours(task: Task, precision: str = "fp32", compiled: bool = False) -> Callable[..., Tensor]:
    """PGD as ``zsar evaluate`` runs it; called with ``start``, from there instead of its own random points."""
    objective = cross_entropy(fast(task.classifier, precision, compiled), task.labels)
    return partial(pgd, objective, task.images, eps=task.eps, alpha=task.alpha, steps=task.steps,
                   micro_batch=micro_batch(task))


def micro_batch(task: Task) -> int:
    """Images in one forward pass of ours: the default, but no more than there are, or filling would be timed."""
    return min(len(task.images), MICRO_BATCH.get(task.images.device.type, len(task.images)))


def measure(comparison: Comparison, device: torch.device, flops: Flops, rates: dict[str, float]) -> dict:
    """A row: name, settings, ours, peer, ratio, agreement. Where the two disagree, nothing is timed.

    The first call of each side is the one that is compared, its memory is looked at, and it warms up; a peer of a
    single repeat is not run again: its first call is the one repeat. ``rates``: of matrix products, by precision.
    """
    own, other = first_call(comparison.checked, device), first_call(comparison.peer, device)
    agreement = comparison.agree(own.result, other.result)
    row = {"name": comparison.name, "unit": comparison.unit, "settings": comparison.settings}
    if not agreement["agrees"]:
        return row | {"ours": None, "peer": None, "ratio": None, "agreement": agreement}
    again = comparison.peer_repeats if comparison.peer_repeats > 1 else 0
    timings = in_turn([(comparison.ours, comparison.repeats), (comparison.peer, again)], device)
    sides = [_side(comparison.work, first, timing) for first, timing in zip((own, other), timings, strict=True)]
    kinds = [comparison.settings.get(key, "fp32") for key in ("precision", "peer_precision")]
    for side, passes, kind in zip(sides, (comparison.passes, comparison.peer_passes), kinds, strict=True):
        side["share_of_matrix_rate"] = share(side["images_x_steps_per_second"], passes, flops, rates, kind)
    return row | {"ours": sides[0], "peer": sides[1], "ratio": sides[1]["seconds"] / sides[0]["seconds"],
                  "agreement": agreement}


def share(speed: float, passes: tuple[float, ...], flops: Flops, rates: dict[str, float], kind: str) -> float | None:
    """Of the rate of a matrix product in that precision (both halves have one), where it was measured."""
    rate = rates.get("bf16" if kind in HALF else kind)
    return rate and speed * sum(n * each for n, each in zip(passes, flops, strict=True)) / rate


def _side(work: int, first: First, timing: Timing | None) -> dict:
    timing = timing or Timing(first.seconds, [first.seconds, first.seconds], 1)
    return {"images_x_steps_per_second": work / timing.seconds, **timing._asdict(), "memory_bytes": first.memory_bytes}


def comparisons(dataset: ImageDataset, task: Task, speed: Speed,
                peer_precisions: tuple[str, ...]) -> Iterator[Comparison]:
    """Ours beside torchattacks' PGD, where it is here, a plain loop, and the released code's attack and training step.

    ``dataset``: what the training step trains on, at least a picture a class. ``peer_precisions``: in which the
    released code is run; the others are in fp32. Each comparison is to be measured before the next is asked for.
    """
    described = {"model": task.classifier.clip.name, "classes": len(task.classifier.classnames),
                 "images": len(task.images), "size": task.images.shape[-1], "precision": speed.precision,
                 "compiled": speed.compiled}
    clip = as_open_clip(task.classifier.clip)
    if HERE:
        peer = torchattacks_pgd(task, clip)
        yield attack_comparison("torchattacks' PGD", task, peer, speed, speed.repeats, described, (0, 2, 0))
    yield attack_comparison("plain PyTorch loop", task, plain_loop(task, clip), speed, speed.repeats, described,
                            (0, 3, 0))
    # Where prompts are taken in parts a step takes minutes, and all steps take the same
    whole = described["classes"] <= speed.chunk
    short = task if whole else Task(task.classifier, task.images, task.labels, task.eps, task.alpha, 1)
    passes = (0, 3, 3 * described["classes"] / len(task.images))
    for precision in peer_precisions:
        peer = ReleasedAttack(short, clip, speed.chunk, precision)
        yield attack_comparison("released code's attack", short, peer, speed, speed.peer_repeats,
                                described | {"peer_precision": precision, "chunk": speed.chunk}, passes)
    del clip
    for precision in peer_precisions:
        yield training_comparison(dataset, task, speed, precision, described)


def attack_comparison(name: str, task: Task, peer: Callable[[], Tensor], speed: Speed, peer_repeats: int,
                      settings: dict, peer_passes: tuple[float, float, float]) -> Comparison:
    """Ours beside another attack. A step is a forward pass and one back to the pixels, which costs as much."""
    own = ours(task, speed.precision, speed.compiled)
    settings = {**settings, "attack": "pgd", "steps": task.steps, "eps_255": round(task.eps * 255, 6),
                "alpha_255": round(task.alpha * 255, 6), "micro_batch": micro_batch(task)}
    half = {speed.precision, settings.setdefault("peer_precision", "fp32")} != {"fp32"}
    return Comparison(name, "images x steps/s", len(task.images) * task.steps, (2, 0, 0), peer_passes, settings,
                      partial(own, start=task.start()), own, peer, partial(same_images, task, half), speed.repeats,
                      peer_repeats)


@torch.no_grad()
def same_images(task: Task, half: bool, own: Tensor, peer: Tensor) -> dict:
    """Whether two attacks from one start came to the same images, up to rounding, by pixels and by their loss.

    In half precision by the mean of the loss alone. ``correctness_differs``: images of which one side's is fooled only.
    """
    logits = [all_logits(task.classifier, images) for images in (task.images, own, peer)]
    losses = [F.cross_entropy(found, task.labels, reduction="none") for found in logits]
    clean, ours_loss, peer_loss = (loss.mean().item() for loss in losses)
    right = [found.argmax(1) == task.labels for found in logits[1:]]
    added, apart = abs(ours_loss - clean), (losses[1] - losses[2]).abs().max().item()
    equal, tolerance = (own == peer).double().mean().item(), {"loss": LOSS_APART["half" if half else "fp32"]}
    agrees = abs(ours_loss - peer_loss) <= tolerance["loss"] * added  # False for NaN
    if not half:
        tolerance |= {"pixels": EQUAL_PIXELS, "image_loss": IMAGE_LOSS_APART}
        agrees = agrees and equal >= EQUAL_PIXELS and apart <= IMAGE_LOSS_APART * added
    return {"agrees": agrees, "equal_pixels": equal, "largest_difference_255": 255 * (own - peer).abs().max().item(),
            "clean_loss": clean, "loss": ours_loss, "peer_loss": peer_loss, "largest_loss_difference": apart,
            "correctness_differs": int((right[0] != right[1]).sum()), "images": len(own), "tolerance": tolerance}


def training_comparison(dataset: ImageDataset, task: Task, speed: Speed, peer_precision: str,
                        settings: dict) -> Comparison:
    """Ours beside the released code: one step of TeCoA by finetuning with PGD-2, from the same weights and start."""
    recipe = get_recipe("paper", batch=len(task.images), steps=1000, held_out=1, precision=speed.precision, warmup=0,
                        lr=1e-3)
    trainer = Trainer(task.classifier.clip, dataset.select(np.arange(len(dataset))), "tecoa", "finetune", recipe,
                      held_out=dataset)
    peer = ReleasedTraining(task, recipe, speed.chunk, peer_precision)

    def step() -> None:
        trainer.step(task.images, task.labels)

    def agree(_: None, __: None) -> dict:
        towers = [list(clip.model.visual.parameters()) for clip in (task.classifier.clip, trainer.student)]
        return same_weights(*towers, peer.tower, half={speed.precision, peer_precision} != {"fp32"})

    settings = settings | {
        "loss": "tecoa", "method": "finetune", "steps": 1, "attack_steps": recipe.attack_steps, "compiled": False,
        "eps_255": recipe.eps_255, "alpha_255": recipe.alpha_255, "peer_precision": peer_precision,
        "chunk": speed.chunk}
    # to the weights and through them back costs twice a forward pass
    each = 3 * (recipe.attack_steps + 1)
    return Comparison("released code's training step", "images/s", len(task.images),
                      (2 * recipe.attack_steps + 3, 0, 0), (0, each, each * len(peer.form.tokens) / len(task.images)),
                      settings, step, step, peer, agree, speed.repeats, speed.peer_repeats)


@torch.no_grad()
def same_weights(before: list[Tensor], own: list[Tensor], peer: list[Tensor], half: bool) -> dict:
    """Whether the first step of two trainings came to the same weights."""
    apart, moved = (max((a - b).abs().max().item() for a, b in zip(*pair, strict=True))
                    for pair in ((own, peer), (own, before)))
    tolerance = WEIGHTS_APART["half" if half else "fp32"]
    return {"agrees": 0 < moved and apart <= tolerance * moved, "largest_difference_of_weights": apart,
            "largest_update": moved, "tolerance": {"weights": tolerance}}
