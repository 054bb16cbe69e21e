"""Where an attack may look: balls around images in [0, 1], random points of them, grey levels, the settings' bounds."""

import hashlib
import math
from collections.abc import Sequence

import torch
from torch import Tensor

from zsar import kernels
from zsar.errors import AttackSettingsError, unknown_name


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


def check_seeds(seeds: Tensor | None, images: Tensor) -> Tensor:
    """The seeds int64 [N], one an image, beside the images; by default their rows, which are no property of theirs.

    Raises AttackSettingsError.
    """
    if seeds is None:
        return torch.arange(len(images), device=images.device)
    if len(seeds) != len(images):
        raise AttackSettingsError(f"{len(seeds)} seeds for {len(images)} images: expected one an image")
    return seeds.to(images.device)


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


def project(images: Tensor, clean: Tensor, eps: float, norm: str) -> Tensor:
    """The nearest point of the ball around ``clean``, then of [0, 1], which stays in the ball."""
    change = images - clean
    if norm == "linf":
        change = change.clamp(-eps, eps)
    else:
        change = change * (eps / length(change).clamp_min(1e-30)).clamp_max(1)
    return (clean + change).clamp(0, 1)


def length(change: Tensor) -> Tensor:
    """L_2 length per image, [B, 1, 1, 1]."""
    return change.flatten(1).norm(dim=1).view(-1, 1, 1, 1)


def random_point(clean: Tensor, seeds: Tensor, restart: int, eps: float, norm: str) -> Tensor:
    """A point of the ball, uniform in it before the clamp to [0, 1]; in L_inf the same bits on every device."""
    first = uniform(clean, seeds, 3 * restart)
    if norm == "linf":
        return (clean + eps * (2 * first - 1)).clamp(0, 1)
    second = uniform(clean, seeds, 3 * restart + 1)
    normal = (-2 * (1 - first).log()).sqrt() * (2 * math.pi * second).cos()  # Box and Muller (1958)
    radius = eps * uniform(clean[:, :1, :1, :1], seeds, 3 * restart + 2) ** (1 / clean[0].numel())
    return (clean + radius * normal / length(normal)).clamp(0, 1)


def uniform(like: Tensor, seeds: Tensor, stream: int) -> Tensor:
    """float32 in [0, 1) shaped as ``like``: element j of image i is a hash of (seeds[i], stream, j), 24 bits of it."""
    keys = _splitmix64(_splitmix64(seeds) + stream)
    if kernels.usable(like.device):
        return kernels.uniform(keys, like)
    key = keys.view(-1, 1, 1, 1)
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
