"""FGSM (Goodfellow et al. 2015) and PGD (Madry et al. 2018): steepest ascent of any objective, to its last iterate, or
of a classifier's loss, to the first iterate that fools. Momentum is that of MI-FGSM (Dong et al. 2018).
"""

from collections.abc import Callable

import torch
from torch import Tensor

from zsar.attacks.balls import check_seeds, check_settings, random_point
from zsar.attacks.engine import NOT_FINITE, ascend, for_each, look, side_by_side
from zsar.attacks.objectives import LogitLoss, Objective, cross_entropy_loss
from zsar.attacks.search import search
from zsar.clip import check_images
from zsar.errors import AttackSettingsError


def fgsm(objective: Objective, images: Tensor, *, eps: float, micro_batch: int | None = None) -> Tensor:
    """The fast gradient sign method: one step of length ``eps`` from the image itself. See ``pgd``."""
    return pgd(objective, images, eps=eps, alpha=eps, steps=1, random_start=False, micro_batch=micro_batch)


def pgd(objective: Objective, images: Tensor, *, eps: float, alpha: float, steps: int, norm: str = "linf",
        momentum: float = 0.0, restarts: int = 1, random_start: bool = True, start: Tensor | None = None,
        seeds: Tensor | None = None, micro_batch: int | None = None, checked: bool = True) -> Tensor:
    """Projected gradient descent: x <- project(x + alpha direction(grad objective)), ``steps`` times.

    Args:
        objective: the loss per image to be maximised, e.g. ``cross_entropy(classifier, labels)``.
        images: float32 [B, 3, H, W] in [0, 1].
        eps, alpha: radius of the ball and length of a step, in units of [0, 1]: four grey levels are ``4 / 255``.
        norm: ``"linf"`` (direction: the sign) or ``"l2"`` (direction: the unit vector).
        momentum: weight of the earlier gradients, each divided by its mean absolute value; 0 is plain PGD.
        restarts: runs from different random starts, of which the last iterate with the highest loss is kept per image.
        random_start: begin at a random point of the ball (``start`` None), else at the image.
        start: begin at these images [B, 3, H, W] instead.
        seeds: int64 [B], one an image (``image_seeds``); by default its row, which is no property of the image.
        micro_batch: images in one forward pass; by default ``MICRO_BATCH`` of the device.
        checked: look at the pixels before and after. A training loop, which checks its loss anyway, does without,
            for each look makes an accelerator wait.

    Returns the last iterate, float32 [B, 3, H, W] in [0, 1] inside the ball. Touches neither ``.grad`` nor the mode
    of any model. Raises PixelRangeError and AttackSettingsError.
    """
    if checked:
        check_images(images)
    check_settings(eps=eps, alpha=alpha, steps=steps, norm=norm, momentum=momentum, restarts=restarts)
    _check_starts(images, start, random_start, restarts)
    seeds = check_seeds(seeds, images)
    if eps == 0:
        return images.clone()
    images = images.detach()
    adversarial = torch.empty_like(images)

    def work(rows: Tensor, index: Tensor) -> None:
        clean = images[index]
        if start is not None or not random_start:
            starts = [clean if start is None else start[index]]
        else:
            starts = [random_point(clean, seeds[index], restart, eps, norm) for restart in range(restarts)]
        runs = [_ascend(objective, clean, first, index, eps, alpha, steps, norm, momentum) for first in starts]
        adversarial[rows] = _keep_best(objective, runs, index)[:len(rows)]

    for_each(work, len(images), images.device, micro_batch, side_by_side(getattr(objective, "classifier", None)))
    if checked and adversarial.isnan().any():
        raise AttackSettingsError(NOT_FINITE)
    return adversarial


def pgd_until_fooled(classifier: Callable[[Tensor], Tensor], images: Tensor, labels: Tensor, *, eps: float,
                     alpha: float, steps: int, loss: Callable[[Tensor], LogitLoss] = cross_entropy_loss,
                     seeds: Tensor | None = None, micro_batch: int | None = None) -> Tensor:
    """L_inf PGD that lets go of an image as soon as it is misclassified, at whatever iterate.

    What is still right of the result is right on the clean image and on every iterate: accuracy on it, that of the
    *worst* iterate, is never above that on ``pgd``'s *last* one, and costs less the sooner images fall. An image's
    path is that of ``pgd`` with the same seeds, so nothing depends on its neighbours. ``loss`` makes the loss of the
    labels: ``cross_entropy_loss``, or ``margin_loss``. Other arguments, shapes and errors as in ``pgd`` and ``search``.
    """
    check_settings(eps=eps, alpha=alpha, steps=steps)
    seeds = check_seeds(seeds, images)
    if eps == 0:
        return images.clone()
    return search(classifier, images, labels, _Steps(images, seeds, eps, alpha), loss(labels), steps,
                  micro_batch=micro_batch)[0]


class _Steps:
    """PGD as a ``Walk``: it remembers nothing."""

    def __init__(self, images: Tensor, seeds: Tensor, eps: float, alpha: float):
        self.images, self.seeds, self.eps, self.alpha = images, seeds, eps, alpha

    def start(self, index: Tensor) -> Tensor:
        return random_point(self.images[index], self.seeds[index], 0, self.eps, "linf")

    def step(self, number: int, index: Tensor, points: Tensor, loss: Tensor, gradient: Tensor) -> Tensor:
        return ascend(points, self.images[index], gradient, self.eps, self.alpha, "linf")


def _check_starts(images: Tensor, start: Tensor | None, random_start: bool, restarts: int) -> None:
    if restarts > 1 and (start is not None or not random_start):
        raise AttackSettingsError(f"{restarts} restarts from one start repeat the same run: use random_start=True")
    if start is not None:
        check_images(start)
        if start.shape != images.shape:
            raise AttackSettingsError(f"start has shape {tuple(start.shape)}: expected that of images, "
                                      f"{tuple(images.shape)}")


def _ascend(objective: Objective, clean: Tensor, first: Tensor, index: Tensor, eps: float, alpha: float, steps: int,
            norm: str, momentum: float) -> Tensor:
    """The loop of ``pgd`` on one micro-batch."""
    adversarial, velocity = first, 0
    for _ in range(steps):
        _, gradient = look(objective, adversarial, index)
        if momentum:
            mean_size = gradient.abs().mean(dim=(1, 2, 3), keepdim=True).clamp_min(1e-30)
            gradient = velocity = momentum * velocity + gradient / mean_size
        adversarial = ascend(adversarial, clean, gradient, eps, alpha, norm)
    return adversarial.detach()


@torch.no_grad()
def _keep_best(objective: Objective, runs: list[Tensor], index: Tensor) -> Tensor:
    """Of the last iterates of several runs the one with the highest loss, image by image."""
    if len(runs) == 1:
        return runs[0]
    best = torch.stack([objective(run, index) for run in runs]).argmax(0).to(index.device)
    return torch.stack(runs)[best, torch.arange(len(index), device=index.device)]
