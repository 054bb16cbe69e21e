"""The worst iterate: a walk through the ball that ends, image by image, as soon as the classifier is fooled."""

from collections.abc import Callable, Iterable
from typing import Protocol

import torch
from torch import Tensor

from zsar.attacks.engine import LOGITS_NOT_FINITE, NOT_FINITE, all_logits, exact_of, look, micro_batches
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
    device, judge = images.device, _Judge(classifier, labels.to(images.device))
    result, active = images.clone(), torch.arange(len(images), device=device)

    def objective(points: Tensor, index: Tensor) -> Tensor:
        return loss(judge.watch(points, index), index)

    for number in range(looks + 1):
        for rows, filled in micro_batches(len(active), device, micro_batch):
            index, own, judge.rows = active[filled], active[rows], len(rows)
            if number == 0:  # look at the clean images, and begin where they are right
                judge.watch_exactly(images[index], index)
                moved = walk.start(index)
            else:  # the gradient's own forward pass shows whether the point before this step fools
                moved = walk.step(number, index, result[index], *look(objective, result[index], index, gradients))
            still = ~judge.fooled[own]
            result[own[still]] = moved[:len(rows)][still]
        active = active[~judge.fooled[active]]
        if not judge.finite:
            raise AttackSettingsError(LOGITS_NOT_FINITE)
    if result.isnan().any():
        raise AttackSettingsError(NOT_FINITE)
    return result, judge.fooled


class _Judge:
    """Keeps which images were misclassified when they were last looked at."""

    def __init__(self, classifier: Callable[[Tensor], Tensor], labels: Tensor):
        self.logits_of, self.labels = logits_of(classifier), labels
        exact = exact_of(classifier)
        self.exact_logits_of = exact and logits_of(exact)
        self.fooled = torch.zeros(len(labels), dtype=torch.bool, device=labels.device)
        self.rows = 0  # of a micro-batch those that do not only fill it up
        self.finite = torch.ones((), dtype=torch.bool, device=labels.device)

    def watch(self, points: Tensor, index: Tensor) -> Tensor:
        """The logits at these points, to go on from; a fast classifier's suspicion is looked at exactly."""
        logits = self._note(self.logits_of(points), index)
        if self.exact_logits_of and self.fooled[index].any():
            self.watch_exactly(points, index)
        return logits

    @torch.no_grad()
    def watch_exactly(self, points: Tensor, index: Tensor) -> None:
        self._note((self.exact_logits_of or self.logits_of)(points), index)

    def _note(self, logits: Tensor, index: Tensor) -> Tensor:
        own, found = index[:self.rows], logits[:self.rows].argmax(1)
        self.fooled[own] = found.to(self.fooled.device) != self.labels[own]
        self.finite &= logits.isfinite().all().to(self.finite.device)
        return logits


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
