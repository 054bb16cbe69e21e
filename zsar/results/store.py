"""The store of measured cells: one file a cell, complete or not there, with the answer to every image.

    STORE/tasks/<digest>.json                       images (ids, labels) and texts that were evaluated, once
    STORE/cells/<dataset>/<name>.json               a cell: one model, one task, one attack, one seed
    STORE/units/<cell>/<first row>-<images>.json    what a cell that is not complete yet has so far

A cell's file has three lines: what it is and its accuracy, in JSON; the answers, in JSON; and the SHA-256 of the two.
So a list of thousands reads one line of each, and a file that was damaged is known. Stores are merged by copying.
"""

import json
import os
import shutil
import warnings
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path

import numpy as np

from zsar.errors import OutputError, StoreError
from zsar.outputs import put_aside, writable_folder, write_atomically
from zsar.results.cell import Cell, Key, Task, Unit
from zsar.results.sealed import FORMAT, DamagedError, migrate, pack_predictions, seal, unpack_predictions, unseal
from zsar.results.statistics import pack_bits

HEADER_BYTES = 8192  # more than a header has, as a rule


class Store:
    """A folder of cells. ``write``: it will be written to, so that a folder that forbids it ends the run at its start.

    Raises OutputError for that, and StoreError for a folder that is none where it is only read.
    """

    def __init__(self, folder: str | Path, *, write: bool = True):
        self.folder = Path(folder)
        if write:
            self.folder = writable_folder(folder)
        elif not self.folder.is_dir():
            raise StoreError(f"there is no store of results in {folder}: expected a folder that zsar reproduce wrote")
        self._tasks: dict[str, Task] = {}

    # tasks

    def add_task(self, task: Task) -> str:
        """Keep a task; its digest."""
        path = self.folder / "tasks" / f"{task.digest}.json"
        if task.digest not in self._tasks and not path.exists():
            self._write(path, json.dumps(asdict(task), ensure_ascii=False).encode())
        self._tasks[task.digest] = task
        return task.digest

    def task(self, digest: str) -> Task:
        """The task of that digest. Raises StoreError where it is missing or damaged."""
        if digest not in self._tasks:
            path = self.folder / "tasks" / f"{digest}.json"
            try:
                record = json.loads(path.read_text(encoding="utf-8"))
                task = Task(**{key: tuple(value) if isinstance(value, list) else value
                               for key, value in record.items()})
            except (OSError, ValueError, TypeError) as error:
                raise StoreError(f"cannot read the task {path} ({error}): take it from another copy of the store, or "
                                 "delete the cells and run again") from error
            if task.digest != digest:
                raise StoreError(f"the task {path} was changed: its digest is {task.digest}; take it from another copy "
                                 "of the store")
            self._tasks[digest] = task
        return self._tasks[digest]

    # cells

    def write(self, cell: Cell) -> Path:
        """Keep a complete cell, whose task is there, and drop its units. Raises OutputError: disk full, say."""
        path, task = self.folder / "cells" / cell.key.path, self.task(cell.key.task)
        answers = {"predictions": pack_predictions(cell.predictions), "correct": pack_bits(cell.correct(task)),
                   "unreadable": cell.unreadable}
        self._write(path, seal(cell.header(task), answers))
        self.drop_units(cell.key)
        return path

    def has(self, key: Key) -> bool:
        """Whether the file of the cell is there; ``find`` looks into it."""
        return (self.folder / "cells" / key.path).exists()

    def find(self, key: Key) -> Cell | None:
        """The cell of that key, None where it has to be computed: it is not there, or damaged and so put aside.

        Raises StoreError for a cell of a later release, which is not touched.
        """
        if not self.has(key):
            return None
        path = self.folder / "cells" / key.path
        try:
            return self.read(path)
        except FileNotFoundError:  # another process has just put it aside
            return None
        except DamagedError as error:
            aside = path.with_name(f"{path.name}.damaged")
            with suppress(OSError):  # another process has just done so, say
                aside = put_aside(path, path.name, ".damaged")
            warnings.warn(f"{error}; it is kept as {aside.name} and computed again", stacklevel=2)
            return None

    def read(self, path: Path) -> Cell:
        """A cell from its file, compared with its checksum. Raises StoreError."""
        header, answers = unseal(path)
        try:
            return Cell(Key(**header["key"]), unpack_predictions(answers["predictions"]), header["about"],
                        answers["unreadable"], header["run"])
        except (KeyError, TypeError, ValueError) as error:
            raise DamagedError(f"the cell {path} lacks what a cell has ({error})") from error

    def headers(self) -> list[dict]:
        """The first line of every cell, by dataset and name; nothing else is read. Raises StoreError."""
        found = []
        for path in sorted(self._cell_files()):
            try:
                header = json.loads(_first_line(path))
                version = header["format"]
            except (OSError, ValueError, TypeError, KeyError) as error:
                raise StoreError(f"cannot read the cell {path}, which is damaged ({error}): the command that made it "
                                 "computes it again; or delete it") from error
            found.append(header if version == FORMAT else migrate(Path(path), header, {})[0])
        return found

    def _cell_files(self) -> Iterator[str]:
        with suppress(FileNotFoundError):
            for folder in os.scandir(self.folder / "cells"):
                if folder.is_dir():
                    yield from (file.path for file in os.scandir(folder) if file.name.endswith(".json"))

    # units

    def write_unit(self, key: Key, unit: Unit) -> None:
        """Keep a part of a cell."""
        record = {"first": unit.first, "predictions": pack_predictions(unit.predictions), "unreadable": unit.unreadable,
                  "run": unit.run}
        self._write(self._unit_file(key, unit.first, len(unit.predictions)), seal({}, record))

    def has_unit(self, key: Key, first: int, n: int) -> bool:
        """Whether the part of a cell with the ``n`` images from row ``first`` on is there, or the whole cell."""
        return self._unit_file(key, first, n).exists() or self.has(key)

    def all_units(self, key: Key) -> list[Unit]:
        """Parts of a cell in order that make up all of it; none where some are missing.

        Those that were damaged are dropped. Parts may be of several sizes, of runs on several devices.
        """
        found = []
        for path in (self.folder / "units" / key.id).glob("*.json"):
            try:
                _, unit = unseal(path)
                found.append(Unit(unit["first"], unpack_predictions(unit["predictions"]), unit["unreadable"],
                                  unit["run"]))
            except FileNotFoundError:  # another process has just completed the cell
                return []
            except (DamagedError, KeyError):
                with suppress(OSError):
                    path.unlink(missing_ok=True)
        chains: dict[int, list[Unit]] = {0: []}  # by the row at which they end
        for unit in sorted(found, key=lambda unit: unit.first):
            if unit.first in chains:
                chains.setdefault(unit.first + len(unit.predictions), [*chains[unit.first], unit])
        return chains.get(len(self.task(key.task).ids), [])

    def drop(self, key: Key) -> None:
        """Forget a cell, so that it is computed again."""
        (self.folder / "cells" / key.path).unlink(missing_ok=True)

    def drop_units(self, key: Key) -> None:
        """Forget the parts of a cell."""
        shutil.rmtree(self.folder / "units" / key.id, ignore_errors=True)

    def compose(self, key: Key, units: Sequence[Unit], about: dict) -> None:
        """Write the cell of which ``units`` are all parts.

        Numbers of their ``run`` are added up; of what else it says, such as the device, all that differ are kept.
        """
        unreadable = {name: why for unit in units for name, why in unit.unreadable.items()}
        self.write(Cell(key, np.concatenate([unit.predictions for unit in units]), about, unreadable,
                        _together([unit.run for unit in units])))

    def _unit_file(self, key: Key, first: int, n: int) -> Path:
        return self.folder / "units" / key.id / f"{first}-{n}.json"

    # several stores

    def merge(self, other: "Store") -> dict[str, int]:
        """Copy what this store lacks from another: counts of ``copied`` cells, those ``here`` already, and those
        ``differing``, which have another answer to some image; ours stay.

        Raises StoreError for a damaged cell of the other, OutputError.
        """
        counts = Counter(copied=0, here=0, differing=0)
        for path in sorted(other._cell_files()):
            cell = other.read(Path(path))
            mine = self.find(cell.key)
            if mine is None:
                self.add_task(other.task(cell.key.task))
                self.write(cell)
                counts["copied"] += 1
            else:
                same = np.array_equal(mine.predictions, cell.predictions)
                counts["here" if same else "differing"] += 1
        for folder in (other.folder / "units").glob("*/"):
            for path in folder.glob("*.json"):
                mine = self.folder / "units" / folder.name / path.name
                if not mine.exists():
                    self._write(mine, path.read_bytes())
        return dict(counts)

    def _write(self, path: Path, content: bytes) -> None:
        for last in (False, True):
            try:
                path.parent.mkdir(parents=True, exist_ok=True)
                return write_atomically(path, content)
            except OSError as error:
                raise OutputError(f"cannot write into {path.parent} ({error.strerror})") from error
            except OutputError as error:  # another process has completed the cell, and its units' folder is gone
                if last or not isinstance(error.__cause__, FileNotFoundError):
                    raise


def _first_line(path: str) -> bytes:
    """Of thousands of files: without a buffer, whose making would cost more than the reading."""
    with open(path, "rb", buffering=0) as file:
        line, end, _ = file.read(HEADER_BYTES).partition(b"\n")
    if end:
        return line
    with open(path, "rb") as file:
        return file.readline()


def _together(runs: Sequence[dict]) -> dict:
    """What several runs say as one: sums of numbers, and different texts beside each other."""
    found: dict[str, list] = {}
    for run in runs:
        for name, value in run.items():
            found.setdefault(name, []).append(value)
    return {name: ", ".join(dict.fromkeys(values)) if isinstance(values[0], str) else round(sum(values), 3)
            for name, values in found.items()}
