"""Two methods beside each other, image by image: which one is ahead on a dataset, and whether that can be chance."""

from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import product, zip_longest
from pathlib import Path

import numpy as np

from zsar.errors import ClassNamesError, StoreError, unknown_name
from zsar.results.cell import Cell, Key, Task
from zsar.results.sealed import DamagedError
from zsar.results.statistics import Estimate, Paired, estimate, holm, paired
from zsar.results.store import Store
from zsar.results.tables import method_names, model_of, no_cells

#: Where two cells stand beside each other: attack, seed, dataset, split, precision.
Place = tuple[str, int, str, str, str]


@dataclass(frozen=True)
class Comparison:
    """Two methods on the images of one dataset that both have, under one attack and seed; accuracies in percent.

    ``left_out`` counts images that one of them alone has, or could not read; ``p_holm`` is the p-value of McNemar's
    test after Holm over the datasets of this attack and seed; ``same_texts``: the prompts were the same too.
    """

    dataset: str
    attack: str
    seed: int
    a: float
    b: float
    paired: Paired
    p_holm: float
    left_out: int
    same_texts: bool


def cell_file(store: Store, key: Key) -> Path:
    """Where a store keeps the cell of that key."""
    return store.folder / "cells" / key.path


def read_cell(store: Store, key: Key) -> Cell:
    """The cell of that key, which is there. Raises StoreError, for a damaged one with what to do."""
    try:
        return store.read(cell_file(store, key))
    except DamagedError as error:
        raise StoreError(f"{error}; the line of zsar reproduce that made it computes it again") from error


def differing(mine: Store, other: Store) -> Iterator[tuple[Key, int]]:
    """The cells that both stores have with other answers, and to how many images."""
    for header in other.headers():
        key = Key(**header["key"])
        if mine.has(key):
            ours, theirs = (read_cell(store, key).predictions for store in (mine, other))
            if images := int((ours != theirs).sum()):
                yield key, images


def compare(a: str, b: str, store: Store, other: Store | None = None) -> tuple[list[Comparison], int]:
    """How far method ``a`` of ``store`` is ahead of ``b`` (of ``other``, where it is given), and how many cells of
    either have no partner.

    A comparison an attack, seed and dataset that both have; seeds are never pooled. Images are matched by their ids.
    Raises UnknownNameError for a method that is not there; StoreError where nothing can be compared; ClassNamesError
    where the two were given different classes to choose from.
    """
    sides = [_Side(a, store), _Side(b, other or store)]
    places = sorted(sides[0].cells.keys() & sides[1].cells.keys())
    if not places:
        raise StoreError(f"{a} and {b} have no attack, seed and dataset in common: {' | '.join(map(str, sides))}")
    pairs = {place: _pair(place, *sides) for place in places}
    return _adjusted(pairs), len(sides[0].cells.keys() ^ sides[1].cells.keys())


def mean_difference(found: Sequence[Comparison]) -> Estimate:
    """The mean of the differences over datasets, each of the same weight, in points. ``found``: of one seed."""
    return estimate([np.repeat([1.0, -1.0, 0.0], [one.only_a, one.only_b, one.images - one.only_a - one.only_b])[None]
                     for one in (comparison.paired for comparison in found)])


class _Side:
    """A method in its store, with the cells it has at every place."""

    def __init__(self, method: str, store: Store):
        self.method, self.store = method, store
        if not (headers := store.headers()):
            raise no_cells(store.folder)
        names, self.cells = method_names(headers), defaultdict(list)
        if method not in names.values():
            raise unknown_name(f"method in {store.folder}", method, names.values())
        for header in headers:
            if names[model_of(header)] == method:
                key = Key(**header["key"])
                self.cells[key.attack, key.seed, key.dataset, key.split, key.precision].append(key)

    def right(self, key: Key) -> dict[str, bool]:
        """Of every image that could be read, by its id, whether it was right."""
        task, cell = self.store.task(key.task), read_cell(self.store, key)
        ids = np.array(task.ids)[cell.counted]
        return dict(zip(ids.tolist(), cell.correct(task).tolist(), strict=True))

    def __str__(self) -> str:
        kinds = []
        for values in list(zip(*self.cells, strict=True))[:3]:
            several = sorted(map(str, set(values)))
            kinds.append(", ".join(several[:3]) + " ..." * (len(several) > 3))
        return "{} has {}; seeds {}; {}".format(self.method, *kinds)


@dataclass(frozen=True)
class _Pair:
    """Whether the images that two cells have in common were right, bool [n] each, and the tasks they are of."""

    tasks: tuple[Task, Task]
    right: tuple[np.ndarray, np.ndarray]


def _pair(place: Place, one: _Side, two: _Side) -> _Pair:
    """The two cells of a place; where a method has several, of different images, those that share most."""
    def shared(keys: tuple[Key, Key]) -> tuple[bool, int]:
        mine, theirs = one.store.task(keys[0].task), two.store.task(keys[1].task)
        return mine == theirs, len({*mine.ids} & {*theirs.ids})

    first, second = max(product(one.cells[place], two.cells[place]), key=shared)
    mine, theirs = one.store.task(first.task), two.store.task(second.task)
    check_classes(mine, theirs, one.method, two.method)
    right = one.right(first), two.right(second)
    common = [name for name in right[0] if name in right[1]]
    if not common:
        raise StoreError(f"{mine.dataset}: no image in common, {one.method} was tested on {len(mine.ids)} and "
                         f"{two.method} on {len(theirs.ids)} others: evaluate both on the same ones")
    labels = [dict(zip(task.ids, task.labels, strict=True)) for task in (mine, theirs)]
    if moved := [name for name in common if labels[0][name] != labels[1][name]]:
        is_a = [repr(mine.classnames[of[moved[0]]]) for of in labels]
        raise StoreError(f"{mine.dataset}: the image {moved[0]} is {is_a[0]} for {one.method} and {is_a[1]} for "
                         f"{two.method}: these are not the same data")
    return _Pair((mine, theirs), tuple(np.array([found[name] for name in common]) for found in right))


def check_classes(mine: Task, theirs: Task, a: str, b: str) -> None:
    """Raise ClassNamesError unless two tasks, on which ``a`` and ``b`` were tested, have the same classes."""
    if mine.classnames == theirs.classnames:
        return
    lists = list(zip_longest(mine.classnames, theirs.classnames))
    where = next(i for i, (one, two) in enumerate(lists) if one != two)
    one, two = ("no more" if name is None else repr(name) for name in lists[where])
    raise ClassNamesError(f"{mine.dataset}: {a} chose among {len(mine.classnames)} classes and {b} among "
                          f"{len(theirs.classnames)}; number {where + 1} is {one} for the first and {two} for the "
                          "second: evaluate both with the same --protocol and the same data")


def _adjusted(pairs: dict[Place, _Pair]) -> list[Comparison]:
    """Comparisons of pairs, with p-values after Holm over the datasets of each attack and seed."""
    tests, families, adjusted = {place: paired(*pair.right) for place, pair in pairs.items()}, defaultdict(list), {}
    for place in pairs:
        families[place[:2]].append(place)
    for family in families.values():
        adjusted |= zip(family, holm([tests[place].p for place in family]), strict=True)
    found = []
    for place, pair in pairs.items():
        attack, seed, dataset, *_ = place
        mine, theirs = pair.tasks
        a, b = (100 * float(right.mean()) for right in pair.right)
        found.append(Comparison(dataset, attack, seed, a, b, tests[place], adjusted[place],
                                len({*mine.ids} | {*theirs.ids}) - tests[place].images,
                                mine.templates == theirs.templates))
    return found
