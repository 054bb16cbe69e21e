"""Attacks by their settings: as a dictionary in a record, and spelled in a word, such as ``pgd-20-worst@4:1``."""

import re
from collections.abc import Callable
from functools import partial

from torch import Tensor

from zsar.attacks.apgd import TARGETS, apgd
from zsar.attacks.balls import check_settings, from_grey_levels
from zsar.attacks.ensemble import ensemble
from zsar.attacks.objectives import Objective, cross_entropy, cross_entropy_loss, margin, margin_loss
from zsar.attacks.pgd import pgd, pgd_until_fooled
from zsar.attacks.reference import autoattack
from zsar.attacks.square import square
from zsar.errors import AttackSettingsError, unknown_name

#: ``attack(classifier, images, labels, seeds, micro_batch=None) -> attacked images``
Attack = Callable[..., Tensor]

PGD_OPTIONS = ("eps", "alpha", "steps", "iterate")
#: Which settings each attack has. The steps of Square are its queries.
OPTIONS = {"none": (), "fgsm": ("eps",), "pgd": PGD_OPTIONS, "cw": PGD_OPTIONS, "apgd-ce": ("eps", "steps"),
           "apgd-dlr": ("eps", "steps"), "apgd-t": ("eps", "steps"), "square": ("eps", "steps"), "ensemble": ("eps",),
           "autoattack": ("eps",)}
ATTACKS, ITERATES = tuple(OPTIONS), ("last", "worst")
STEPS = {"pgd": 10, "cw": 10, "apgd-ce": 100, "apgd-dlr": 100, "apgd-t": 100, "square": 5000}
#: What an attack without steps runs, each with those of ``STEPS``; FAB, targeted too, counts as APGD.
RUNS = {"ensemble": ("apgd-ce", "apgd-t", "square"), "autoattack": ("apgd-ce", "apgd-t", "apgd-t", "square")}
APGD_LOSS = {"apgd-ce": "ce", "apgd-dlr": "dlr", "apgd-t": "targeted-dlr"}
SPELLED = re.compile(r"(?P<name>[a-z]+(-(?!worst|last)[a-z]+)?)(-(?P<steps>\d+))?(-(?P<iterate>last|worst))?"
                     r"(@(?P<eps>[\d.]+(e-?\d+)?)(:(?P<alpha>[\d.]+(e-?\d+)?))?)?")


def attack_settings(name: str, eps_255: float, alpha_255: float | None = None, steps: int | None = None,
                    iterate: str | None = None) -> dict:
    """The settings of an attack with what is not given filled in: for PGD ten steps of eps / 4, the last iterate.

    Raises UnknownNameError, and AttackSettingsError, also for a setting that the attack does not have.
    """
    if name not in ATTACKS:
        raise unknown_name("attack", name, ATTACKS)
    for option, value in (("alpha", alpha_255), ("steps", steps), ("iterate", iterate)):
        if value is not None and option not in OPTIONS[name]:
            raise AttackSettingsError(f"{name} has no {option}")
    if name == "none":
        return {"attack": "none"}
    settings = {"attack": name, "norm": "linf", "eps_255": eps_255}
    if name == "fgsm":
        settings |= {"alpha_255": eps_255, "steps": 1, "restarts": 1, "random_start": False, "iterate": "last"}
    elif OPTIONS[name] == PGD_OPTIONS:
        settings |= {"alpha_255": eps_255 / 4 if alpha_255 is None else alpha_255,
                     "steps": STEPS[name] if steps is None else steps, "restarts": 1, "random_start": True,
                     "iterate": iterate or "last"}
    elif name in STEPS:
        settings |= {"steps": STEPS[name] if steps is None else steps}
    attack_from_settings(settings)
    return settings


def parse_attack(text: str, eps_255: float) -> dict:
    """Settings from NAME[-STEPS][-worst][@EPS[:ALPHA]], EPS and ALPHA in grey levels; without @ EPS is ``eps_255``.

    Raises UnknownNameError and AttackSettingsError.

    >>> parse_attack("pgd-20-worst@4:1", 1)["alpha_255"]
    1.0
    >>> parse_attack("apgd-ce-50", 4)["steps"]
    50
    """
    found = SPELLED.fullmatch(text)
    if not found:
        raise AttackSettingsError(f"attack {text!r}: expected NAME[-STEPS][-worst][@EPS[:ALPHA]], such as none, fgsm, "
                                  "pgd-20, pgd-100@1:1, pgd-20-worst or apgd-ce-100@1")
    try:
        eps, alpha = (None if found[part] is None else float(found[part]) for part in ("eps", "alpha"))
    except ValueError as error:
        raise AttackSettingsError(f"attack {text!r}: expected numbers of grey levels behind @, such as @4:1") from error
    if found["name"] == "none" and eps is not None:
        raise AttackSettingsError(f"attack {text!r}: none has no eps")
    try:
        return attack_settings(found["name"], eps_255 if eps is None else eps, alpha,
                               int(found["steps"]) if found["steps"] else None, found["iterate"])
    except AttackSettingsError as error:  # which of many words it was
        raise AttackSettingsError(f"attack {text!r}: {error}") from error


def spell_attack(settings: dict) -> str:
    """The word that ``parse_attack`` reads back, with everything in it.

    >>> spell_attack(parse_attack("pgd-20", 4))
    'pgd-20@4:1'
    """
    name = settings["attack"]
    has = OPTIONS[name]
    if not has:
        return name
    steps = f"-{settings['steps']}" if "steps" in has else ""
    worst = "-worst" if "iterate" in has and settings["iterate"] == "worst" else ""
    alpha = f":{_short(settings['alpha_255'])}" if "alpha" in has else ""
    return f"{name}{steps}{worst}@{_short(settings['eps_255'])}{alpha}"


def most_steps(settings: dict) -> int:
    """The steps, or queries, that an attack takes with an image, at most; the one look of ``none``.

    >>> most_steps(parse_attack("ensemble", 4))
    6000
    """
    name = settings["attack"]
    if name in RUNS:
        return sum(most_steps({"attack": run, "steps": STEPS[run]}) for run in RUNS[name])
    return settings.get("steps", 1) * (TARGETS if name == "apgd-t" else 1)


#: What ``describe_attack`` says of each; whatever has no iterate keeps the first point that fools.
IN_WORDS = {
    "none": "no attack", "fgsm": "FGSM, eps {eps_255:g}/255",
    "pgd": "PGD-{steps}, L_inf, eps {eps_255:g}/255, alpha {alpha_255:g}/255, {iterate} iterate",
    "cw": "CW margin, {steps} signed steps, L_inf, eps {eps_255:g}/255, alpha {alpha_255:g}/255, {iterate} iterate",
    "apgd-ce": "APGD-CE, {steps} steps, L_inf, eps {eps_255:g}/255",
    "apgd-dlr": "APGD-DLR, {steps} steps, L_inf, eps {eps_255:g}/255",
    "apgd-t": "targeted APGD-DLR, {steps} steps a target, L_inf, eps {eps_255:g}/255",
    "square": "Square, {steps} queries, L_inf, eps {eps_255:g}/255",
    "ensemble": "ensemble of APGD-CE, targeted APGD-DLR and Square, L_inf, eps {eps_255:g}/255",
    "autoattack": "AutoAttack (its authors' code), L_inf, eps {eps_255:g}/255",
}


def describe_attack(settings: dict) -> str:
    """The settings of an attack in words.

    >>> describe_attack(parse_attack("pgd-20-worst", 4))
    'PGD-20, L_inf, eps 4/255, alpha 1/255, worst iterate'
    """
    return IN_WORDS[settings["attack"]].format(**settings)


def _short(value: float) -> str:
    """A number in few digits, if these are all it has."""
    return f"{value:g}" if float(f"{value:g}") == value else repr(float(value))


def attack_from_settings(settings: dict) -> Attack | None:
    """The attack that ``attack``, ``eps_255``, ``alpha_255``, ``steps`` and ``iterate`` describe; None for ``none``.

    ``iterate`` of ``pgd`` and ``cw``: ``"last"`` (by default), or ``"worst"``, any iterate that fools
    (``pgd_until_fooled``). Raises UnknownNameError and AttackSettingsError.
    """
    name = settings["attack"]
    if name not in ATTACKS:
        raise unknown_name("attack", name, ATTACKS)
    if name == "none":
        return None
    given = {"eps": from_grey_levels(settings["eps_255"])}
    if "steps" in OPTIONS[name] or name == "fgsm":
        given["steps"] = settings["steps"]
    if "alpha" in OPTIONS[name] or name == "fgsm":
        given["alpha"] = from_grey_levels(settings["alpha_255"], "alpha")
    check_settings(**{"alpha": given["eps"], "steps": 1} | given)
    return _from_pgd(name, settings, given) if "alpha" in given else _from_others(name, given)


def _from_pgd(name: str, settings: dict, given: dict) -> Attack:
    if (iterate := settings.get("iterate", "last")) not in ITERATES:
        raise unknown_name("iterate", iterate, ITERATES)
    if iterate == "worst":
        if name == "fgsm":
            raise AttackSettingsError("the worst iterate of fgsm: it has one step; use pgd")
        return partial(_called, pgd_until_fooled, loss=margin_loss if name == "cw" else cross_entropy_loss, **given)
    return partial(_last, margin if name == "cw" else cross_entropy, random_start=name != "fgsm", **given)


def _from_others(name: str, given: dict) -> Attack:
    if name in APGD_LOSS:
        return partial(_called, apgd, loss=APGD_LOSS[name], **given)
    if name == "square":
        given["queries"] = given.pop("steps")
    return partial(_called, {"square": square, "ensemble": ensemble, "autoattack": autoattack}[name], **given)


def _called(attack: Callable[..., Tensor], classifier: Callable[[Tensor], Tensor], images: Tensor, labels: Tensor,
            seeds: Tensor, micro_batch: int | None = None, **settings) -> Tensor:
    return attack(classifier, images, labels, seeds=seeds, micro_batch=micro_batch, **settings)


def _last(objective: Callable[..., Objective], classifier: Callable[[Tensor], Tensor], images: Tensor, labels: Tensor,
          seeds: Tensor, micro_batch: int | None = None, **settings) -> Tensor:
    return pgd(objective(classifier, labels), images, seeds=seeds, micro_batch=micro_batch, **settings)
