"""APGD, the attack without a step size to choose (Croce and Hein 2020, algorithm 1), on three losses."""

import warnings
from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor

from zsar.attacks.balls import check_seeds, check_settings, project, random_point
from zsar.attacks.engine import all_logits, direction
from zsar.attacks.objectives import LogitLoss, check_labels, cross_entropy_loss, dlr_loss, targeted_dlr_loss
from zsar.attacks.search import in_turn, search
from zsar.clip import check_images
from zsar.errors import unknown_name

LOSSES = ("ce", "dlr", "targeted-dlr")
#: Classes beside the label that the targeted loss tries in turn, most likely first: AutoAttack's nine.
TARGETS = 9
MOMENTUM, RISES = 0.75, 0.75  # alpha and rho of the paper


def apgd(classifier: Callable[[Tensor], Tensor], images: Tensor, labels: Tensor, *, eps: float, steps: int = 100,
         loss: str = "ce", restarts: int = 1, norm: str = "linf", seeds: Tensor | None = None,
         micro_batch: int | None = None) -> Tensor:
    """Ascend from a random point in steps of 2 eps that are halved where they lead no higher, until fooled.

    Args:
        classifier: images [B, 3, H, W] to logits [B, K].
        images: float32 [N, 3, H, W] in [0, 1]; ``labels``: int64 [N].
        eps: radius of the ball, in units of [0, 1]; ``steps``: each after a look at the gradient, and one look more.
        loss: ``"ce"``, ``"dlr"``, or ``"targeted-dlr"`` towards each of the nine most likely other classes in turn.
            Two classes have no DLR, nor three a targeted one: what they have of it is used, with a warning.
        restarts: runs from random points, each on the images that are left.
        norm, seeds, micro_batch: as in ``pgd``.

    Returns images [N, 3, H, W]: where fooled the point that fools, else the one of the highest loss of the last run.
    Raises UnknownNameError, and the errors of ``search``.
    """
    check_settings(eps=eps, alpha=eps, steps=steps, norm=norm, restarts=restarts)
    if loss not in LOSSES:
        raise unknown_name("loss of APGD", str(loss), LOSSES)
    check_images(images)
    check_labels(classifier, labels)
    seeds, labels = check_seeds(seeds, images), labels.to(images.device)
    if eps == 0:
        return images.clone()
    makers = _losses(loss, all_logits(classifier, images, micro_batch), labels)

    def attempt(run: int, rows: Tensor) -> tuple[Tensor, Tensor]:
        part = images[rows]
        walk = _Walk(part, seeds[rows], eps, steps, norm, run)
        return search(classifier, part, labels[rows], walk, makers[run % len(makers)](rows), steps + 1,
                      micro_batch=micro_batch)

    return in_turn(images, [partial(attempt, run) for run in range(restarts * len(makers))])


def _losses(name: str, clean: Tensor, labels: Tensor) -> list[Callable[[Tensor], LogitLoss]]:
    """The losses to ascend one after the other, each made for the rows that are left: one, or one a target."""
    if (classes := clean.shape[1]) < (least := {"ce": 2, "dlr": 3, "targeted-dlr": 4}[name]):
        warnings.warn(f"APGD on {name} needs {least} classes and found {classes}: "
                      + ("the difference of the two logits takes its place" if classes == 2 else
                         "the third stands for the fourth"), stacklevel=3)
    if name == "targeted-dlr":
        ranks = clean.argsort(1, descending=True).to(labels.device)  # the label leads, or the image is lost already
        return [lambda rows, targets=ranks[:, place]: targeted_dlr_loss(labels[rows], targets[rows])
                for place in range(1, min(TARGETS + 1, classes))]
    make = {"ce": cross_entropy_loss, "dlr": dlr_loss}[name]
    return [lambda rows: make(labels[rows])]


class _Walk:
    """Algorithm 1 as a ``Walk``. Every image has its own step size, its best point and its count of rises."""

    def __init__(self, images: Tensor, seeds: Tensor, eps: float, steps: int, norm: str, run: int):
        self.images, self.seeds, self.eps, self.steps, self.norm, self.run = images, seeds, eps, steps, norm, run
        self.checks = checkpoints(steps)
        per_image = partial(torch.zeros, len(images), device=images.device)
        self.size, self.last_loss, self.best_loss, self.checked_loss = (per_image() for _ in range(4))
        self.rises, self.halved = per_image(dtype=torch.int64), per_image(dtype=torch.bool)
        self.previous, self.best, self.best_gradient = (torch.empty_like(images) for _ in range(3))

    def start(self, index: Tensor) -> Tensor:
        return random_point(self.images[index], self.seeds[index], self.run, self.eps, self.norm)

    def step(self, number: int, index: Tensor, points: Tensor, loss: Tensor, gradient: Tensor) -> Tensor:
        self._note(number, index, points, loss, gradient)
        if number > self.steps:
            return self.best[index]
        if number - 1 in self.checks:
            halve = self._stuck(index, self.checks[number - 1])
            points = torch.where(_spread(halve), self.best[index], points)
            gradient = torch.where(_spread(halve), self.best_gradient[index], gradient)
        clean, weight = self.images[index], 1 if number == 1 else MOMENTUM
        ahead = project(points + _spread(self.size[index]) * direction(gradient, self.norm), clean, self.eps, self.norm)
        mixed = points + weight * (ahead - points) + (1 - weight) * (points - self.previous[index])
        self.previous[index] = points
        return project(mixed, clean, self.eps, self.norm)

    def _note(self, number: int, index: Tensor, points: Tensor, loss: Tensor, gradient: Tensor) -> None:
        # A micro-batch may hold a row twice: nothing written here depends on what its double has written.
        loss, better = loss.to(self.best_loss), torch.ones_like(index, dtype=torch.bool)
        if number == 1:
            self.previous[index], self.size[index] = points, 2 * self.eps
            self.checked_loss[index], self.halved[index] = loss, True
        else:
            self.rises[index] = self.rises[index] + (loss > self.last_loss[index])
            better = loss > self.best_loss[index]
        self.last_loss[index], rows = loss, index[better]
        self.best_loss[rows], self.best[rows], self.best_gradient[rows] = loss[better], points[better], gradient[better]

    def _stuck(self, index: Tensor, span: int) -> Tensor:
        """Whose step is to be halved at a checkpoint, bool [B]: few rises, or no better point at the same step."""
        halve = self.rises[index] < RISES * span
        halve |= ~self.halved[index] & (self.checked_loss[index] >= self.best_loss[index])
        self.size[index] = torch.where(halve, self.size[index] / 2, self.size[index])
        self.halved[index], self.checked_loss[index], self.rises[index] = halve, self.best_loss[index], 0
        return halve


def checkpoints(steps: int) -> dict[int, int]:
    """After which steps of so many APGD looks back, and over how many: p_0 = 0, p_1 = 0.22, then each interval 0.03
    shorter than the one before, 0.06 at least.

    >>> list(checkpoints(100))
    [22, 41, 57, 70, 80, 87, 93, 99]
    """
    found, before, here, width = {}, 0, 22, 22
    while here < 100:  # in hundredths, so that no rounding moves a checkpoint
        step, last = -(-here * steps // 100), -(-before * steps // 100)
        if step > last and step < steps:
            found[step] = step - last
        before, width = here, max(width - 3, 6)
        here += width
    return found


def _spread(values: Tensor) -> Tensor:
    """[B] as [B, 1, 1, 1]."""
    return values.view(-1, 1, 1, 1)
