"""The loop of an adversarial adaptation: attack a batch, update on what came out, look at held-out images, save."""

import hashlib
import json
import math
import reprlib
import sys
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, nullcontext
from dataclasses import asdict, dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from tqdm import tqdm

from zsar import distributed
from zsar.attacks import Objective, attack_from_settings, pgd
from zsar.clip import Clip, ZeroShotClassifier
from zsar.datasets import ImageDataset, batches
from zsar.datasets.loading import Batch
from zsar.errors import AdaptationError, CheckpointError, DivergenceError, UnreadableImageError
from zsar.evaluate import evaluate_dataset
from zsar.inputs import check_loss, check_source, check_types
from zsar.losses import Loss, code_digest, get_loss, loss_name
from zsar.methods import fill, make_student, save_adapted, trainable
from zsar.outputs import write_json
from zsar.recipes import Recipe
from zsar.results import provenance
from zsar.training import finish_the_step, read_checkpoint, warmup_cosine, write_checkpoint

CHECKPOINT, ADAPTED, RECORD = "checkpoint.pt", "adapted.safetensors", "record.json"
#: Settings that are digests, and what it means that they differ.
DIGESTS = {"data": "the images, labels or texts of the source differ", "original": "the original CLIP is another",
           "loss_code": "the code of the loss has changed"}
LOG_EVERY = 10  # steps between two looks at the losses, for which an accelerator must wait
SAVE_EVERY = 600  # seconds after which a look saves too: no more of a run that is killed is lost


@dataclass
class History:
    """What a training has come to: ``losses`` [[step, loss]], ``held_out`` [{step, clean, robust}] in percent.

    ``unreadable``: id -> what is wrong with a source image that could not be read; others stood in for it.
    """

    step: int = 0
    seconds: float = 0.0
    losses: list[list[float]] = field(default_factory=list)
    held_out: list[dict] = field(default_factory=list)
    unreadable: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Adapted:
    """The outcome: the frozen ``clip``, the ``step`` it is from, the training's ``history`` and ``settings``."""

    clip: Clip
    step: int
    history: History
    settings: dict
    loss: Loss  # with whatever it learned itself, as the head of Adv
    trained: dict[str, Tensor]  # the weights that were trained, by name


class Trainer:
    """One adaptation. ``run()`` trains it; most callers want ``adapt``, which says what the arguments are.

    Everything random comes from the recipe's seed and the number of the step, so a run that is continued from its
    checkpoint takes the same steps bit for bit on a CPU. Inside ``zsar.distributed.ranks`` the ranks share each batch
    and held-out images, and come to the update of one rank up to the rounding of its sums; rank 0 writes and calls
    ``watch``.
    """

    def __init__(self, original: Clip, source: ImageDataset, loss: str | Callable[..., Loss], method: str,
                 recipe: Recipe, out: Path | None = None, watch: Callable[[History], None] = lambda history: None,
                 held_out: ImageDataset | None = None, workers: int | None = None, strict: bool = False):
        check_types(original, source, loss, method, recipe, held_out)
        recipe.check()
        if not recipe.rate(method):
            raise AdaptationError(f"a learning rate of 0: {method} would change nothing")
        check_source(source, recipe, recipe.held_out if held_out is None else 0)
        if held_out is not None and (len(held_out) == 0 or held_out.classnames != source.classnames):
            raise AdaptationError(f"held-out images: found {len(held_out)} of {held_out.name}; expected at least one, "
                                  f"and the classes of {source.name}")
        self.original, self.method, self.recipe, self.out, self.watch = original, method, recipe, out, watch
        self.workers, self.strict = workers, strict
        self.train, self.held_out = source.hold_out(recipe.held_out) if held_out is None else (source, held_out)
        check_source(self.train, recipe, 0)  # a class may have had no image but those held out
        self.student = make_student(original, method, pad=recipe.pad, tokens=recipe.tokens, seed=recipe.seed)
        self.classifier = ZeroShotClassifier(self.student, source.classnames, source.templates, source.verbatim)
        make = get_loss(loss) if isinstance(loss, str) else loss
        self.loss = make(original, self.classifier.text_features, recipe.seed)
        check_loss(self.loss, recipe)
        name = loss_name(loss)
        own = {} if isinstance(loss, str) else {"loss_code": code_digest(loss)}
        self.settings = {"loss": name, **own, "method": method, "source": source.name, "images": len(self.train),
                         "data": data_digest(self.train, self.held_out), "original": original.digest, **asdict(recipe)}
        if self.loss.attacked and not recipe.eps_255 and distributed.rank() == 0:
            warnings.warn(f"eps 0: {name} is trained on clean images, without an attack", stacklevel=3)
        self.optimizer = optimizer_for(self.student, self.loss, recipe)
        self.history, self.best, self.saved = History(), {}, time.monotonic()
        self.pending: list[tuple[int, Tensor]] = []  # losses that are still on the device
        self._share_batches()
        self._begin()

    def _share_batches(self) -> None:
        """Which places of a batch this rank loads, and which of them, in each part of it, it attacks and learns from.

        A rank without a place of its own repeats the first, with a weight of 0.
        """
        batch, part = self.recipe.batch, self.recipe.batch // self.recipe.accumulate
        own = list(distributed.share(part))
        self.weight = len(own) / part  # of the mean over these in that over the part
        own, device = own or [0], self.student.device
        compared = self.loss.least_images > 1 and distributed.world_size() > 1  # with images of other ranks
        self.own = torch.tensor(own, device=device) if compared else None
        loaded = range(part) if compared else own
        self.places = torch.tensor([first + place for first in range(0, batch, part) for place in loaded],
                                   device=device)

    def _begin(self) -> None:
        """Go on from a checkpoint in ``out``, or fit what is fitted first. Raises CheckpointError, AdaptationError."""
        out = self.out
        state = read_checkpoint(out / CHECKPOINT, self.settings, "choose another folder", DIGESTS) if out else None
        if out and not state and (out / ADAPTED).exists():
            raise AdaptationError(f"{out} holds an adapted CLIP, and no {CHECKPOINT} to go on from: it would be "
                                  "overwritten; choose another folder, or move it away")
        if state:
            self._restore(state)
        self._compare_ranks()
        if not state:
            self._fit_head()

    def _compare_ranks(self) -> None:
        """Raise AdaptationError, on all ranks, unless they begin alike; else some would wait for others for ever."""
        first, *others = distributed.gather(self.settings | {"step": self.history.step, "out": bool(self.out)})
        for number, other in enumerate(others, start=1):
            if differing := [f"{key} is {other.get(key)!r}, not {value!r}" for key, value in first.items()
                             if other.get(key) != value]:
                raise AdaptationError(f"rank {number} begins otherwise than rank 0 ({'; '.join(differing)}): expected "
                                      "the same arguments and images on all, and an out that all see")

    def run(self) -> Adapted:
        """Train to the last step. Raises DivergenceError; KeyboardInterrupt after saving, where ``out`` is given."""
        self.advance(self.recipe.steps)
        return self.finish()

    def advance(self, until: int) -> None:
        """Train until so many steps are done, as ``run`` does."""
        started = time.monotonic() - self.history.seconds
        hidden = {"disable": True} if distributed.rank() else {}  # where it is left out, TQDM_DISABLE is looked at
        bar = tqdm(initial=self.history.step, total=until, unit="step", leave=False,
                   desc=f"{self.settings['loss']} {self.method}", **hidden)
        with bar, finish_the_step() as stop:
            for images, labels in self.batches(self.history.step, until):
                self.pending.append((self.history.step + 1, self.step(images, labels)))
                self.history.step += 1
                bar.update()
                due = self.history.step in (until, self.recipe.steps) or \
                    self.history.step % self.recipe.validate_every == 0
                # Looked at once: what Ctrl-C ends was saved, whenever it comes. And it ends all ranks at the same step.
                stopping = distributed.anywhere(stop.is_set())
                if due or stopping or self.history.step % LOG_EVERY == 0:
                    self.history.seconds = time.monotonic() - started
                    bar.set_postfix(loss=f"{self._collect_losses():.3f}")
                    self._look(due, stopping)
                if stopping:
                    break
        if distributed.anywhere(stop.is_set()):
            where = f"is saved in {self.out}; the same call goes on from there" if self.out else "was the last"
            raise KeyboardInterrupt(f"step {self.history.step} {where}")

    def _look(self, due: bool, stopping: bool) -> None:
        """Validate where it is due; save then, before a stop, and when the last time is long ago; show the history."""
        if due or stopping or distributed.anywhere(time.monotonic() - self.saved > SAVE_EVERY):
            self._check_weights()
            if due:
                self._validate()
            self._save()
        if distributed.rank() == 0:
            self.watch(self.history)

    def batches(self, first: int, until: int) -> Iterator[tuple[Tensor, Tensor]]:
        """The batches of steps ``first`` to ``until`` - 1; each epoch has its own order, and no image twice.

        Of each batch what this rank loads: the images at ``places``. Where some of the batch cannot be read, the others
        fill its places in turn, so that every step has as many images; the same ones however many ranks there are.
        """
        steps, places = range(first, until), self.places.tolist()
        rows = ([whole[place] for place in places] for whole in map(self._rows, steps))
        loaded = batches(self.train, rows, self.student.device, workers=self.workers)
        for step, batch in zip(steps, loaded, strict=True):
            if distributed.anywhere(bool(batch.unreadable)):
                yield self._fill_places(self._rows(step), batch)
            else:
                yield batch.images, batch.labels

    def _rows(self, step: int) -> list[int]:
        return rows_at(step, len(self.train), self.recipe)

    def _fill_places(self, rows: list[int], batch: Batch) -> tuple[Tensor, Tensor]:
        """The images at ``places`` of what can be read of a batch of ``rows``; ``batch`` is what this rank could read.

        Raises UnreadableImageError where nothing can be read, or with ``strict``.
        """
        unreadable = {row: reason for found in distributed.gather(batch.unreadable) for row, reason in found.items()}
        self.history.unreadable |= {self.train.ids[row]: reason for row, reason in unreadable.items()}
        if self.strict:
            raise UnreadableImageError(next(iter(unreadable.values())))
        readable = [row for row in rows if row not in unreadable]
        if not readable:
            raise UnreadableImageError(f"no image of a batch of {self.train.name} can be read, e.g. "
                                       f"{next(iter(unreadable.values()))}")
        wanted = [readable[place % len(readable)] for place in self.places.tolist()]
        images = dict(zip(batch.rows.tolist(), batch.images, strict=True))
        if others := sorted(set(wanted) - images.keys()):  # which another rank has
            more = next(batches(self.train, [others], self.student.device, workers=0, strict=True))
            images |= zip(more.rows.tolist(), more.images, strict=True)
        return torch.stack([images[row] for row in wanted]), self.train.labels[wanted].to(self.student.device)

    def step(self, images: Tensor, labels: Tensor) -> Tensor:
        """One update from a batch [B, 3, H, W], int64 [B]; returns its loss, a scalar that stays on the device.

        Of several ranks each gives what it loads, and gets a part of the loss: the parts add up to it.
        """
        recipe, step, device = self.recipe, self.history.step, self.student.device
        for group in self.optimizer.param_groups:
            group["lr"] = group["initial_lr"] * warmup_cosine(step, recipe.warmup, recipe.steps)
        images, labels = images.to(device, non_blocking=True), labels.to(device, non_blocking=True)
        seeds = self.places + (step * recipe.batch + (recipe.seed << 40))  # whoever has an image, it starts the same
        self.optimizer.zero_grad()
        total, share = torch.zeros((), device=device), len(images) // recipe.accumulate
        for part in zip(images.split(share), labels.split(share), seeds.split(share), strict=True):
            loss = self._part_loss(*part) * self.weight / recipe.accumulate
            loss.backward()
            total += loss.detach()
        distributed.add_up_gradients(self._weights())
        self.optimizer.step()
        return total

    def _weights(self) -> list[nn.Parameter]:
        return [*trainable(self.student).values(), *trainable(self.loss).values()]

    def _part_loss(self, images: Tensor, labels: Tensor, seeds: Tensor) -> Tensor:
        """Attack this rank's images of a part of a batch, then the mean loss of these, with its graph."""
        recipe, weights, own = self.recipe, self._weights(), self.own
        # The attack needs gradients of the pixels alone: without those of the weights a step costs half as much, and
        # nothing of it can reach the update.
        for weight in weights:
            weight.requires_grad_(False)
        try:
            with torch.no_grad(), self._half():
                targets = self.loss.prepare(self.student, images, labels)
            if own is not None:
                images, seeds = images[own], seeds[own]
            adversarial = images
            if self.loss.attacked and recipe.eps_255 > 0:
                adversarial = pgd(self._objective(targets), images, eps=recipe.eps_255 / 255,
                                  alpha=recipe.alpha_255 / 255, steps=recipe.attack_steps,
                                  momentum=recipe.attack_momentum, seeds=seeds, micro_batch=len(images), checked=False)
        finally:
            for weight in weights:
                weight.requires_grad_(True)
        with self._half():
            loss = self.loss(self.student, images, adversarial, targets, *([] if own is None else [own]))
        if not (isinstance(loss, Tensor) and loss.ndim == 0 and loss.requires_grad):
            raise AdaptationError(f"the loss {self.settings['loss']} gave {reprlib.repr(loss)}: expected a tensor "
                                  "without dimensions that depends on the embeddings")
        return loss

    def _half(self) -> AbstractContextManager:
        """Autocast to bf16 where the recipe says so; around forward passes only, for a backward pass keeps to them."""
        if self.recipe.precision == "fp32":
            return nullcontext()
        return torch.autocast(self.student.device.type, torch.bfloat16)

    def _objective(self, targets: Any) -> Objective:
        objective = self.loss.objective(self.student, targets)

        def in_half(images: Tensor, rows: Tensor) -> Tensor:
            with self._half():
                return objective(images, rows if self.own is None else self.own[rows])

        return in_half

    def _fit_head(self) -> None:
        """Show the loss the original's features of up to 2,000 training images, for a head that is fitted first."""
        if not self.loss.fitted:
            return
        some = self.train.subset(min(2000, len(self.train)), self.recipe.seed)  # in file order they may be of one class
        rows, features, labels = torch.arange(len(some)).split(100), [], []
        with torch.no_grad():
            for batch in batches(some, rows, self.student.device, workers=self.workers, strict=self.strict):
                features.append(self.original.features(batch.images))
                labels.append(batch.labels)
        self.loss.fit(torch.cat(features), torch.cat(labels))
        distributed.copy_first(self.loss.state_dict().values())  # an accelerator need not round each time the same

    def _collect_losses(self) -> float:
        """Fetch the losses since the last look into the history; their mean. Raises DivergenceError."""
        if self.pending:
            values = distributed.added_up(torch.stack([loss for _, loss in self.pending])).tolist()
            for (step, _), value in zip(self.pending, values, strict=True):
                self._check_loss(step, value)
                self.history.losses.append([step, round(value, 6)])
            self.pending.clear()
        recent = [value for _, value in self.history.losses[-LOG_EVERY:]]
        return sum(recent) / max(1, len(recent))

    def _check_loss(self, step: int, value: float) -> None:
        if not self.history.losses and not math.isfinite(value):
            raise DivergenceError(f"the loss {self.settings['loss']} is {value} at step {step}, before any update: "
                                  "look for NaN in the source's images, in the weights and in the loss's own formula")
        first = self.history.losses[0][1] if self.history.losses else value
        guessing = math.log(len(self.train.classnames))  # a first loss may be near 0: Clean's is
        if math.isfinite(value) and value <= 100 * max(first, guessing):
            return
        advice = "a lower --lr or --prompt-lr, a longer --warmup" + \
            (", --precision fp32" if self.recipe.precision != "fp32" else "")
        saved = self.out / CHECKPOINT if self.out else None
        raise DivergenceError(f"the loss {self.settings['loss']} is {value:.4g} at step {step} (it began at "
                              f"{first:.4g}): the training diverged; try {advice}"
                              + (", in another folder" if self.out else "")
                              + (f"; the last good checkpoint is {saved}" if saved and saved.exists() else ""))

    def _check_weights(self) -> None:
        """The loss shows a broken update only one step later, and what is saved must be good."""
        if not all(value.isfinite().all() for part in (self.student, self.loss) for value in trainable(part).values()):
            self._check_loss(self.history.step, math.nan)

    def _validate(self) -> None:
        """Look at held-out source images; remember the best weights."""
        found, weights = self._held_out_accuracy(), trainable(self.student)
        self.history.held_out.append(found)
        if self.recipe.keep == "last" or not self.best or \
                criterion(self.loss, found) > criterion(self.loss, self.best):
            self.best = found | {"weights": {name: value.detach().clone() for name, value in weights.items()}}

    def _held_out_accuracy(self) -> dict:
        """{step, clean, robust}: accuracies by text in percent, now; of several ranks each looks at its share.

        Raises UnreadableImageError, on all ranks: with ``strict``, or where no image can be read.
        """
        rows = distributed.on_each(self._evaluate_share)
        images = sum(row["images"] for row in rows)
        if not images:
            raise UnreadableImageError(next(row["unreadable"] for row in rows if "unreadable" in row))
        clean, robust = (round(100 * sum(row[f"{kind}_hits"] for row in rows) / images, 4)
                         for kind in ("clean", "robust"))
        return {"step": self.history.step, "clean": clean, "robust": robust}

    def _evaluate_share(self) -> dict:
        """{images, clean_hits, robust_hits} of this rank's held-out images; ``unreadable`` where none can be read."""
        nothing, share = {"images": 0, "clean_hits": 0, "robust_hits": 0}, distributed.share(len(self.held_out))
        if not share:
            return nothing
        eps, kind = self.recipe.eps_255, "pgd" if self.recipe.eps_255 else "none"
        attack = attack_from_settings({"attack": kind, "eps_255": eps, "alpha_255": eps / 4, "steps": 10,
                                       "iterate": "worst"})
        try:
            row = evaluate_dataset(self.student, self.held_out.select(np.array(share)), attack,
                                   classifier=self.classifier, workers=self.workers, strict=self.strict)
        except UnreadableImageError as error:
            if self.strict:
                raise
            return nothing | {"unreadable": str(error)}  # another rank's may be readable
        return {"images": row["images"], "clean_hits": row["clean_hits"],
                "robust_hits": row.get("robust_hits", row["clean_hits"])}

    def _save(self) -> None:
        if self.out:
            distributed.first_alone(lambda: write_checkpoint(self.out / CHECKPOINT, {
                "settings": self.settings, "history": asdict(self.history), "best": self.best,
                "student": trainable(self.student),
                "loss": self.loss.state_dict(), "optimizer": self.optimizer.state_dict()}))
        self.saved = time.monotonic()

    def _restore(self, state: dict) -> None:
        path, expected = self.out / CHECKPOINT, {"student", "loss", "optimizer", "history", "best"}
        if missing := expected - {key for key in expected if isinstance(state.get(key), dict)}:
            raise CheckpointError(f"{path} lacks {', '.join(sorted(missing))}: choose another folder")
        fill(self.student, state["student"], path)
        try:
            self.loss.load_state_dict(state["loss"])
            self.optimizer.load_state_dict(state["optimizer"])
            self.history, self.best = History(**state["history"]), state["best"]
        except (RuntimeError, ValueError, KeyError, TypeError) as error:
            raise CheckpointError(f"{path} is of another loss {self.settings['loss']} or broken: its parameters have "
                                  "another form; choose another folder") from error
        if distributed.rank() == 0:
            tqdm.write(f"continuing {path} at step {self.history.step} of {self.recipe.steps}", file=sys.stderr)

    def finish(self) -> Adapted:
        """The best (or last) weights so far, frozen; written to ``out`` where there is one, before any rank returns."""
        fill(self.student, self.best["weights"], "the best checkpoint")
        if self.out:
            distributed.first_alone(self._write)
        self.student.requires_grad_(False)
        return Adapted(self.student, self.best["step"], self.history, self.settings, self.loss, self.best["weights"])

    def _write(self) -> None:
        write_json(self.out / RECORD, {"settings": self.settings, "step": self.best["step"],
                                       "history": asdict(self.history), "ranks": distributed.world_size(),
                                       "provenance": provenance(self.student)})
        save_adapted(self.out / ADAPTED, self.student, self.original, self.method, settings=self.settings)  # done


def criterion(loss: Loss, found: dict) -> tuple[float, float]:
    """What makes one held-out result better than another: robust, then clean accuracy; without an attack, clean."""
    return (found["robust"], found["clean"]) if loss.attacked else (found["clean"], found["robust"])


def rows_at(step: int, n: int, recipe: Recipe) -> list[int]:
    """The rows of step ``step`` in a split of ``n`` images: epoch after epoch, each a permutation of its own."""
    places = np.arange(step * recipe.batch, (step + 1) * recipe.batch)
    rows = np.empty(recipe.batch, np.int64)
    for epoch in np.unique(places // n):
        rows[places // n == epoch] = _order(recipe.seed, int(epoch), n)[places[places // n == epoch] % n]
    return rows.tolist()


@lru_cache(maxsize=2)  # of this epoch and the next: a permutation of a million takes longer than a step
def _order(seed: int, epoch: int, n: int) -> np.ndarray:
    return np.random.RandomState([seed, epoch]).permutation(n)


def optimizer_for(student: Clip, loss: Loss, recipe: Recipe) -> torch.optim.Optimizer:
    """Tower, prompts and the loss's own parameters, each group with its rate; only matrices of the tower decay."""
    groups: dict[tuple[float, float], list] = {}
    for name, value in trainable(student.model).items():
        prompt = name.startswith("prompts.")
        decay = 0.0 if prompt or value.ndim < 2 else recipe.weight_decay
        groups.setdefault((recipe.prompt_lr if prompt else recipe.lr, decay), []).append(value)
    if own := list(trainable(loss).values()):
        groups.setdefault((loss.head_rate(recipe.optimizer) or recipe.lr, 0.0), []).extend(own)
    groups = [{"params": values, "lr": rate, "initial_lr": rate, "weight_decay": decay}
              for (rate, decay), values in groups.items()]
    if recipe.optimizer == "sgd":
        return torch.optim.SGD(groups, momentum=recipe.momentum)
    return torch.optim.AdamW(groups)


def data_digest(*parts: ImageDataset) -> str:
    """What tells these images, labels and texts from others, as far as their names do."""
    told = [[part.classnames, list(part.templates), part.labels.tolist(), list(part.ids)] for part in parts]
    return hashlib.sha256(json.dumps(told).encode()).hexdigest()[:12]
