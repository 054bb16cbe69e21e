"""What the checks of a trust report look at: one attack on one classifier, and how far other attacks bring it."""

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property, partial

import torch
from torch import Tensor

from zsar.attacks import (
    MICRO_BATCH,
    Attack,
    LogitLoss,
    all_logits,
    apgd,
    check_settings,
    cross_entropy_loss,
    micro_batches,
    misclassified,
    pgd,
    pgd_until_fooled,
    square,
)
from zsar.attacks.engine import look
from zsar.attacks.objectives import check_labels, cross_entropy, objective_of
from zsar.clip import check_images
from zsar.errors import AttackSettingsError

#: How many times the steps of the audited attack the long one takes: if they win nothing, it had taken enough.
LONGER = 5
#: Random starts, the first of them that of our own PGD.
STARTS = 3
#: How many times the steps of the audited attack APGD on DLR takes, which halves its steps as it goes.
RATIO_STEPS = 2
#: A ball in which no picture is what it was, in units of [0, 1]: what survives there was not looked for.
BIG_EPS = 64 / 255


@dataclass(frozen=True)
class Finding:
    """What one check found.

    verdict: ``pass``, ``warning``, ``failure``, or ``not run``. number: what was measured, None where nothing was.
    says: the number with its unit, and of how many images. todo: what to do about it, empty where nothing is.
    """

    check: str
    verdict: str
    number: float | None
    says: str
    todo: str = ""


@dataclass(eq=False)
class Audit:
    """An attack on a classifier, and others that begin where it has left an image right. All masks are bool [N].

    But for the clean logits everything is measured when it is first asked for, and once. The arguments are those of
    ``trust``. Raises PixelRangeError and AttackSettingsError.
    """

    classifier: Callable[[Tensor], Tensor]
    images: Tensor
    labels: Tensor
    eps: float
    attack: Attack | None
    control: Callable[[Tensor], Tensor] | None
    source: Callable[[Tensor], Tensor] | None
    steps: int
    queries: int
    seeds: Tensor
    micro_batch: int | None
    clean_logits: Tensor = field(init=False)  # [N, K], on the CPU

    def __post_init__(self):
        check_images(self.images)
        check_settings(eps=self.eps, alpha=self.eps / 4, steps=self.steps)
        check_settings(eps=self.eps, alpha=self.eps, steps=self.queries)
        if self.eps == 0:
            raise AttackSettingsError("eps = 0: there is no attack to audit; use an eps such as 4 / 255")
        if self.labels.shape != self.images.shape[:1]:
            raise AttackSettingsError(f"labels of shape {tuple(self.labels.shape)} for {self.n} images: expected one "
                                      "an image")
        check_labels(self.classifier, self.labels)
        self.clean_logits = all_logits(self.classifier, self.images, self.micro_batch).cpu()

    @property
    def n(self) -> int:
        return len(self.images)

    @cached_property
    def gradient(self) -> Tensor:
        """That of the cross-entropy at the clean images [N, 3, H, W]. Raises AttackSettingsError where there is none.
        """
        return self.gradient_of(self.classifier, cross_entropy_loss(self.labels))

    @property
    def differentiable(self) -> bool:
        """Whether there is a gradient at all, be it zero."""
        try:
            return self.gradient is not None
        except AttackSettingsError:
            return False

    def gradient_of(self, classifier: Callable[[Tensor], Tensor], loss: LogitLoss) -> Tensor:
        """That of a loss of the classifier's logits at the clean images, [N, 3, H, W]."""
        objective = objective_of(classifier, loss)
        return torch.cat([look(objective, self.images[filled], filled)[1][:len(rows)]
                          for rows, filled in micro_batches(self.n, self.images.device, self.micro_batch)])

    @cached_property
    def attacked(self) -> Tensor:
        """What the audited attack makes of the images."""
        return (self.attack or self.own_attack)(self.classifier, self.images, self.labels, seeds=self.seeds,
                                                micro_batch=self.micro_batch)

    @cached_property
    def left(self) -> Tensor:
        """Which images the audited attack left right: its robust accuracy."""
        return ~misclassified(self.classifier, self.attacked, self.labels, self.micro_batch)

    @property
    def own_attack(self) -> Attack:
        """The attack that is audited where none is given: any iterate of PGD on the cross-entropy, steps of eps / 4."""
        return partial(pgd_until_fooled, eps=self.eps, alpha=self.eps / 4, steps=self.steps)

    @cached_property
    def own(self) -> Tensor:
        """Whom our own PGD breaks of those that the audited attack left."""
        return self.broken_by(self.own_attack, self.left) if self.attack else torch.zeros_like(self.left)

    @cached_property
    def longer(self) -> Tensor:
        """Whom it breaks with more steps. Its path begins as that of ``own``, so that it breaks these as well."""
        attack = partial(pgd_until_fooled, eps=self.eps, alpha=self.eps / 4, steps=LONGER * self.steps)
        return self.own | self.broken_by(attack, self.left & ~self.own)

    @cached_property
    def restarted(self) -> Tensor:
        """Whom it breaks from any of several random starts, the first of which is that of ``own``."""
        found = self.own
        for start in range(1, STARTS):
            attack = partial(pgd_until_fooled, eps=self.eps, alpha=self.eps / 4, steps=self.steps)
            found = found | self.broken_by(attack, self.left & ~found, self.seeds ^ (start << 32))
        return found

    @cached_property
    def by_ratio(self) -> Tensor:
        """Whom APGD on DLR breaks of those that the cross-entropy left, given more steps and more starts."""
        attack = partial(apgd, eps=self.eps, steps=RATIO_STEPS * self.steps, loss="dlr")
        return self.broken_by(attack, self.left & ~self.longer & ~self.restarted)

    @cached_property
    def hard(self) -> Tensor:
        """Whom no white-box attack broke."""
        return self.left & ~self.longer & ~self.restarted & ~self.by_ratio

    @cached_property
    def by_square(self) -> Tensor:
        """Whom Square breaks of those that are ``hard``, without a gradient."""
        return self.broken_by(partial(square, eps=self.eps, queries=self.queries), self.hard)

    @cached_property
    def by_transfer(self) -> Tensor:
        """Whom PGD's last iterate on another classifier breaks of those that are ``hard``."""

        def attack(classifier: Callable[[Tensor], Tensor], images: Tensor, labels: Tensor, seeds: Tensor,
                   micro_batch: int | None) -> Tensor:
            return pgd(cross_entropy(self.source, labels), images, eps=self.eps, alpha=self.eps / 4, steps=self.steps,
                       seeds=seeds, micro_batch=micro_batch)

        return self.broken_by(attack, self.hard)

    @cached_property
    def by_big_eps(self) -> Tensor:
        """Whom our own PGD breaks of those that the audited attack left, in a ball where nothing can stand."""
        eps = max(BIG_EPS, self.eps)
        return self.broken_by(partial(pgd_until_fooled, eps=eps, alpha=eps / 4, steps=self.steps), self.left)

    def broken_by(self, attack: Attack, among: Tensor, seeds: Tensor | None = None) -> Tensor:
        """Which of ``among`` the attack brings the classifier to get wrong."""
        rows, broken = among.nonzero().flatten(), torch.zeros_like(among)
        if len(rows):
            labels, seeds = self.labels[rows], (self.seeds if seeds is None else seeds)[rows]
            size = self.micro_batch or MICRO_BATCH.get(self.images.device.type, 64)
            size = -(-len(rows) // -(-len(rows) // size))  # as few as are left: a batch of 20 is filled up for one
            found = attack(self.classifier, self.images[rows], labels, seeds=seeds, micro_batch=size)
            broken[rows] = misclassified(self.classifier, found, labels, size)
        return broken
