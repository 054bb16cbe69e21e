"""Figures of a store: what methods change on every dataset, what it costs, and how it depends on eps.

Each raises StoreError where the store lacks the cells, with the command that computes them.
"""

from collections import defaultdict
from collections.abc import Sequence

from matplotlib.figure import Figure

from zsar.attacks import parse_attack, spell_attack
from zsar.errors import StoreError
from zsar.figures import change_panels, eps_curves, tradeoff
from zsar.report.scores import Scores
from zsar.results import Estimate
from zsar.results.tables import CLEAN, ORIGINAL

PANELS = 12  # methods whose changes are drawn where none are named: more would be too small to read


def over_datasets(scores: Scores, attack: str, methods: Sequence[str] | None = None) -> Figure:
    """Original against methods on every dataset, clean and under an attack.

    methods: by default the first ``PANELS``, points of an interpolation aside. Raises StoreError where there is nothing
    but the original.
    """
    adapted = [method for method in scores.tested(attack) if method != ORIGINAL and "@" not in method]
    methods = methods or adapted[:PANELS]
    if not methods:
        raise StoreError(f"Nothing beside the original CLIP was measured under {attack}. "
                         + computes(scores, methods="tecoa:finetune"))
    datasets, panels = list(scores.tasks), {}
    for method in methods:
        panels[method] = {label: [_pair(scores, method, dataset, kind) for dataset in datasets]
                          for label, kind in (("clean", CLEAN), (attack, attack))}
    return change_panels(datasets, panels)


def _pair(scores: Scores, method: str, dataset: str, attack: str) -> tuple[float | None, Estimate] | None:
    before, after = (scores.score(name, dataset, attack) for name in (ORIGINAL, method))
    return after and (before and before.accuracy.value, after.accuracy)


def clean_against_robust(scores: Scores, attack: str) -> Figure:
    """Mean clean against mean robust accuracy over the datasets of both, with lines from the original through the
    points of an interpolation (``LOSS:finetune@WEIGHT``). Raises StoreError where no method has both.
    """
    datasets = [dataset for dataset in scores.datasets(attack) if dataset in scores.datasets(CLEAN)]
    means = {method: tuple(scores.mean(method, kind, datasets) for kind in (CLEAN, attack))
             for method in scores.methods}
    points = {method: found for method, found in means.items() if all(found)}
    if not points:
        raise StoreError(f"No method has every dataset, both clean and under {attack}. "
                         + computes(scores, attacks=f"none,{attack}"))
    return tradeoff(points, interpolations(list(points)))


def interpolations(methods: list[str]) -> list[list[str]]:
    """Lines from the original's weights to adapted ones, each through its points that were measured."""
    lines = defaultdict(list)
    for method in methods:
        name, _, weight = method.partition("@")
        lines[name].append((float(weight or 1), method))
    return [[ORIGINAL, *(method for _, method in sorted(points))] for points in lines.values()
            if any("@" in method for _, method in points)]


def against_eps(scores: Scores) -> dict[str, Figure]:
    """Mean robust accuracy against eps: a figure for each kind of attack that was run at several, by its name.

    At eps 0 stands the clean accuracy. Methods that lack a dataset or an eps are left out. Raises StoreError where no
    attack was run at two eps.
    """
    figures = {}
    for kind, of_eps in attack_kinds(scores).items():
        points = {0: CLEAN} | of_eps if scores.datasets(CLEAN) else of_eps
        datasets = [name for name in scores.tasks if all(name in scores.datasets(attack) for attack in points.values())]
        means = {method: [scores.mean(method, attack, datasets) for attack in points.values()]
                 for method in scores.methods}
        series = {method: [(one.value, one.low, one.high) for one in line] for method, line in means.items()
                  if all(line)}
        if series:
            figures[kind] = eps_curves(list(points), series)
    if not figures:
        raise StoreError("No method was attacked at several eps. "
                         + computes(scores, attacks=",".join(_more_eps(scores))))
    return figures


def attack_kinds(scores: Scores) -> dict[str, dict[float, str]]:
    """Attacks that differ in eps alone, and in a step that is a fraction of it, by eps: kinds of at least two."""
    kinds = defaultdict(dict)
    for attack in scores.attacks:
        settings, name = scores.settings[attack], attack.partition("@")[0]
        eps, alpha = settings["eps_255"], settings.get("alpha_255")
        if eps and alpha is None:
            kinds[name][eps] = attack
        elif eps:
            kinds[f"{name}, step {alpha / eps:.3g} x eps"][eps] = attack
            kinds[f"{name}, step {alpha:g}/255"][eps] = attack
    return {kind: dict(sorted(of_eps.items())) for kind, of_eps in kinds.items() if len(of_eps) > 1}


def _more_eps(scores: Scores) -> list[str]:
    """The first attack at half and twice its eps too."""
    settings = scores.settings[scores.attacks[0]] if scores.attacks else parse_attack("pgd-20", 4)
    spelled = [spell_attack(settings | {field: factor * settings[field] for field in ("eps_255", "alpha_255")
                                        if field in settings})
               for factor in (0.5, 1, 2)]
    return [CLEAN, *spelled]


def computes(scores: Scores, **options: str) -> str:
    """The sentence that says which command computes what is missing."""
    words = " ".join(f"--{name} {value}" for name, value in options.items())
    return (f"This computes it, with the other options as they were: python -m zsar reproduce {words} --out "
            f"{scores.store.folder}")
