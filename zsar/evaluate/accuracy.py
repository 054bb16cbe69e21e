"""Whether a classifier answers right, attacked or not: one batch, as much as the memory holds, or a whole dataset."""

import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

import torch
from torch import Tensor

from zsar import datasets
from zsar.attacks import MICRO_BATCH, Attack, all_logits, exact_of, image_seeds
from zsar.attacks.engine import LooksThrough
from zsar.clip import Clip, ZeroShotClassifier, check_images
from zsar.errors import UnreadableImageError, ZsarError, first_line
from zsar.fast import FastClassifier, fast
from zsar.results import interval, pack_bits

T = TypeVar("T")


def predict(classifier: ZeroShotClassifier, images: Tensor, micro_batch: int | None = None) -> Tensor:
    """The class that each of N images in [0, 1] is given: int64 [N], on the CPU.

    The model sees micro-batches of one shape, as in an attack. Raises PixelRangeError, and AttackSettingsError for
    logits that are not finite.
    """
    check_images(images)
    return all_logits(classifier, images, micro_batch).argmax(1).cpu()


def correct(classifier: ZeroShotClassifier, images: Tensor, labels: Tensor, micro_batch: int | None = None) -> Tensor:
    """Whether each of N images in [0, 1] is classified as its label: bool [N], on the CPU. Raises PixelRangeError."""
    return predict(classifier, images, micro_batch) == labels.cpu()


class Room:
    """How many images the memory of a device holds in one forward pass: ``size``, halved where it proves too much."""

    def __init__(self, device: torch.device, size: int | None = None):
        self.size = size or MICRO_BATCH.get(device.type, 64)

    def run(self, work: Callable[[int], T]) -> T:
        """``work(size)``, again with half the size where memory runs out: what it returns must not depend on the size.

        Raises ZsarError where not even one image fits.
        """
        while True:
            try:
                return work(self.size)
            except RuntimeError as error:  # its frames hold the tensors that did not fit, until this block ends
                if not is_out_of_memory(error):
                    raise
                if self.size == 1:
                    raise ZsarError(f"out of memory with a single image ({first_line(error, 80)}): take a device with "
                                    "more, or a smaller model") from error
            self.size //= 2
            warnings.warn(f"out of memory: going on with {self.size} images in a forward pass", stacklevel=2)
            if torch.cuda.is_available():
                torch.cuda.empty_cache()


def is_out_of_memory(error: RuntimeError) -> bool:
    """Whether a device, or torch's allocator on a CPU, says that memory ran out."""
    return isinstance(error, torch.OutOfMemoryError) or "can't allocate memory" in str(error)


@dataclass(frozen=True)
class Answers:
    """What a model makes of images, attacked or not: predictions int64 [n], on the CPU.

    passes: images that went through the model in forward passes, those that fill up a micro-batch too. seconds: of
    the device.
    """

    predictions: Tensor
    passes: int
    seconds: float


class _Counted(LooksThrough):
    """A classifier that counts the images it is shown, as itself or as the exact one behind it."""

    def __init__(self, classifier: ZeroShotClassifier | FastClassifier):
        self.behind, self.classnames = classifier, classifier.classnames
        self.shown: list[int] = []  # a list, for several threads may add to it
        self.exact = _Counted(exact) if (exact := exact_of(classifier)) else None

    def logits(self, images: Tensor) -> Tensor:
        self.shown.append(len(images))
        return self.behind.logits(images)

    __call__ = logits  # an attack of one's own may call it as it would a model

    @property
    def passes(self) -> int:
        return sum(self.shown) + (self.exact.passes if self.exact else 0)


def answer(classifier: ZeroShotClassifier, attack: Attack | None, images: Tensor, labels: Tensor, seeds: Tensor,
           room: Room) -> Answers:
    """The model's answers to images [n, 3, H, W] in [0, 1], after ``attack`` where there is one."""
    counted, start = _Counted(classifier), time.perf_counter()
    attacked = room.run(lambda size: attack(counted, images, labels, seeds, micro_batch=size)) if attack else images
    predictions = room.run(lambda size: predict(counted, attacked, size))
    return Answers(predictions, counted.passes, time.perf_counter() - start)  # on the CPU, so the device is done


#: Micro-batches that are evaluated together: a real test set does not fit into memory, and an attack that lets go of
#: fooled images fills its micro-batches from what is left of these. On a CPU a thousand images.
TOGETHER = {"cpu": 50, "cuda": 8}


def unit_rows(n: int, device: torch.device) -> tuple[Tensor, ...]:
    """The rows of n images, those that are evaluated together at a time."""
    return torch.arange(n).split(TOGETHER.get(device.type, 8) * MICRO_BATCH.get(device.type, 64))


def evaluate_dataset(clip: Clip, dataset: datasets.ImageDataset, attack: Attack | None = None, *, seed: int = 0,
                     classifier: ZeroShotClassifier | None = None, precision: str = "fp32", compiled: bool = False,
                     workers: int | None = None, strict: bool = False,
                     progress: Callable[[int], None] = lambda images: None) -> dict:
    """Accuracy of ``clip`` on every image of ``dataset``, before and after ``attack``, with 95 % intervals, in percent.

    ``seed`` and an image's id make its random start. ``classifier``, where there is one already, spares encoding
    the text again. The attack's gradients are computed in ``precision``, and ``compiled`` where asked; answers
    never are (``zsar.fast``). ``workers`` and ``strict`` as in ``zsar.datasets.batches``: images that cannot be
    read do not count, and ``unreadable`` of the result names them. ``progress`` is told how many images are done.
    ``clean_bits`` and ``robust_bits`` say which images were right (``zsar.results.unpack_bits``), so that two
    models can be compared image by image. Raises UnreadableImageError, with ``strict`` or where no image can be
    read.
    """
    classifier = classifier or ZeroShotClassifier(clip, dataset.classnames, dataset.templates, dataset.verbatim)
    climbed = fast(classifier, precision, compiled)
    clean, robust, attack_seconds, unreadable, begin = [], [], 0.0, {}, time.perf_counter()
    seeds, room = image_seeds(dataset.ids, seed), Room(clip.device)
    for batch in datasets.batches(dataset, unit_rows(len(dataset), clip.device), clip.device, workers=workers,
                                  strict=strict):
        unreadable |= {dataset.ids[row]: reason for row, reason in batch.unreadable.items()}
        if len(batch.rows):
            given, labels = (batch.images, batch.labels, seeds[batch.rows], room), batch.labels.cpu()
            clean.append(answer(classifier, None, *given).predictions == labels)
            if attack:
                found = answer(climbed, attack, *given)
                attack_seconds += found.seconds
                robust.append(found.predictions == labels)
        progress(len(batch.rows) + len(batch.unreadable))
    if not clean:
        raise UnreadableImageError(f"none of the {len(dataset)} images of {dataset.name} can be read, e.g. "
                                   f"{next(iter(unreadable.values()))}")
    row = {"dataset": dataset.name, "split": dataset.split, "layout": dataset.layout,
           "images": len(dataset) - len(unreadable), "classes": len(classifier.classnames),
           **_accuracy("clean", clean)}
    if unreadable:
        row["unreadable"] = unreadable
    if attack:
        row |= {**_accuracy("robust", robust), "attack_seconds": round(attack_seconds, 3)}
    return row | {"seconds": round(time.perf_counter() - begin, 3)}


def _accuracy(kind: str, hits: list[Tensor]) -> dict[str, float | int | str | list[float]]:
    hits = torch.cat(hits)
    low, high = interval(int(hits.sum()), len(hits))
    return {kind: round(100 * hits.double().mean().item(), 4), f"{kind}_hits": int(hits.sum()),
            f"{kind}_interval": [round(low, 2), round(high, 2)], f"{kind}_bits": pack_bits(hits)}
