"""What a store says of every method, dataset and attack: accuracies and means over datasets, with intervals."""

from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from zsar.attacks import parse_attack
from zsar.profiles import SIXTEEN
from zsar.results import Estimate, Key, Store, Task, estimate, interval
from zsar.results.comparison import read_cell
from zsar.results.tables import (
    CLEAN,
    MEAN_PER_CLASS,
    dataset_place,
    method_names,
    method_place,
    model_of,
    no_cells,
)

DRAWN = tuple(f"Drawn{name}" for name in SIXTEEN)


@dataclass(frozen=True)
class Score:
    """Accuracy of a method on a dataset under an attack, and the cells it rests on, one a seed.

    per_class: the mean of the classes' accuracies in percent, where that is customary.
    """

    accuracy: Estimate
    headers: tuple[dict, ...]
    per_class: float | None = None


class Scores:
    """The cells of a store (or those of ``headers``) by method, dataset and attack; seeds are one score together.

    methods: the original first; tasks: by dataset, in the paper's order; attacks: all but ``none``, with their
    ``settings``. One choice of images a dataset: where a store has several, that with most cells; ``left_out`` says so.

    Raises StoreError where there is nothing.
    """

    def __init__(self, store: Store, headers: Iterable[dict] | None = None):
        headers = store.headers() if headers is None else list(headers)
        if not headers:
            raise no_cells(store.folder)
        self.store, self._names = store, method_names(headers)
        tasks, self.left_out = _one_task_each(headers)
        self._cells, self._answers = defaultdict(dict), {}
        for header in headers:
            key = header["key"]
            if tasks[key["dataset"]] == key["task"]:
                self._cells[self.name(header), key["dataset"], key["attack"]][key["seed"]] = header
        self.tasks = {dataset: store.task(tasks[dataset]) for dataset in sorted(tasks, key=dataset_place)}
        self.methods = sorted({method for method, _, _ in self._cells}, key=method_place)
        self.settings = {attack: parse_attack(attack, 0) for _, _, attack in self._cells}
        self.attacks = sorted(self.settings.keys() - {CLEAN}, key=self._attack_place)

    def _attack_place(self, attack: str) -> tuple:
        settings = self.settings[attack]
        return settings["attack"], settings.get("steps"), settings.get("iterate"), settings["eps_255"], attack

    @property
    def headers(self) -> list[dict]:
        """The headers of all cells that are shown, by method, attack and dataset."""
        return [cells[seed] for method in self.methods for attack in (CLEAN, *self.attacks) for dataset in self.tasks
                for cells in [self._cells.get((method, dataset, attack), {})] for seed in sorted(cells)]

    def name(self, header: dict) -> str:
        """How the tables call the method of a cell."""
        return self._names[model_of(header)]

    @property
    def seeds(self) -> list[int]:
        """All seeds."""
        return sorted({seed for cells in self._cells.values() for seed in cells})

    def datasets(self, attack: str) -> list[str]:
        """Those on which some method was tested under an attack."""
        return [dataset for dataset in self.tasks
                if any((method, dataset, attack) in self._cells for method in self.methods)]

    def tested(self, attack: str) -> list[str]:
        """The methods that were tested under an attack, on some dataset."""
        return [method for method in self.methods
                if any((method, dataset, attack) in self._cells for dataset in self.tasks)]

    def lacks(self, method: str, attack: str, datasets: Iterable[str]) -> list[str]:
        """Those of ``datasets`` on which a method was not tested under an attack."""
        return [dataset for dataset in datasets if (method, dataset, attack) not in self._cells]

    def two_class(self, datasets: Iterable[str]) -> list[str]:
        """Those with two classes, on which guessing is right every other time."""
        return [dataset for dataset in datasets if len(self.tasks[dataset].classnames) == 2]

    def constant(self, dataset: str) -> float:
        """Accuracy in percent of a predictor that always answers with the most frequent class of the test images."""
        labels = self.tasks[dataset].labels
        return 100 * max(Counter(labels).values()) / len(labels)

    def score(self, method: str, dataset: str, attack: str) -> Score | None:
        """The mean of the seeds with its interval, that of Wilson for one seed; None where there is no cell."""
        if not (cells := self._cells.get((method, dataset, attack))):
            return None
        headers = tuple(cells[seed] for seed in sorted(cells))
        if len(headers) == 1:
            header = headers[0]
            accuracy = Estimate(100 * header["hits"] / header["images"],
                                *interval(header["hits"], header["images"]), 1, header["images"])
        else:
            accuracy = estimate([self.answers(method, dataset, attack, sorted(cells))]).bounded
        customary = dataset.removeprefix("Drawn") in MEAN_PER_CLASS
        per_class = float(np.mean([header["mean_per_class"] for header in headers])) if customary else None
        return Score(accuracy, headers, per_class)

    def mean(self, method: str, attack: str, datasets: Sequence[str]) -> Estimate | None:
        """Mean over datasets, each of the same weight, over the seeds that all of them have; None where one is missing.
        """
        cells = [self._cells.get((method, dataset, attack), {}) for dataset in datasets]
        seeds = sorted(set.intersection(*map(set, cells))) if cells else []
        if not seeds:
            return None
        return estimate([self.answers(method, dataset, attack, seeds) for dataset in datasets]).bounded

    def answers(self, method: str, dataset: str, attack: str, seeds: Sequence[int]) -> np.ndarray:
        """Whether images were right: bool [seeds, images], those that could be read with every one of these seeds.

        Raises StoreError for a damaged cell.
        """
        cells = self._cells[method, dataset, attack]
        found = [self._right(Key(**cells[seed]["key"]), self.tasks[dataset]) for seed in seeds]
        counted = np.logical_and.reduce([counted for _, counted in found])
        return np.stack([right[counted] for right, _ in found])

    def _right(self, key: Key, task: Task) -> tuple[np.ndarray, np.ndarray]:
        """bool [N] each, whether every image of a cell was right, and whether it could be read."""
        if key not in self._answers:
            cell = read_cell(self.store, key)
            self._answers[key] = cell.predictions == np.array(task.labels), cell.counted
        return self._answers[key]


def absent(datasets: Collection[str]) -> list[str]:
    """Those of the sixteen, or of the drawn sixteen, that are not among datasets of which some are."""
    return [name for sixteen in (SIXTEEN, DRAWN) if not set(datasets).isdisjoint(sixteen)
            for name in sixteen if name not in datasets]


def mean_name(datasets: Collection[str]) -> str:
    """What a mean over these datasets is called: ``mean of 13 of 16`` where some of the sixteen are missing."""
    missing = len(absent(datasets))
    return f"mean of {len(datasets)}" + f" of {len(datasets) + missing}" * (missing > 0)


def _one_task_each(headers: Sequence[dict]) -> tuple[dict[str, str], list[str]]:
    """The task of each dataset that has most cells (then most images), and what is said of the others."""
    cells, images = defaultdict(Counter), {}
    for header in headers:
        cells[header["key"]["dataset"]][header["key"]["task"]] += 1
        images[header["key"]["task"]] = header["images"]
    tasks, said = {}, []
    for dataset, found in cells.items():
        first, *others = sorted(found, key=lambda task: (-found[task], -images[task], task))
        tasks[dataset] = first
        said += [f"{dataset}: {found[task]} cells of another choice of images, classes or prompts "
                 f"({images[task]} images, task {task}) are not among these {images[first]}" for task in others]
    return tasks, said
