"""Attacks by their settings: as a dictionary in a record, and spelled in a word, such as ``pgd-20-worst@4:1``."""

import re
from collections.abc import Callable
from functools import partial

from torch import Tensor

from zsar.attacks import check_settings, cross_entropy, from_grey_levels, pgd, pgd_until_fooled
from zsar.clip import ZeroShotClassifier
from zsar.errors import AttackSettingsError, unknown_name

#: ``attack(classifier, images, labels, seeds, micro_batch=None) -> attacked images``
Attack = Callable[..., Tensor]

ATTACKS, ITERATES = ("none", "fgsm", "pgd"), ("last", "worst")
SPELLED = re.compile(r"(?P<name>[a-z]+)(-(?P<steps>\d+))?(-(?P<iterate>last|worst))?"
                     r"(@(?P<eps>[\d.]+(e-?\d+)?)(:(?P<alpha>[\d.]+(e-?\d+)?))?)?")


def attack_settings(name: str, eps_255: float, alpha_255: float | None = None, steps: int | None = None,
                    iterate: str | None = None) -> dict:
    """The settings of an attack with what is not given filled in: a step of eps / 4, ten steps, the last iterate.

    Raises UnknownNameError and AttackSettingsError.
    """
    if name == "none":
        return {"attack": "none"}
    fgsm = name == "fgsm"
    settings = {"attack": name, "norm": "linf", "eps_255": eps_255,
                "alpha_255": eps_255 if fgsm else eps_255 / 4 if alpha_255 is None else alpha_255,
                "steps": 1 if fgsm else 10 if steps is None else steps, "restarts": 1, "random_start": not fgsm,
                "iterate": iterate or "last"}
    attack_from_settings(settings)
    return settings


def parse_attack(text: str, eps_255: float) -> dict:
    """Settings from NAME[-STEPS][-worst][@EPS[:ALPHA]], EPS and ALPHA in grey levels; without @ EPS is ``eps_255``.

    Raises UnknownNameError and AttackSettingsError.

    >>> parse_attack("pgd-20-worst@4:1", 1)["alpha_255"]
    1.0
    """
    found = SPELLED.fullmatch(text)
    if not found:
        raise AttackSettingsError(f"attack {text!r}: expected NAME[-STEPS][-worst][@EPS[:ALPHA]], such as none, fgsm, "
                                  "pgd-20, pgd-100@1:1 or pgd-20-worst")
    try:
        eps, alpha = (None if found[part] is None else float(found[part]) for part in ("eps", "alpha"))
    except ValueError as error:
        raise AttackSettingsError(f"attack {text!r}: expected numbers of grey levels behind @, such as @4:1") from error
    extra = [part for part in ("steps", "iterate", "eps") if found[part]]
    if found["name"] in ATTACKS and (useless := {"none": extra, "fgsm": [p for p in extra if p != "eps"]}.get(
            found["name"])):
        raise AttackSettingsError(f"attack {text!r}: {found['name']} has no {useless[0]}")
    return attack_settings(found["name"], eps_255 if eps is None else eps, alpha,
                           int(found["steps"]) if found["steps"] else None, found["iterate"])


def spell_attack(settings: dict) -> str:
    """The word that ``parse_attack`` reads back, with everything in it.

    >>> spell_attack(parse_attack("pgd-20", 4))
    'pgd-20@4:1'
    """
    name = settings["attack"]
    if name == "none":
        return name
    steps = "" if name == "fgsm" else f"-{settings['steps']}" + "-worst" * (settings["iterate"] == "worst")
    alpha = "" if name == "fgsm" else f":{_short(settings['alpha_255'])}"
    return f"{name}{steps}@{_short(settings['eps_255'])}{alpha}"


def describe_attack(settings: dict) -> str:
    """The settings of an attack in words.

    >>> describe_attack(parse_attack("pgd-20-worst", 4))
    'PGD-20, L_inf, eps 4/255, alpha 1/255, worst iterate'
    """
    return {"none": "no attack", "fgsm": "FGSM, eps {eps_255:g}/255",
            "pgd": "PGD-{steps}, L_inf, eps {eps_255:g}/255, alpha {alpha_255:g}/255, {iterate} iterate"}[
                settings["attack"]].format(**settings)


def _short(value: float) -> str:
    """A number in few digits, if these are all it has."""
    return f"{value:g}" if float(f"{value:g}") == value else repr(float(value))


def attack_from_settings(settings: dict) -> Attack | None:
    """The attack that ``attack``, ``eps_255``, ``alpha_255``, ``steps`` and ``iterate`` describe; None for ``none``.

    ``iterate``: ``"last"`` (by default), or ``"worst"``, any iterate that fools (``pgd_until_fooled``). Raises
    UnknownNameError and AttackSettingsError.
    """
    name = settings["attack"]
    if name not in ATTACKS:
        raise unknown_name("attack", name, ATTACKS)
    if name == "none":
        return None
    eps, alpha = from_grey_levels(settings["eps_255"]), from_grey_levels(settings["alpha_255"], "alpha")
    steps = settings["steps"]
    check_settings(eps=eps, alpha=alpha, steps=steps)
    if (iterate := settings.get("iterate", "last")) not in ITERATES:
        raise unknown_name("iterate", iterate, ITERATES)
    if iterate == "worst" and name != "pgd":
        raise AttackSettingsError(f"the worst iterate of {name}: it has one step; use pgd")
    if iterate == "worst":
        return partial(_until_fooled, eps=eps, alpha=alpha, steps=steps)
    return partial(_last, eps=eps, alpha=alpha, steps=steps, random_start=name == "pgd")


def _until_fooled(classifier: ZeroShotClassifier, images: Tensor, labels: Tensor, seeds: Tensor,
                  micro_batch: int | None = None, **settings) -> Tensor:
    return pgd_until_fooled(classifier, images, labels, seeds=seeds, micro_batch=micro_batch, **settings)


def _last(classifier: ZeroShotClassifier, images: Tensor, labels: Tensor, seeds: Tensor,
          micro_batch: int | None = None, **settings) -> Tensor:
    return pgd(cross_entropy(classifier, labels), images, seeds=seeds, micro_batch=micro_batch, **settings)
