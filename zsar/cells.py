"""Evaluating into a store: a model on a task under several attacks, unit by unit, by one rank or many."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch

from zsar import distributed
from zsar.attack_specs import attack_from_settings, spell_attack
from zsar.attacks import image_seeds
from zsar.clip import Clip, ZeroShotClassifier
from zsar.datasets import Batch, ImageDataset, batches
from zsar.errors import UnreadableImageError
from zsar.evaluate import Answers, Room, answer, unit_rows
from zsar.results import Key, Store, Task, Unit, provenance
from zsar.results.cell import UNREADABLE

PRECISION = "fp32"
#: Told of every unit that was computed: its attack, its images, and the answers (None where no image could be read).
Progress = Callable[[dict, int, Answers | None], None]


def task_of(dataset: ImageDataset) -> Task:
    """What the store keeps of a dataset: not its images, but which they are and what they are compared with."""
    return Task(dataset.name, dataset.split, dataset.layout, tuple(dataset.ids), tuple(dataset.labels.tolist()),
                tuple(dataset.classnames), tuple(dataset.templates))


@dataclass(frozen=True)
class Subject:
    """A model that is tested: its weights, what it is called (``none`` or ``LOSS:METHOD``), its seed, and how it came
    about (``settings`` of the adaptation, which every cell carries).
    """

    clip: Clip
    digest: str
    adaptation: str
    seed: int
    settings: dict

    def key(self, task: Task, attack: dict) -> Key:
        """The key of a cell; ``attack``: settings of ``zsar.attack_specs``."""
        return Key(self.digest, self.adaptation, task.dataset, task.split, task.digest, spell_attack(attack), PRECISION,
                   self.seed)


def evaluate_cells(subject: Subject, dataset: ImageDataset, attacks: Sequence[dict], store: Store, *,
                   room: Room | None = None, workers: int | None = None, strict: bool = False,
                   progress: Progress = lambda attack, images, answers: None) -> None:
    """Fill the cells of ``subject`` on ``dataset``, one an attack; what the store has of them is not computed again.

    Images are read once for all attacks, a unit at a time, and each unit is kept as soon as it is computed: a run that
    is killed loses one. Ranks take units in turn. Raises OutputError, and UnreadableImageError: with ``strict``, or
    where no image can be read.
    """
    task = task_of(dataset)
    store.add_task(task)
    clip, cells = subject.clip, {subject.key(task, attack): attack for attack in attacks}
    missing = {key: attack for key, attack in cells.items() if not _found(key, dataset, store)}
    units = unit_rows(len(dataset), clip.device)
    for key in missing:
        store.all_units(key)  # for its look at what is there: parts that were damaged are computed again

    def lacking(rows: torch.Tensor) -> dict[Key, dict]:
        return {key: attack for key, attack in missing.items() if not store.has_unit(key, int(rows[0]))}

    if not missing:
        return
    room = room or Room(clip.device)
    classifier = ZeroShotClassifier(clip, dataset.classnames, dataset.templates, dataset.verbatim)
    seeds = image_seeds(dataset.ids, subject.seed)
    mine = (units[i] for i in distributed.claim(f"{subject.digest} {subject.seed} {task.digest}", len(units)))
    for batch in batches(dataset, filter(lacking, mine), clip.device, workers=workers, strict=strict):
        rows = torch.tensor(sorted([*batch.rows.tolist(), *batch.unreadable]))
        for key, attack in lacking(rows).items():
            found = _answers(classifier, attack, batch, seeds, room)
            store.write_unit(key, _unit(rows, batch, found, dataset.ids))
            progress(attack, len(rows), found)
    for key, attack in missing.items():
        if units := store.all_units(key):
            _complete(key, units, {"attack": attack, "adaptation": subject.settings},
                      {"micro_batch": room.size, **provenance(clip)}, store)


def _answers(classifier: ZeroShotClassifier, attack: dict, batch: Batch, seeds: torch.Tensor,
             room: Room) -> Answers | None:
    if not len(batch.rows):
        return None
    return answer(classifier, attack_from_settings(attack), batch.images, batch.labels, seeds[batch.rows], room)


def _unit(rows: torch.Tensor, batch: Batch, found: Answers | None, ids: Sequence[str]) -> Unit:
    predictions = np.full(len(rows), UNREADABLE)
    if found:
        predictions[torch.searchsorted(rows, batch.rows).numpy()] = found.predictions.numpy()
    run = {"passes": found.passes, "seconds": found.seconds} if found else {}
    return Unit(int(rows[0]), predictions, {ids[row]: why for row, why in batch.unreadable.items()}, run)


def _found(key: Key, dataset: ImageDataset, store: Store) -> bool:
    """Whether a cell is there, and holds all that can be read today: images may have been mended since."""
    cell = store.find(key)
    if not cell or not cell.unreadable:
        return cell is not None
    rows = [row for row, name in enumerate(dataset.ids) if name in cell.unreadable]
    if all(_is_unreadable(dataset, row) for row in rows):
        return True
    store.drop(key)
    return False


def _is_unreadable(dataset: ImageDataset, row: int) -> bool:
    try:
        dataset.read(np.array([row]))
    except UnreadableImageError:
        return True
    return False


def _complete(key: Key, units: Sequence[Unit], about: dict, run: dict, store: Store) -> None:
    """Make a cell of its units. Raises UnreadableImageError where they hold no answer; they are dropped then."""
    if any((unit.predictions != UNREADABLE).any() for unit in units):
        store.compose(key, units, about, run)
        return
    store.drop(key)
    raise UnreadableImageError(f"none of the images of {key.dataset} can be read, e.g. "
                               f"{next(iter(units[0].unreadable.values()))}")
