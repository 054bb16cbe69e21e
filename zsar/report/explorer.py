"""The table of a store as a figure to ask: a method or all of them, on a dataset or on all."""

from collections.abc import Mapping

from zsar.report.scores import Scores, mean_name
from zsar.results import Estimate
from zsar.results.comparison import compare, mean_difference
from zsar.results.tables import CLEAN, ORIGINAL
from zsar.widgets import Bar, Change, LiveFigure, Menu, State, bars

ALL_METHODS, ALL_DATASETS = "all methods", "all datasets"
COLUMNS = ("clean, %", "attacked, %", "images", "clean, points", "attacked, points")
STILL = ("Where scripts run, two menus choose a method and a dataset. Points are the difference to the original CLIP "
         "on the same images, with 95 % intervals.")


def explorer(scores: Scores, attack: str) -> LiveFigure:
    """Clean and attacked accuracy with intervals, and the paired difference to the original, by method and dataset.

    What a store lacks is shown as a dash. Differences are of one seed, the first.
    """
    changes = {method: _changes(scores, method, attack) for method in scores.methods if method != ORIGINAL}
    methods, datasets = [ALL_METHODS, *scores.methods], [ALL_DATASETS, *scores.tasks]
    states = {(method, dataset): _state(scores, changes, attack, method, dataset)
              for method in methods for dataset in datasets}
    return LiveFigure({"method": Menu(tuple(methods)), "dataset": Menu(tuple(datasets))}, states, STILL)


def _changes(scores: Scores, method: str, attack: str) -> dict[tuple[str, str], Change]:
    """The paired difference to the original by (attack, dataset), and over all datasets."""
    if ORIGINAL not in scores.methods:
        return {}
    seed, found = scores.seeds[0], {}
    pairs = [one for one in compare(method, ORIGINAL, scores.store)[0] if one.seed == seed]
    for kind in (CLEAN, attack):
        part = [one for one in pairs if one.attack == kind and one.dataset in scores.tasks]
        found |= {(kind, one.dataset): Change(one.paired.difference, one.paired.low, one.paired.high) for one in part}
        if len(part) == len(scores.tasks):
            mean = mean_difference(part)
            found[kind, ALL_DATASETS] = Change(mean.value, mean.low, mean.high)
    return found


def _state(scores: Scores, changes: Mapping[str, dict], attack: str, method: str, dataset: str) -> State:
    """What is shown of a choice: a line for it, for each method or for each dataset."""
    if method == ALL_METHODS:
        rows = {name: (name, dataset) for name in scores.methods}
    elif dataset == ALL_DATASETS:
        rows = {mean_name(scores.tasks): (method, dataset)} | {name: (method, name) for name in scores.tasks}
    else:
        rows = {dataset: (method, dataset)}
    numbers = {row: [_accuracy(scores, *which, kind) for kind in (CLEAN, attack)] for row, which in rows.items()}
    shifts = {row: [changes.get(which[0], {}).get((kind, which[1])) for kind in (CLEAN, attack)]
              for row, which in rows.items()}
    lines = {row: [*(Bar.of(one) if one else "–" for one in numbers[row]), _images(numbers[row]),
                   *(one or "–" for one in shifts[row])] for row in rows}
    head = "method" if method == ALL_METHODS else "dataset"
    table = bars([head, *COLUMNS], lines, bold=next(iter(rows)) if len(rows) > 1 and head == "dataset" else "")
    return State(table, _sentence(method, dataset, numbers, shifts))


def _accuracy(scores: Scores, method: str, dataset: str, attack: str) -> Estimate | None:
    if dataset == ALL_DATASETS:
        return scores.mean(method, attack, list(scores.tasks))
    found = scores.score(method, dataset, attack)
    return found and found.accuracy


def _images(numbers: list[Estimate | None]) -> str:
    return next((f"{one.images:,}" for one in numbers if one), "–")


def _sentence(method: str, dataset: str, numbers: Mapping[str, list], shifts: Mapping[str, list]) -> str:
    """A state read aloud: its one line, or who is ahead."""
    if method == ALL_METHODS:
        best = [max((row for row in numbers if numbers[row][i]), key=lambda row: numbers[row][i].value, default=None)
                for i in (0, 1)]
        said = [f"{kind}, {row} is highest with {numbers[row][i].value:.1f}\u00a0%" for i, (kind, row) in
                enumerate(zip(("clean", "under attack"), best, strict=True)) if row]
        return f"{len(numbers)} methods on {dataset}: {'; '.join(said) or 'nothing measured'}."
    line = next(iter(numbers))
    values = [f"{one}\u00a0% {kind}" for one, kind in zip(numbers[line], ("clean", "under attack"), strict=True) if one]
    moved = [f"{one} points {kind}" for one, kind in zip(shifts[line], ("clean", "under attack"), strict=True)
             if one]
    compared = f"; against the original {' and '.join(moved)}" if moved else ""
    return f"{method}, {line}: {' and '.join(values) or 'nothing measured'}{compared}."
