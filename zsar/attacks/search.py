"""The worst iterate: a walk through the ball that ends, image by image, as soon as the classifier is fooled."""

from collections.abc import Callable, Iterable
from functools import partial
from typing import Protocol

import torch
from torch import Tensor

from zsar.attacks.engine import (
    LOGITS_NOT_FINITE,
    NOT_FINITE,
    all_logits,
    exact_of,
    for_each,
    look,
    side_by_side,
)
from zsar.attacks.objectives import LogitLoss, check_labels, logits_of
from zsar.clip import check_images
from zsar.errors import AttackSettingsError


class Walk(Protocol):
    """How one attack moves. What it remembers of an image it keeps by the image's row, for the rest may be let go.

    ``index`` int64 [B] holds rows, some more than once where a micro-batch is filled up.
    """

    def start(self, index: Tensor) -> Tensor:
        """The first points [B, 3, H, W] to look at."""

    def step(self, number: int, index: Tensor, points: Tensor, loss: Tensor, gradient: Tensor | None) -> Tensor:
        """The next points, after look ``number`` (from 1) has shown the loss [B] and its gradient at these."""


def search(classifier: Callable[[Tensor], Tensor], images: Tensor, labels: Tensor, walk: Walk, loss: LogitLoss,
           looks: int, *, gradients: bool = True, micro_batch: int | None = None) -> tuple[Tensor, Tensor]:
    """Let ``walk`` look ``looks`` times at most at every image, and no more once it is misclassified.

    Images that are fooled make room: what is left of all fills the next micro-batches, each of one shape, so that no
    image's path depends on its neighbours. A fast classifier (``zsar.fast``) is asked for its gradients
    only, and the exact one behind it says who is fooled.

    Returns images [N, 3, H, W], where fooled the point that fools, else the walk's next, and who is fooled: bool [N].
    Raises PixelRangeError, and AttackSettingsError for labels, and for logits or gradients that are not finite.
    """
    check_images(images)
    check_labels(classifier, labels)
    images = images.detach()
    device, judge = images.device, _Judge(classifier, labels.to(images.device))
    result, active, together = images.clone(), torch.arange(len(images), device=device), side_by_side(classifier)

    def advance(number: int, rows: Tensor, filled: Tensor) -> None:
        index, own = active[filled], active[rows]
        if number == 0:  # look at the clean images, and begin where they are right
            judge.watch_exactly(images[index], own)
            moved = walk.start(index)
        else:  # the gradient's own forward pass shows whether the point before this step fools
            seen = look(lambda points, index: loss(judge.watch(points, own), index), result[index], index, gradients)
            moved = walk.step(number, index, result[index], *seen)
        still = ~judge.fooled[own]
        result[own[still]] = moved[:len(rows)][still]

    for number in range(looks + 1):
        for_each(partial(advance, number), len(active), device, micro_batch, together)
        active = active[~judge.fooled[active]]
        if not judge.all_finite():
            raise AttackSettingsError(LOGITS_NOT_FINITE)
    if result.isnan().any():
        raise AttackSettingsError(NOT_FINITE)
    return result, judge.fooled


class _Judge:
    """Keeps which images were misclassified when they were last looked at.

    A micro-batch of points [B, 3, H, W] begins with those of the rows ``own``, and is filled up with others.
    """

    def __init__(self, classifier: Callable[[Tensor], Tensor], labels: Tensor):
        self.logits_of, self.labels = logits_of(classifier), labels
        exact = exact_of(classifier)
        self.exact_logits_of = exact and logits_of(exact)
        self.fooled = torch.zeros(len(labels), dtype=torch.bool, device=labels.device)
        self.finite: list[Tensor] = []  # of each look since ``all_finite`` was asked

    def watch(self, points: Tensor, own: Tensor) -> Tensor:
        """The logits at these points, to go on from; a fast classifier's suspicion is looked at exactly."""
        logits = self._note(self.logits_of(points), own)
        if self.exact_logits_of and self.fooled[own].any():
            self.watch_exactly(points, own)
        return logits

    @torch.no_grad()
    def watch_exactly(self, points: Tensor, own: Tensor) -> None:
        self._note((self.exact_logits_of or self.logits_of)(points), own)

    def _note(self, logits: Tensor, own: Tensor) -> Tensor:
        self.fooled[own] = logits[:len(own)].argmax(1).to(self.fooled.device) != self.labels[own]
        self.finite.append(logits.isfinite().all())
        return logits

    def all_finite(self) -> bool:
        finite = not self.finite or bool(torch.stack(self.finite).all())
        self.finite.clear()
        return finite


def in_turn(images: Tensor, attempts: Iterable[Callable[[Tensor], tuple[Tensor, Tensor]]]) -> Tensor:
    """Several searches, each on the images that those before it left: ``attempt(rows) -> images, fooled``.

    Returns images [N, 3, H, W], those of the last search where none fooled.
    """
    result, left = images.clone(), torch.arange(len(images), device=images.device)
    for attempt in attempts:
        if not len(left):
            break
        found, fooled = attempt(left)
        result[left] = found
        left = left[~fooled]
    return result


def misclassified(classifier: Callable[[Tensor], Tensor], images: Tensor, labels: Tensor,
                  micro_batch: int | None = None) -> Tensor:
    """Whose label is not the class of the highest logit: bool [N], beside the images.

    Raises AttackSettingsError for a label that is no class: it would count as fooled.
    """
    logits, labels = all_logits(classifier, images, micro_batch).to(images.device), labels.to(images.device)
    if len(labels) and not 0 <= labels.min() <= labels.max() < logits.shape[1]:
        raise AttackSettingsError(f"labels: found {int(labels.min())} to {int(labels.max())}, expected 0 to "
                                  f"{logits.shape[1] - 1}")
    return logits.argmax(1) != labels
