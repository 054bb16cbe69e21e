"""What a store keeps: tasks, keys, and cells with the answer to every image."""

import hashlib
import json
import re
from dataclasses import asdict, dataclass, field
from functools import cached_property

import numpy as np

from zsar.results.statistics import interval

UNREADABLE = -1  # the prediction for an image that could not be decoded, which does not count


def digest_of(value: object) -> str:
    """What tells a plain value from others, whatever the order of its keys."""
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()[:16]


@dataclass(frozen=True)
class Task:
    """The images and texts that a model is tested on: ids and labels of N images, names and templates of K classes."""

    dataset: str
    split: str
    layout: str
    ids: tuple[str, ...]
    labels: tuple[int, ...]
    classnames: tuple[str, ...]
    templates: tuple[str, ...]

    @cached_property
    def digest(self) -> str:
        """What tells this task from others."""
        return digest_of(asdict(self))


@dataclass(frozen=True)
class Key:
    """What a cell is of. Two cells of one key hold the same answers, wherever they were computed.

    model: digest of the weights that were tested; adaptation: ``none`` or ``LOSS:METHOD``; task: ``Task.digest``;
    attack: as ``zsar.attacks`` spells it; seed: of the random starts, and of the adaptation where there is one.
    """

    model: str
    adaptation: str
    dataset: str
    split: str
    task: str
    attack: str
    precision: str
    seed: int

    @cached_property
    def id(self) -> str:
        """The digest of all fields."""
        return digest_of(asdict(self))

    @property
    def path(self) -> str:
        """The cell's file below ``cells``: its id, and before that what a person looks for."""
        name = re.sub(r"[^\w+.@-]+", "-", f"{self.adaptation}_{self.attack}_seed-{self.seed}_{self.id}")
        return f"{re.sub(r'[^A-Za-z0-9._-]+', '-', self.dataset).strip('.-') or 'own'}/{name}.json"


@dataclass(frozen=True)
class Unit:
    """The answers to the images from row ``first`` on: int64 [n], ``UNREADABLE`` for those named in ``unreadable``.

    ``run`` says how they were computed: seconds, forward passes and the like, which are added up.
    """

    first: int
    predictions: np.ndarray
    unreadable: dict[str, str] = field(default_factory=dict)
    run: dict = field(default_factory=dict)


@dataclass(frozen=True)
class Cell:
    """The answers of a model to a task under an attack. predictions int64 [N]; ``run``: how they came about.

    ``about``: settings of the attack and of the adaptation, in full. ``run`` alone differs between two machines.
    """

    key: Key
    predictions: np.ndarray
    about: dict
    unreadable: dict[str, str] = field(default_factory=dict)
    run: dict = field(default_factory=dict)

    def correct(self, task: Task) -> np.ndarray:
        """bool [n], whether each image that counts was answered right."""
        return (self.predictions == np.array(task.labels))[self.counted]

    @property
    def counted(self) -> np.ndarray:
        """bool [N], whether an image could be read."""
        return self.predictions != UNREADABLE

    def header(self, task: Task) -> dict:
        """The first line of the cell's file."""
        correct = self.correct(task)
        hits, n = int(correct.sum()), len(correct)
        labels = np.array(task.labels)[self.counted]
        of_class = [correct[labels == label].mean() for label in np.unique(labels)]
        low, high = interval(hits, n) if n else (0.0, 100.0)
        return {"key": asdict(self.key), "images": n, "hits": hits, "classes": len(task.classnames),
                "accuracy": round(100 * hits / n, 4) if n else None, "interval": [round(low, 2), round(high, 2)],
                "mean_per_class": round(100 * float(np.mean(of_class)), 4) if n else None,
                "unreadable": len(self.unreadable), "about": self.about, "run": self.run}
