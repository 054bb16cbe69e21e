"""Attacks on images in [0, 1]: one engine, steepest ascent of any objective inside an L_inf or L_2 ball.

FGSM (Goodfellow et al. 2015) is its one step, PGD (Madry et al. 2018) its many; momentum is that of MI-FGSM (Dong
et al. 2018). An attacked image depends on that image, its seed and the settings only: random starts come from a
counter, and the model always sees micro-batches of one shape, short ones padded.
"""

import hashlib
import math
from collections.abc import Callable, Iterator, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from zsar.clip import check_images
from zsar.errors import AttackSettingsError, unknown_name

#: ``objective(images [B, 3, H, W], index int64 [B]) -> loss [B]``, larger where the attack does better. ``index``
#: holds the images' rows in the batch that was given to the attack, by which a closure finds what belongs to them.
Objective = Callable[[Tensor, Tensor], Tensor]

#: Images in one forward pass. On a CPU 20 cost as little an image as 40 do, and a sixth less than 10 (48 px, one
#: thread); the fewer they are, the less is filled up where an attack has let go of most images.
MICRO_BATCH = {"cpu": 20, "cuda": 256}
NOT_FINITE = ("the attack's gradient is NaN or infinite: the objective is not finite at these images (half precision, "
              "a logarithm of 0, or broken weights)")


def micro_batches(n: int, device: torch.device, size: int | None = None) -> Iterator[tuple[Tensor, Tensor]]:
    """Rows 0 to n - 1 a micro-batch at a time: the rows, and the same filled up to ``size`` by repeating them."""
    size = size or MICRO_BATCH.get(device.type, 64)
    for rows in torch.arange(n, device=device).split(size) if n else ():
        yield rows, rows.repeat(-(-size // len(rows)))[:size]


def cross_entropy(classifier: Callable[[Tensor], Tensor], labels: Tensor, targeted: bool = False) -> Objective:
    """The cross-entropy of ``labels`` int64 [N]: true labels to move away from, or targets to move to.

    Raises AttackSettingsError for a label that is none of a ``ZeroShotClassifier``'s classes.
    """
    classes = len(getattr(classifier, "classnames", ())) or 2**62
    if len(labels) and not (0 <= labels.min() and labels.max() < classes):
        raise AttackSettingsError(f"labels: found {int(labels.min())} to {int(labels.max())}, expected 0 to "
                                  f"{classes - 1}")
    logits_of, sign = getattr(classifier, "logits", classifier), -1 if targeted else 1

    def objective(images: Tensor, index: Tensor) -> Tensor:
        logits = logits_of(images)
        return sign * F.cross_entropy(logits, labels.to(index.device)[index].to(logits.device), reduction="none")

    return objective


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
    _check_starts(images, start, seeds, random_start, restarts)
    if eps == 0:
        return images.clone()
    seeds = torch.arange(len(images)) if seeds is None else seeds
    adversarial = torch.empty_like(images)
    for rows, index in micro_batches(len(images), images.device, micro_batch):
        clean = images[index]
        if start is not None or not random_start:
            starts = [clean if start is None else start[index]]
        else:
            own = seeds.to(images.device)[index]
            starts = [_random_start(clean, own, restart, eps, norm) for restart in range(restarts)]
        runs = [_ascend(objective, clean, first, index, eps, alpha, steps, norm, momentum) for first in starts]
        adversarial[rows] = _keep_best(objective, runs, index)[:len(rows)]
    if checked and adversarial.isnan().any():
        raise AttackSettingsError(NOT_FINITE)
    return adversarial


def pgd_until_fooled(classifier: Callable[[Tensor], Tensor], images: Tensor, labels: Tensor, *, eps: float,
                     alpha: float, steps: int, seeds: Tensor | None = None, micro_batch: int | None = None) -> Tensor:
    """L_inf PGD on the cross-entropy that lets go of an image as soon as it is misclassified, at whatever iterate.

    What is still right of the result is right on the clean image and on every iterate: accuracy on it, that of the
    *worst* iterate, is never above that on ``pgd``'s *last* one, and costs less the sooner images fall. An image's
    path is that of ``pgd`` with the same seeds, so nothing depends on its neighbours. Arguments, shapes and errors as
    in ``pgd`` and ``cross_entropy``.
    """
    check_images(images)
    check_settings(eps=eps, alpha=alpha, steps=steps)
    cross_entropy(classifier, labels)  # for its check of the labels
    logits_of, device = getattr(classifier, "logits", classifier), images.device
    seeds, labels = (torch.arange(len(images)) if seeds is None else seeds).to(device), labels.to(device)
    result, fooled = images.clone(), torch.zeros(len(images), dtype=torch.bool, device=device)

    def objective(current: Tensor, index: Tensor) -> Tensor:
        logits = logits_of(current)
        fooled[index] = (logits.argmax(1) != labels[index]).to(device)
        return F.cross_entropy(logits, labels[index], reduction="none")

    active = torch.arange(len(images), device=device)
    for step in range(steps + 1 if eps > 0 else 0):
        for rows, filled in micro_batches(len(active), device, micro_batch):
            index, own = active[filled], active[rows]
            if step == 0:  # look at the clean images, and begin where they are right
                with torch.no_grad():
                    objective(images[index], index)
                moved = _random_start(images[index], seeds[index], 0, eps, "linf")
            else:  # the gradient's own forward pass shows whether the iterate before this step fools
                moved = _ascend(objective, images[index], result[index], index, eps, alpha, 1, "linf", 0)
            still = ~fooled[own]
            result[own[still]] = moved[:len(rows)][still]
        active = active[~fooled[active]]
    if result.isnan().any():
        raise AttackSettingsError(NOT_FINITE)
    return result


def _check_starts(images: Tensor, start: Tensor | None, seeds: Tensor | None, random_start: bool,
                  restarts: int) -> None:
    if restarts > 1 and (start is not None or not random_start):
        raise AttackSettingsError(f"{restarts} restarts from one start repeat the same run: use random_start=True")
    if start is not None:
        check_images(start)
        if start.shape != images.shape:
            raise AttackSettingsError(f"start has shape {tuple(start.shape)}: expected that of images, "
                                      f"{tuple(images.shape)}")
    if seeds is not None and len(seeds) != len(images):
        raise AttackSettingsError(f"{len(seeds)} seeds for {len(images)} images: expected one an image")


@torch.enable_grad()
def _ascend(objective: Objective, clean: Tensor, first: Tensor, index: Tensor, eps: float, alpha: float, steps: int,
            norm: str, momentum: float) -> Tensor:
    """The loop of ``pgd`` on one micro-batch. The loss is summed, so that no image's gradient depends on the others."""
    adversarial, velocity = first, 0
    for _ in range(steps):
        adversarial = adversarial.detach().requires_grad_()
        loss = objective(adversarial, index)
        if not (isinstance(loss, Tensor) and loss.requires_grad):
            raise AttackSettingsError(f"the objective returned a {type(loss).__name__} that does not depend on the "
                                      "images: expected a tensor of one number an image, with its graph")
        if loss.shape != index.shape:
            raise AttackSettingsError(f"the objective returned a loss of shape {tuple(loss.shape)}: expected one "
                                      f"number an image, {tuple(index.shape)}; use reduction='none'")
        gradient, = torch.autograd.grad(loss.sum(), adversarial)
        if momentum:
            mean_size = gradient.abs().mean(dim=(1, 2, 3), keepdim=True).clamp_min(1e-30)
            gradient = velocity = momentum * velocity + gradient / mean_size
        if norm == "linf":
            step = gradient.sign() + 0 * gradient  # the sign of NaN is 0, a silent weak attack: let NaN be seen
        else:
            step = gradient / _length(gradient).clamp_min(1e-30)
        adversarial = _project(adversarial.detach() + alpha * step, clean, eps, norm)
    return adversarial.detach()


@torch.no_grad()
def _keep_best(objective: Objective, runs: list[Tensor], index: Tensor) -> Tensor:
    """Of the last iterates of several runs the one with the highest loss, image by image."""
    if len(runs) == 1:
        return runs[0]
    best = torch.stack([objective(run, index) for run in runs]).argmax(0).to(index.device)
    return torch.stack(runs)[best, torch.arange(len(index), device=index.device)]


def _project(images: Tensor, clean: Tensor, eps: float, norm: str) -> Tensor:
    """The nearest point of the ball around ``clean``, then of [0, 1], which stays in the ball."""
    change = images - clean
    if norm == "linf":
        change = change.clamp(-eps, eps)
    else:
        change = change * (eps / _length(change).clamp_min(1e-30)).clamp_max(1)
    return (clean + change).clamp(0, 1)


def _length(change: Tensor) -> Tensor:
    """L_2 length per image, [B, 1, 1, 1]."""
    return change.flatten(1).norm(dim=1).view(-1, 1, 1, 1)


def check_settings(*, eps: float, alpha: float, steps: int, norm: str = "linf", momentum: float = 0.0,
                   restarts: int = 1) -> None:
    """Raise AttackSettingsError (UnknownNameError for the norm) unless an attack can run with these."""
    if norm not in ("linf", "l2"):
        raise unknown_name("norm", str(norm), ("linf", "l2"))
    for name, value in (("eps", eps), ("alpha", alpha)):
        if not (math.isfinite(value) and value >= 0):
            raise AttackSettingsError(f"{name} = {value}: expected a number of at least 0, such as 4 / 255")
        if norm == "linf" and value > 1:
            raise AttackSettingsError(f"{name} = {value:g} is above 1: pixels live in [0, 1], so a grey level is "
                                      f"1/255; did you mean {value:g} / 255?")
    if alpha == 0 < eps:
        raise AttackSettingsError("alpha = 0: an attack whose steps have no length goes nowhere; use alpha = eps / 4")
    for name, value in (("steps", steps), ("restarts", restarts)):
        if value != int(value) or value < 1:
            raise AttackSettingsError(f"{name} = {value}: expected a whole number of at least 1")
    if not 0 <= momentum < math.inf:
        raise AttackSettingsError(f"momentum = {momentum}: expected a number of at least 0, such as 0.9")


def from_grey_levels(value_255: float, name: str = "eps") -> float:
    """A radius or step in grey levels, 0 to 255, in units of [0, 1]. Raises AttackSettingsError."""
    if not 0 <= value_255 <= 255:
        raise AttackSettingsError(f"{name} = {value_255:g}: expected grey levels from 0 to 255, such as 4 for 4/255")
    return value_255 / 255


def quantize_inside(adversarial: Tensor, clean: Tensor, eps_255: float) -> Tensor:
    """The images on the 8-bit grid that are nearest to ``adversarial`` inside the L_inf ball and [0, 1].

    ``eps_255`` is in grey levels. A ball of any whole radius around an 8-bit image keeps its grid points; where a
    ball holds none (eps below half a level around a value between two), AttackSettingsError is raised.
    """
    from_grey_levels(eps_255)
    levels, slack = clean.double() * 255, 1e-4  # the slack forgives float32, in which n / 255 * 255 is not quite n
    low = (levels - eps_255 - slack).ceil().clamp_min(0)
    high = (levels + eps_255 + slack).floor().clamp_max(255)
    if (low > high).any():
        raise AttackSettingsError(f"eps = {eps_255:g} grey levels leaves no 8-bit value around some pixels: "
                                  "round the clean images to 8 bits first")
    return (adversarial.double() * 255).round().clamp(low, high).div(255).float()


def image_seeds(ids: Sequence[str], seed: int = 0) -> Tensor:
    """int64 [N]: a seed an image from its own name, so that its random start is the same in any order or subset."""
    digests = (hashlib.blake2b(f"{seed}/{name}".encode(), digest_size=8).digest() for name in ids)
    return torch.tensor([int.from_bytes(digest, "big", signed=True) for digest in digests], dtype=torch.int64)


def _random_start(clean: Tensor, seeds: Tensor, restart: int, eps: float, norm: str) -> Tensor:
    """A point of the ball, uniform in it before the clamp to [0, 1]; in L_inf the same bits on every device."""
    first = _uniform(clean, seeds, 3 * restart)
    if norm == "linf":
        return (clean + eps * (2 * first - 1)).clamp(0, 1)
    second = _uniform(clean, seeds, 3 * restart + 1)
    normal = (-2 * (1 - first).log()).sqrt() * (2 * math.pi * second).cos()  # Box and Muller (1958)
    radius = eps * _uniform(clean[:, :1, :1, :1], seeds, 3 * restart + 2) ** (1 / clean[0].numel())
    return (clean + radius * normal / _length(normal)).clamp(0, 1)


def _uniform(like: Tensor, seeds: Tensor, stream: int) -> Tensor:
    """float32 in [0, 1) shaped as ``like``: element j of image i is a hash of (seeds[i], stream, j), 24 bits of it."""
    key = _splitmix64(_splitmix64(seeds) + stream).view(-1, 1, 1, 1)
    counter = torch.arange(like[0].numel(), device=like.device).view(1, *like.shape[1:])
    return (_splitmix64(key + counter) >> 40 & (1 << 24) - 1).float() * 2.0**-24


def _splitmix64(x: Tensor) -> Tensor:
    """One output of Steele, Lea and Flood's splitmix64 (2014) at each int64, whose products wrap at 64 bits."""
    x = x - 0x61C8864680B583EB
    x = (x ^ _shift(x, 30)) * -0x40A7B892E31B1A47
    x = (x ^ _shift(x, 27)) * -0x6B2FB644ECCEEE15
    return x ^ _shift(x, 31)


def _shift(x: Tensor, bits: int) -> Tensor:
    """The right shift of unsigned numbers, which int64 lacks."""
    return x >> bits & (1 << 64 - bits) - 1
