"""How our speed goes with batch, classes and steps; which batch is best; what bfloat16 changes."""

import statistics
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from functools import partial

import torch

from zsar.attacks import attack_from_settings, attack_settings, cross_entropy
from zsar.bench.comparisons import Speed, ours
from zsar.bench.peers import HERE, Task, as_open_clip, torchattacks_pgd
from zsar.bench.timing import seconds
from zsar.clip import Clip, ZeroShotClassifier, load_clip
from zsar.datasets import ImageDataset, load_dataset
from zsar.evaluate import evaluate_dataset
from zsar.evaluate.accuracy import is_out_of_memory
from zsar.fast import fast
from zsar.methods import load_adapted
from zsar.paths import data_path
from zsar.profiles import get_profile

BATCHES = (256, 512, 1024, 2048)  # that are tried on an accelerator; compiling for each takes half a minute
STEPS = (1, 2, 5, 10)
SHORT = 2  # steps of the sweeps over batches and classes: what a step costs does not depend on how many there are


def points(batch: int, classes: Iterable[int]) -> list[tuple[str, int, int, int]]:
    """What a sweep measures: (what is varied, batch, classes, steps), around a batch and the first number of classes.

    >>> points(8, [100])
    [('batch', 2, 100, 2), ('batch', 8, 100, 2), ('batch', 16, 100, 2), ('classes', 8, 10, 2), ('classes', 8, 100, 2), \
('steps', 8, 100, 1), ('steps', 8, 100, 2), ('steps', 8, 100, 5), ('steps', 8, 100, 10)]
    """
    first, *_ = classes = list(classes)
    return [*(("batch", n, first, SHORT) for n in sorted({max(1, batch // 4), batch, 2 * batch})),
            *(("classes", batch, n, SHORT) for n in sorted({10, *classes})),
            *(("steps", batch, first, n) for n in STEPS)]


def scaling(make: Callable[[int, int, int], Task], speed: Speed, where: Iterable[tuple[str, int, int, int]]) -> list:
    """Images x steps a second of ours and of torchattacks, where it is here, at each of ``points``: one run of each
    after one of a single step. ``make(batch, classes, steps)`` makes the task.
    """
    rows, clip = [], None
    for varied, batch, classes, steps in where:
        task = make(batch, classes, steps)
        clip = clip or as_open_clip(task.classifier.clip)
        row = {"varied": varied, "batch": batch, "classes": classes, "steps": steps,
               "ours": _rate(partial(ours, precision=speed.precision, compiled=speed.compiled), task)}
        rows.append(row | ({"torchattacks": _rate(partial(torchattacks_pgd, clip=clip), task)} if HERE else {}))
    return rows


def _rate(side: Callable[[Task], Callable[[], object]], task: Task) -> float:
    """Images x steps a second of one run, after a run of one step."""
    side(replace(task, steps=1))()
    return len(task.images) * task.steps / seconds(side(task), task.images.device)


def best_batch(task: Task, speed: Speed, batches: Iterable[int] = BATCHES) -> list[dict]:
    """Images x steps a second by the number of images in a forward pass, as far as the memory goes, the fastest first.

    ``task`` holds at least as many images as the largest of ``batches``.
    """
    rows = []
    for batch in batches:
        part = replace(task, images=task.images[:batch], labels=task.labels[:batch])

        def side(at: Task, batch: int = batch) -> Callable[[], object]:
            return partial(ours(at, speed.precision, speed.compiled), micro_batch=batch)

        try:
            rows.append({"batch": batch, "images_x_steps_per_second": _rate(side, part)})
        except RuntimeError as error:
            if not is_out_of_memory(error):
                raise
            break
    return sorted(rows, key=lambda row: -row["images_x_steps_per_second"])


def sign_agreement(task: Task, precision: str = "bf16") -> float:
    """The share of pixels at which the gradient of ``precision`` has the sign of that in fp32, at the random start."""
    signs, rows = [], torch.arange(len(task.images), device=task.images.device)
    for climbed in (task.classifier, fast(task.classifier, precision)):
        start = task.start().requires_grad_()
        loss = cross_entropy(climbed, task.labels)(start, rows).sum()
        signs.append(torch.autograd.grad(loss, start)[0].sign())
    return (signs[0] == signs[1]).double().mean().item()


def robust_in_both(clip: Clip, datasets: Sequence[ImageDataset], eps_255: float, precision: str = "bf16") -> dict:
    """Robust accuracy (PGD-10, mean over datasets, in percent) by gradients in fp32 and in ``precision``."""
    attack, found = attack_from_settings(attack_settings("pgd", eps_255)), {"fp32": [], precision: []}
    for dataset in datasets:
        classifier = ZeroShotClassifier(clip, dataset.classnames, dataset.templates, dataset.verbatim)
        for name, values in found.items():
            values.append(evaluate_dataset(clip, dataset, attack, classifier=classifier, precision=name)["robust"])
    robust = {name: statistics.mean(values) for name, values in found.items()}
    return {"model": clip.name, "images": sum(map(len, datasets)), "robust": robust,
            "points_apart": robust[precision] - robust["fp32"]}


def drawn_in_both(device: torch.device) -> list[dict]:
    """``robust_in_both`` of the drawn CLIP, and of what TeCoA made of it, on all drawn test images."""
    profile, drawn = get_profile("drawn"), load_clip("drawn", device=device)
    datasets = [load_dataset(name).in_memory() for name in profile.datasets]
    adapted = load_adapted(data_path("drawn", "adapted", "tecoa_finetune_seed-0.safetensors"), drawn)
    return [robust_in_both(clip, datasets, profile.eps_255) for clip in (drawn, adapted)]
