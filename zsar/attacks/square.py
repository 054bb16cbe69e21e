"""The Square attack (Andriushchenko et al. 2020, algorithms 1 and 2): a random search that needs no gradient."""

import math
from collections.abc import Callable

import torch
from torch import Tensor

from zsar.attacks.balls import check_seeds, check_settings, project, uniform
from zsar.attacks.objectives import lead
from zsar.attacks.search import search
from zsar.errors import AttackSettingsError

#: Share of the pixels that the first square covers, and after which of 10,000 queries the share is halved.
SHARE, HALVED = 0.8, (10, 50, 200, 500, 1000, 2000, 4000, 6000, 8000)


def square(classifier: Callable[[Tensor], Tensor], images: Tensor, labels: Tensor, *, eps: float, queries: int = 5000,
           seeds: Tensor | None = None, micro_batch: int | None = None) -> Tensor:
    """Paint squares of +-2 eps inside the L_inf ball and keep those that bring another class ahead, until fooled.

    An image's squares come from its own seed, so that they do not depend on its neighbours. The squares shrink as the
    paper has them for 10,000 queries, faster where there are fewer. What gradients hide does not stop it: a robust
    accuracy that Square lowers further than PGD was measured with gradients that mislead.

    Args:
        classifier: images [B, 3, H, W] to logits [B, K]; no gradient is asked for.
        images: float32 [N, 3, H, W] in [0, 1]; ``labels``: int64 [N].
        eps: radius of the L_inf ball, in units of [0, 1]; ``queries``: looks at an image.
        seeds, micro_batch: as in ``pgd``.

    Returns images [N, 3, H, W]: where fooled the point that fools, else the best. Raises the errors of ``search``.
    """
    check_settings(eps=eps, alpha=eps, steps=1)
    check_queries(queries)
    seeds, labels = check_seeds(seeds, images), labels.to(images.device)
    if eps == 0:
        return images.clone()
    return search(classifier, images, labels, _Walk(images, seeds, eps, queries),
                  lambda logits, index: lead(logits, labels[index].to(logits.device)), queries, gradients=False,
                  micro_batch=micro_batch)[0]


def check_queries(queries: int) -> None:
    """Raise AttackSettingsError unless an image can be looked at so many times."""
    if queries != int(queries) or queries < 1:
        raise AttackSettingsError(f"queries = {queries}: expected a whole number of at least 1")


class _Walk:
    """The random search as a ``Walk``: it keeps every image's best point, and by how much another class leads there."""

    def __init__(self, images: Tensor, seeds: Tensor, eps: float, queries: int):
        self.images, self.seeds, self.eps, self.queries = images, seeds, eps, queries
        self.best, self.best_loss = images.clone(), torch.full((len(images),), -torch.inf, device=images.device)

    def start(self, index: Tensor) -> Tensor:
        clean = self.images[index]  # stripes of one pixel's width, from top to bottom
        return project(clean + self.eps * _signs(clean[:, :, :1], self.seeds[index], 0), clean, self.eps, "linf")

    def step(self, number: int, index: Tensor, points: Tensor, loss: Tensor, gradient: None) -> Tensor:
        loss, best = loss.to(self.best_loss), self.best_loss[index]
        better = loss > best
        self.best[index] = torch.where(better.view(-1, 1, 1, 1), points, self.best[index])
        self.best_loss[index] = torch.where(better, loss, best)
        if number == self.queries:
            return self.best[index]
        clean, best = self.images[index], self.best[index]
        painted = best + 2 * self.eps * self._square(clean, self.seeds[index], number)
        return project(painted, clean, self.eps, "linf")

    def _square(self, like: Tensor, seeds: Tensor, number: int) -> Tensor:
        """One square an image [B, 3, H, W], +-1 a channel inside it and 0 outside."""
        height, width = like.shape[2:]
        side = side_of_square(number - 1, self.queries, height, width)
        place = uniform(like[:, :, :1, :1], seeds, 2 * number)  # three numbers an image, of which two are used
        top, left = ((place[:, i] * (size - side + 1)).long().view(-1, 1, 1, 1)
                     for i, size in enumerate((height, width)))
        rows = torch.arange(height, device=like.device).view(1, 1, -1, 1)
        columns = torch.arange(width, device=like.device).view(1, 1, 1, -1)
        inside = (rows >= top) & (rows < top + side) & (columns >= left) & (columns < left + side)
        return inside * _signs(like[:, :, :1, :1], seeds, 2 * number + 1)


def side_of_square(query: int, queries: int, height: int, width: int) -> int:
    """Pixels on a side: the square root of the share of the area, halved the more often the further the search is."""
    share = SHARE / 2 ** sum(query * 10_000 > at * queries for at in HALVED)
    return min(max(round(math.sqrt(share * height * width)), 1), height, width)


def _signs(like: Tensor, seeds: Tensor, stream: int) -> Tensor:
    return 2 * (uniform(like, seeds, stream) < 0.5).to(like.dtype) - 1
