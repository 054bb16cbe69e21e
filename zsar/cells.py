"""Evaluating into a store: a model on a task under several attacks, unit by unit, by one rank or many."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from open_clip.constants import OPENAI_DATASET_MEAN, OPENAI_DATASET_STD

from zsar import distributed
from zsar.attacks import attack_from_settings, image_seeds, spell_attack
from zsar.clip import Clip, ZeroShotClassifier
from zsar.datasets import Batch, ImageDataset, batches
from zsar.datasets.loading import default_workers
from zsar.errors import UnreadableImageError
from zsar.evaluate import Answers, Room, answer, unit_rows
from zsar.fast import FastClassifier, fast
from zsar.results import Key, Store, Task, Unit, machine
from zsar.results.cell import UNREADABLE, digest_of

PRECISION = "fp32"  # of gradients, where nothing else is asked for; answers have no other
#: Told of every unit that was computed: its attack, its images, and the answers (None where no image could be read).
Progress = Callable[[dict, int, Answers | None], None]


def task_of(dataset: ImageDataset) -> Task:
    """What the store keeps of a dataset: not its images, but which they are and what they are compared with."""
    return Task(dataset.name, dataset.split, dataset.layout, tuple(dataset.ids), tuple(dataset.labels.tolist()),
                tuple(dataset.classnames), tuple(dataset.templates))


def model_digest(clip: Clip) -> str:
    """What tells a model from others that answer otherwise: its weights, and all that is done with pixels on the way.

    That of the weights alone where the rest is as in open_clip's plain models: GELU, OpenAI's mean and deviation,
    bicubic, shorter side.
    """
    ways = {"activations": sorted({type(part).__name__ for part in clip.modules()
                                   if "gelu" in type(part).__name__.lower()}),
            "mean": clip.mean.flatten().tolist(), "std": clip.std.flatten().tolist(),
            "interpolation": clip.interpolation.value, "squash": clip.squash}
    plain = {"activations": ["GELU"], "mean": torch.tensor(OPENAI_DATASET_MEAN).tolist(),
             "std": torch.tensor(OPENAI_DATASET_STD).tolist(), "interpolation": "bicubic", "squash": False}
    return clip.digest if ways == plain else digest_of([clip.digest, ways])


@dataclass(frozen=True)
class Subject:
    """A model that is tested: its digest, what it is called (``none`` or ``LOSS:METHOD``), its seed, and how it came
    about (``settings`` of the adaptation, which every cell carries).

    Attacks take its gradients in ``precision``, from a ``compiled`` tower where asked (``zsar.fast``). A precision has
    cells of its own, also for no attack; a compiled tower, which differs by rounding, has not.
    """

    clip: Clip
    digest: str
    adaptation: str
    seed: int
    settings: dict
    precision: str = PRECISION
    compiled: bool = False

    def key(self, task: Task, attack: dict) -> Key:
        """The key of a cell; ``attack``: settings of ``zsar.attacks``."""
        return Key(self.digest, self.adaptation, task.dataset, task.split, task.digest, spell_attack(attack),
                   self.precision, self.seed)


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
    missing = {key: attack for key, attack in cells.items() if not _found(key, dataset, store, strict)}
    if not missing:
        return
    for key in missing:
        store.all_units(key)  # for its look at what is there: parts that were damaged are computed again
    units, room = unit_rows(len(dataset), clip.device), room or Room(clip.device)
    exact = ZeroShotClassifier(clip, dataset.classnames, dataset.templates, dataset.verbatim)
    classifier = fast(exact, subject.precision, subject.compiled)
    seeds = image_seeds(dataset.ids, subject.seed)
    made = {"model": f"{clip.name} ({subject.digest[:12]})", **machine(clip.device.type)}
    made |= {"compiled": "yes"} if subject.compiled else {}

    def lacking(rows: torch.Tensor) -> dict[Key, dict]:
        return {key: attack for key, attack in missing.items() if not store.has_unit(key, int(rows[0]), len(rows))}

    work = f"{subject.adaptation} {subject.digest} {subject.precision} {subject.seed} {task.digest}"
    mine = (units[i] for i in distributed.claim(work, len(units)))
    for batch in batches(dataset, filter(lacking, mine), clip.device, strict=strict,
                         workers=_workers(workers, dataset, clip, len(units))):
        rows = torch.tensor(sorted([*batch.rows.tolist(), *batch.unreadable]))
        for key, attack in lacking(rows).items():
            found = _answers(classifier, attack, batch, seeds, room)
            store.write_unit(key, _unit(rows, batch, found, dataset.ids, made | {"micro_batch": str(room.size)}))
            progress(attack, len(rows), found)
    for key, attack in missing.items():
        if parts := store.all_units(key):
            _complete(key, parts, {"attack": attack, "adaptation": subject.settings}, store)


def _workers(asked_for: int | None, dataset: ImageDataset, clip: Clip, units: int) -> int | None:
    """Processes that decode; each takes a unit ahead of its time, so of few units ranks must not take too many."""
    if asked_for is not None or distributed.world_size() == 1:
        return asked_for
    return min(default_workers(dataset, clip.device), max(1, units // distributed.world_size()))


def _answers(classifier: ZeroShotClassifier | FastClassifier, attack: dict, batch: Batch, seeds: torch.Tensor,
             room: Room) -> Answers | None:
    if not len(batch.rows):
        return None
    return answer(classifier, attack_from_settings(attack), batch.images, batch.labels, seeds[batch.rows], room)


def _unit(rows: torch.Tensor, batch: Batch, found: Answers | None, ids: Sequence[str], made: dict) -> Unit:
    predictions = np.full(len(rows), UNREADABLE)
    if found:
        predictions[torch.searchsorted(rows, batch.rows).numpy()] = found.predictions.numpy()
    run = made | ({"passes": found.passes, "seconds": found.seconds} if found else {})
    return Unit(int(rows[0]), predictions, {ids[row]: why for row, why in batch.unreadable.items()}, run)


def _found(key: Key, dataset: ImageDataset, store: Store, strict: bool) -> bool:
    """Whether a cell is there, and holds all that can be read today: images may have been mended since.

    Raises UnreadableImageError, with ``strict``, where it lacks an image that cannot be read.
    """
    cell = store.find(key)
    if not cell or not cell.unreadable:
        return cell is not None
    rows = [row for row, name in enumerate(dataset.ids) if name in cell.unreadable]
    faults = [fault for row in rows if (fault := _fault(dataset, row))]
    if faults and strict:
        raise UnreadableImageError(faults[0])
    if len(faults) < len(rows):
        store.drop(key)
    return len(faults) == len(rows)


def _fault(dataset: ImageDataset, row: int) -> str:
    """Why the image of a row cannot be read; empty where it can."""
    try:
        dataset.read(np.array([row]))
    except UnreadableImageError as error:
        return str(error)
    return ""


def _complete(key: Key, units: Sequence[Unit], about: dict, store: Store) -> None:
    """Make a cell of its units. Raises UnreadableImageError where they hold no answer; they are dropped then."""
    if any((unit.predictions != UNREADABLE).any() for unit in units):
        store.compose(key, units, about)
        return
    store.drop_units(key)
    raise UnreadableImageError(f"none of the images of {key.dataset} can be read, e.g. "
                               f"{next(iter(units[0].unreadable.values()))}")
