"""Attacks on images in [0, 1], inside an L_inf or L_2 ball.

An attacked image depends on that image, its seed and the settings only: random numbers come from a counter, and the
model always sees micro-batches of one shape, short ones padded. In order of knowledge: ``objectives`` (what is
maximised), ``balls`` (where), ``engine`` (one look at a micro-batch), ``search`` (until fooled); the attacks ``pgd``,
``apgd``, ``square``, ``ensemble`` and ``reference``; ``specs``, which spells them.
"""

from zsar.attacks.apgd import apgd
from zsar.attacks.balls import check_settings, from_grey_levels, image_seeds, quantize_inside
from zsar.attacks.engine import MICRO_BATCH, all_logits, exact_of, micro_batches
from zsar.attacks.ensemble import ensemble
from zsar.attacks.objectives import (
    LogitLoss,
    Objective,
    cross_entropy,
    cross_entropy_loss,
    dlr_loss,
    margin,
    margin_loss,
    targeted_dlr_loss,
)
from zsar.attacks.pgd import fgsm, pgd, pgd_until_fooled
from zsar.attacks.reference import autoattack
from zsar.attacks.search import misclassified
from zsar.attacks.specs import (
    ATTACKS,
    OPTIONS,
    Attack,
    attack_from_settings,
    attack_settings,
    describe_attack,
    most_steps,
    parse_attack,
    spell_attack,
)
from zsar.attacks.square import square

__all__ = [
    "ATTACKS", "MICRO_BATCH", "OPTIONS", "Attack", "LogitLoss", "Objective", "all_logits", "apgd",
    "attack_from_settings", "attack_settings", "autoattack", "check_settings", "cross_entropy",
    "cross_entropy_loss", "describe_attack", "dlr_loss", "ensemble", "exact_of", "fgsm", "from_grey_levels",
    "image_seeds", "margin", "margin_loss", "micro_batches", "misclassified", "most_steps", "parse_attack", "pgd",
    "pgd_until_fooled", "quantize_inside", "spell_attack", "square", "targeted_dlr_loss",
]
