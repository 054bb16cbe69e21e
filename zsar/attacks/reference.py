"""AutoAttack of Croce and Hein (2020) as the package ``pyautoattack`` has it: what our own attacks are held to."""

import sys
from collections.abc import Callable

import torch
from torch import Tensor, nn

from zsar.attacks.balls import check_settings
from zsar.attacks.engine import MICRO_BATCH, all_logits, exact_of
from zsar.attacks.objectives import check_labels, logits_of
from zsar.clip import check_images
from zsar.errors import AttackSettingsError

NEEDED = "the reference AutoAttack is the package pyautoattack, which is not here: pip install pyautoattack"
STANDARD = ("apgd-ce", "apgd-t", "fab-t", "square")


def autoattack(classifier: Callable[[Tensor], Tensor], images: Tensor, labels: Tensor, *, eps: float,
               attacks: tuple[str, ...] = STANDARD, seeds: Tensor | None = None,
               micro_batch: int | None = None) -> Tensor:
    """The reference AutoAttack in L_inf: ``apgd-ce``, ``apgd-t``, ``fab-t``, ``square`` in turn, 100 steps each.

    It draws a batch's random numbers together, so that an image's result depends on its neighbours, as its authors'
    does. Of few classes it can use less: none of the targeted attacks of two or three, ``apgd-dlr`` and ``fab`` of
    three, ``fab`` of two.

    Args:
        classifier, images, labels, eps: as in ``apgd``, but of a fast classifier the exact one: it judges as it
            climbs. ``attacks``: names of the package.
        seeds: the first one seeds the package; the global generators are left as they were.
        micro_batch: images in one forward pass.

    Returns images [N, 3, H, W]: where fooled the point that fools, else the clean one. Raises AttackSettingsError
    where the package is missing, and the errors of ``apgd``.
    """
    check_images(images)
    check_settings(eps=eps, alpha=eps, steps=1)
    check_labels(classifier, labels)
    try:
        from pyautoattack import AutoAttack
    except ImportError as error:
        raise AttackSettingsError(NEEDED) from error
    if eps == 0:
        return images.clone()
    classes, device = all_logits(classifier, images[:1], 1).shape[1], images.device
    seed = 0 if seeds is None or not len(seeds) else int(seeds[0]) & 2**31 - 1
    tracer, devices = sys.gettrace(), [device] if device.type == "cuda" else []
    with torch.random.fork_rng(devices=devices):
        adversary = AutoAttack(_Module(exact_of(classifier) or classifier), attacks=list(possible(attacks, classes)),
                               device=device, eps=eps, norm="Linf", seed=seed, version="custom")
        adversary.apgd.n_restarts = 1  # as its standard version has it
        adversary.fab.n_restarts = 1
        for attack in (adversary.apgd_targeted, adversary.fab):
            attack.n_target_classes = min(attack.n_target_classes, classes - 1)
        try:
            found, _ = adversary.run_standard_evaluation(images, labels.to(device), batch_size=micro_batch
                                                         or MICRO_BATCH.get(device.type, 64))
        finally:
            sys.settrace(tracer)  # it looks for gradients inside the model with a tracer of its own
    return found.detach()


def possible(attacks: tuple[str, ...], classes: int) -> list[str]:
    """What so few classes leave of the package's attacks, each once."""
    instead = {2: {"apgd-t": (), "apgd-dlr": (), "fab-t": ("fab",)},
               3: {"apgd-t": ("apgd-dlr",), "fab-t": ("fab",)}}.get(classes, {})
    return list(dict.fromkeys(name for attack in attacks for name in instead.get(attack, (attack,))))


class _Module(nn.Module):
    """The classifier as the package calls it."""

    def __init__(self, classifier: Callable[[Tensor], Tensor]):
        super().__init__()
        self.logits_of = logits_of(classifier)

    def forward(self, images: Tensor) -> Tensor:
        return self.logits_of(images)
