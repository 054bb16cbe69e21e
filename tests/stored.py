"""Stores that tests make up: cells whose answers are given, without a model."""

import hashlib
from collections.abc import Sequence

import numpy as np

from zsar.attacks import parse_attack
from zsar.results import Cell, Key, Store, Task
from zsar.results.cell import UNREADABLE

ATTACK = "pgd-20@4:1"


def task(dataset: str, labels: Sequence[int], classnames: Sequence[str] = ("cat", "dog", "car"), **other) -> Task:
    """A task whose images are called ``image-0``, ``image-1``, ..."""
    fields = {"ids": tuple(f"image-{i}" for i in range(len(labels))), "templates": ("a photo of a {}",)} | other
    return Task(dataset, "test", "drawn", labels=tuple(labels), classnames=tuple(classnames), **fields)


def put(store: Store, of: Task, method: str, attack: str, right: Sequence[bool], seed: int = 0,
        model: str | None = None, unreadable: Sequence[int] = (), **settings) -> Key:
    """Write the cell of a method (``clip``, ``tecoa:finetune``) that had these images right; ``settings`` of the
    adaptation. Weights differ from seed to seed, but for the original.
    """
    labels, right = np.array(of.labels), np.asarray(right, bool)
    predictions = np.where(right, labels, (labels + 1) % len(of.classnames))
    predictions[list(unreadable)] = UNREADABLE
    adapted = method != "clip"
    model = model or hashlib.sha256(f"{method} {seed * adapted}".encode()).hexdigest()
    key = Key(model, method if adapted else "none", of.dataset, of.split, store.add_task(of), attack, "fp32", seed)
    adaptation = {"steps": 300, "seed": seed} | settings if adapted else {}
    run = {"passes": 10 * len(labels), "seconds": 2.0, "micro_batch": 40, "model": f"drawn ({model[:12]})",
           "device": "cpu, x86_64", "torch": "2.14.1", "commit": "abc1234"}
    store.write(Cell(key, predictions, {"attack": parse_attack(attack, 4), "adaptation": adaptation},
                     {of.ids[i]: "cut off" for i in unreadable}, run))
    return key


def first(hits: int, n: int = 10) -> np.ndarray:
    """bool [n], the first ``hits`` right."""
    return np.arange(n) < hits
