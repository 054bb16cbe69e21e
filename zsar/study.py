"""Reading the drawn grid: means over tasks with intervals, and comparisons of two methods picture by picture.

An interval holds two things that could have fallen otherwise, the test pictures and the seed of the training
(``zsar.results.estimate``).
"""

import json
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
import pandas

from zsar.errors import unknown_name
from zsar.losses import LOSSES
from zsar.methods import METHODS
from zsar.paths import data_path
from zsar.results import Estimate, estimate, unpack_bits

SOURCE = "DrawnImageNet"
NEAR = ("DrawnCIFAR10", "DrawnCIFAR100", "DrawnSTL10", "DrawnCaltech101", "DrawnCaltech256")
BINARY = ("DrawnPCAM", "DrawnHatefulMemes")
KINDS = ("clean", "robust")
GROUPS = ("source", "unseen", "unseen without binary", "near", "far")


def in_group(dataset: str, group: str) -> bool:
    """Whether a dataset belongs to one of ``GROUPS``; near ones are drawn in the manner of the source's objects."""
    if group == "source":
        return dataset == SOURCE
    members = {"unseen": True, "unseen without binary": dataset not in BINARY, "near": dataset in NEAR,
               "far": dataset not in NEAR}
    return dataset != SOURCE and members[group]


def check_question(kind: str, group: str) -> None:
    """Raise UnknownNameError for an accuracy or a group that is none, so that it is not taken for a missing cell."""
    if kind not in KINDS:
        raise unknown_name("kind of accuracy", kind, KINDS)
    if group not in GROUPS:
        raise unknown_name("group of tasks", group, GROUPS)


class Study:
    """The cells of a grid, by (loss, method) and what else differs from the core. Missing cells are just not there."""

    def __init__(self, folder: str | Path | None = None):
        folder = Path(folder) if folder else data_path("results", "drawn-grid")
        records = [json.loads(path.read_text(encoding="utf-8")) for path in sorted(folder.glob("*.json"))]
        self.cells = [record for record in records if record.get("tests")]
        self.diverged = [record for record in records if "diverged" in record]
        self.rates = {(record["loss"], record["method"]): record for record in records if "tried" in record}

    def select(self, loss: str, method: str, eps_255: float = 4, weight: float | None = None,
               **other) -> list[tuple[dict, list[dict]]]:
        """A record a seed and the rows of its test at ``eps_255`` and ``weight`` (of the interpolation).

        ``other`` are further fields of ``zsar.grid.Cell``; those not named have the value they have in the core.
        References, whose loss is ``none``, were not trained: ``weight`` and ``other`` do not concern them.
        """
        core = {"train_eps_255": 4, "train_images": 12_000, "training_steps": 300, "tokens": 144, "source": "all",
                "rate": None}
        fields = {*core, "seed"}
        for kind, names, known in (("field of a cell", other, fields), ("loss", [loss], self._names("loss", LOSSES)),
                                   ("method", [method], self._names("method", METHODS))):
            if unknown := [name for name in names if name not in known]:
                raise unknown_name(kind, unknown[0], known)
        fixed = {"loss": loss, "method": method} | ({} if loss == "none" else core | other)
        at = (eps_255, 0 if loss == "none" else 1 if weight is None else weight)
        found = {}
        for record in self.cells:
            if all(record["cell"].get(key) == value for key, value in fixed.items()):
                for test in record["tests"]:
                    if (test["eps_255"], test["weight"]) == at:
                        found[record["cell"]["seed"]] = record, test["rows"]
        return [found[seed] for seed in sorted(found)]

    def _names(self, field: str, known: Iterable[str]) -> set[str]:
        """What a field of a cell may say: what the package knows, the references, and what the records say."""
        return {*known, "none", "original", "constant", *(record["cell"][field] for record in self.cells)}

    def bits(self, loss: str, method: str, kind: str, group: str, **which) -> np.ndarray:
        """Which pictures were right, bool [seeds, tasks, images], empty where missing.

        kind: ``"clean"`` or ``"robust"``; ``which`` as in ``select``.
        """
        check_question(kind, group)
        found = [_bits_of(rows, kind, group) for _, rows in self.select(loss, method, **which)]
        return np.stack(found) if found else np.empty((0, 0, 0), bool)

    def mean(self, loss: str, method: str, kind: str, group: str = "unseen", **other) -> Estimate | None:
        """Accuracy over a group of tasks, each of the same weight; None where the cell is missing."""
        found = estimate(self.bits(loss, method, kind, group, **other).swapaxes(0, 1).astype(float))
        return found and found.bounded

    def difference(self, a: tuple, b: tuple, kind: str, group: str = "unseen", **other) -> Estimate | None:
        """How far ``a`` is ahead of ``b``, paired by picture and seed; None where one is missing.

        Each is (loss, method), or (loss, method, fields of its own) as ``select`` takes them; ``other`` goes for both.
        A reference, which has no seed, is compared with every seed of the other.
        """
        check_question(kind, group)
        reference = "none" in (a[0], b[0])
        first, second = (self.select(loss, method, **other, **dict(*fields)) for loss, method, *fields in (a, b))
        pairs = [(ours, theirs) for mine, ours in first for yours, theirs in second
                 if reference or mine["cell"]["seed"] == yours["cell"]["seed"]]
        values = [_bits_of(ours, kind, group) * 1.0 - _bits_of(theirs, kind, group) for ours, theirs in pairs]
        return estimate(np.stack(values, axis=1)) if pairs else None

    def interaction(self, a: tuple, b: tuple, c: tuple, d: tuple, kind: str, group: str = "unseen") -> Estimate | None:
        """(a - b) - (c - d) of four cells (loss, method), paired by picture and seed; None where no seed has all."""
        check_question(kind, group)
        of_seed = [{record["cell"]["seed"]: _bits_of(rows, kind, group) * 1.0 for record, rows in self.select(*cell)}
                   for cell in (a, b, c, d)]
        seeds = sorted(set.intersection(*map(set, of_seed)))
        signs = (1, -1, -1, 1)
        values = [sum(sign * bits[seed] for sign, bits in zip(signs, of_seed, strict=True)) for seed in seeds]
        return estimate(np.stack(values, axis=1)) if seeds else None

    def path(self, loss: str, method: str, group: str = "unseen") -> list[dict]:
        """A training of seed 0 as points {step, source robust, clean, robust}, in percent, bits beside them.

        The same first pictures of every task at every point: the original, after a third of the steps, at the end.
        No points where the cell or the original is missing.
        """
        original, cell = self.select("none", "original"), self.select(loss, method)
        if not original or not cell or cell[0][0]["cell"]["seed"]:
            return []
        (record, final), stages = cell[0], [(0, original[0][1])]
        stages += [(point["step"], point["attacked_rows"]) for point in record["curve"] if "attacked_rows" in point]
        stages += [(record["cell"]["training_steps"], final)]
        n = min(row["images"] for _, rows in stages for row in rows)
        return [{"step": step, **{name: _bits_of(rows, kind, which)[:, :n] for name, kind, which in (
            ("source robust", "robust", "source"), ("clean", "clean", group), ("robust", "robust", group))}}
            for step, rows in stages]

    def matched(self, a: tuple[str, str], b: tuple[str, str], kind: str, group: str = "unseen",
                draws: int = 1000) -> tuple[Estimate, float] | None:
        """How far ``a`` is ahead of ``b`` at the same robustness on the source, and that robustness in percent.

        Both paths (seed 0) are followed to where they first reach the lower of the two final source accuracies under
        attack, in straight lines between their points. The interval is a bootstrap over pictures; it knows nothing of
        other seeds. None where a cell is missing, or ends no more robust than the original.
        """
        check_question(kind, group)
        paths = [self.path(*cell, group) for cell in (a, b)]
        if not all(paths) or min(path[-1]["source robust"].mean() for path in paths) <= \
                paths[0][0]["source robust"].mean():
            return None
        random = np.random.default_rng(0)
        n = paths[0][0]["clean"].shape[1]
        picks = [np.arange(n)] + [random.integers(0, n, n) for _ in range(draws)]
        found = np.array([_matched(paths, kind, pick) for pick in picks])
        low, high = np.percentile(found[1:, 0], [2.5, 97.5])
        images = n * len(paths[0][0]["clean"])
        return Estimate(float(found[0, 0]), float(low), float(high), 1, images), float(found[0, 1])

    def curve(self, loss: str, method: str, group: str = "unseen") -> list[tuple[int, float]]:
        """Clean accuracy over a group after each number of steps that was looked at, mean of the seeds, in percent."""
        original = self.mean("none", "original", "clean", group)
        points = {0: [original.value]} if original else {}
        for record, final in self.select(loss, method):
            looks = [(point["step"], point["rows"]) for point in record["curve"]]
            for step, rows in [*looks, (record["cell"]["training_steps"], final)]:
                points.setdefault(step, []).append(100 * _bits_of(rows, "clean", group).mean())
        return [(step, float(np.mean(values))) for step, values in sorted(points.items())]

    def table(self, cells: Sequence[tuple[str, str]], groups: Sequence[str] = ("source", "unseen")) -> pandas.DataFrame:
        """A row a (loss, method): clean and robust accuracy with intervals of each group, the number of seeds.

        A dash where there are none; seeds whose training diverged are counted beside those that did not.
        """
        rows = []
        for loss, method in cells:
            columns = {f"{group}, {kind}": self.mean(loss, method, kind, group) for group in groups
                       for kind in ("clean", "robust")}
            diverged = sum((record["cell"]["loss"], record["cell"]["method"]) == (loss, method)
                           for record in self.diverged)
            seeds = "–" if loss == "none" else str(len(self.select(loss, method)) or "–")
            rows.append({"loss": loss, "method": method,
                         **{key: str(value) if value else "–" for key, value in columns.items()},
                         "seeds": seeds + f" + {diverged} diverged" * (diverged > 0)})
        return pandas.DataFrame(rows)


def _bits_of(rows: list[dict], kind: str, group: str) -> np.ndarray:
    """bool [tasks, images] of the rows of a test that belong to a group."""
    members = [row for row in rows if in_group(row["dataset"], group)]
    return np.stack([unpack_bits(row[f"{kind}_bits"], row["images"]) for row in members])


def _matched(paths: list[list[dict]], kind: str, pick: np.ndarray) -> tuple[float, float]:
    """Difference of two paths at the lower of their final source accuracies, with these pictures, and that accuracy."""
    lines = [tuple(np.array([100 * point[name][:, pick].mean() for point in path]) for name in ("source robust", kind))
             for path in paths]
    at = min(source[-1] for source, _ in lines)
    first, second = (_first_reached(at, source, values) for source, values in lines)
    return first - second, float(at)


def _first_reached(at: float, source: np.ndarray, values: np.ndarray) -> float:
    """The value where a path, in straight lines between its points, first has ``at`` of source robustness."""
    end = int((source >= at).argmax())
    begin = max(end - 1, 0)
    return float(np.interp(at, source[begin:end + 1], values[begin:end + 1]))
