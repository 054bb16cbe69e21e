"""Measuring what a plan asks for: adaptations, then cells, with a bar, an estimate, and nothing lost."""

import argparse
import sys
from pathlib import Path

from tqdm import tqdm

from zsar import distributed
from zsar.attacks import most_steps
from zsar.cells import evaluate_cells, task_of
from zsar.clip import Clip
from zsar.errors import DivergenceError, UnreadableImageError
from zsar.evaluate import Answers, Room
from zsar.inputs import check_source
from zsar.methods import make_student
from zsar.reproduce.models import find_adapted, get_subject, training_images
from zsar.reproduce.plan import Plan
from zsar.results import Key, Store

#: What an update costs beside a step of its attack, which needs no gradients of weights: forward and twice backward.
UPDATE = 1.5


def say(text: str) -> None:
    """A line on the terminal, above the bar, from one rank."""
    if distributed.rank() == 0:
        tqdm.write(text, file=sys.stderr)


class Inventory:
    """What of a plan is there: keys of cells by method and seed, for those models that exist already."""

    def __init__(self, plan: Plan, original: Clip, store: Store | None, out: Path, args: argparse.Namespace):
        self.plan, self.store = plan, store
        # One rank looks, for another launch may just be writing a file.
        self.to_train = distributed.first_alone(lambda: [(method, seed) for method, seed in plan.adaptations if
                                                         find_adapted(plan, original, method, seed, out) is None])
        missing = {(method.loss, method.method, seed) for method, seed in self.to_train}
        self.tasks = [task_of(dataset) for dataset in plan.datasets]
        self.keys: list[tuple[Key, dict]] = []  # with their attacks; of the models nothing else is kept in memory
        for seed in plan.seeds:
            for method in plan.methods:
                if (method.loss, method.method, seed) not in missing:
                    subject = get_subject(plan, original, method, seed, out, args)
                    self.keys += [(subject.key(task, attack), attack) for task in self.tasks for attack in plan.attacks]

    @property
    def cells(self) -> int:
        """How many cells the plan has."""
        plan = self.plan
        return len(plan.methods) * len(plan.datasets) * len(plan.attacks) * len(plan.seeds)

    def done(self) -> list[tuple[Key, dict]]:
        """Those that are in the store."""
        return [(key, attack) for key, attack in self.keys if self.store and self.store.has(key)]

    def image_steps(self) -> tuple[int, int]:
        """Steps that are left: of evaluation, at most, and those of training, in steps of the same cost."""
        images = {task.digest: len(task.ids) for task in self.tasks}
        whole = len(self.plan.methods) * len(self.plan.seeds) * sum(images.values())
        left = whole * sum(map(most_steps, self.plan.attacks)) - sum(images[key.task] * most_steps(attack)
                                                                     for key, attack in self.done())
        recipes = [self.plan.recipe(method, seed) for method, seed in self.to_train]
        training = sum(recipe.steps * recipe.batch * (recipe.attack_steps * (recipe.eps_255 > 0) + UPDATE)
                       for recipe in recipes)
        return left, round(training)

    def __str__(self) -> str:
        plan, (testing, training) = self.plan, self.image_steps()
        images, there = sum(map(len, plan.datasets)), len(plan.adaptations) - len(self.to_train)
        names = [f"{method.loss}:{method.method} (seed {seed})" for method, seed in self.to_train]
        lines = [f"methods {len(plan.methods)} x datasets {len(plan.datasets)} ({images:,} images) x "
                 f"attacks {len(plan.attacks)} x seeds {len(plan.seeds)}: {self.cells:,} cells, "
                 f"{len(self.done()):,} done",
                 f"{len(plan.adaptations)} adaptations, {there} there{', to train: ' * bool(names)}{', '.join(names)}",
                 f"left: at most {testing:,} image-steps of evaluation, about {training:,} of training"]
        if plan.missing:
            lines.append(f"not on this machine, and left out: {', '.join(plan.missing)}")
        return "\n".join(lines)


class Progress:
    """The bar: steps of images that all ranks have done, and after the first batch how long the rest will take."""

    def __init__(self, left: int, training: int):
        self.left, self.training, self.passes, self.seconds = left, training, 0, 0.0
        self.before = self.done = distributed.count("image-steps", 0)
        self.bar = tqdm(total=left, unit="image-step", unit_scale=True, leave=False,
                        disable=True if distributed.rank() else None)  # None: where there is no terminal

    def __call__(self, attack: dict, images: int, answers: Answers | None) -> None:
        self.done = distributed.count("image-steps", images * most_steps(attack))
        self.bar.update(self.done - self.before - self.bar.n)
        if answers and attack["attack"] != "none":
            first, self.passes, self.seconds = not self.passes, self.passes + answers.passes, \
                self.seconds + answers.seconds
            self.bar.set_postfix_str(f"{self.rate:,.0f} a second and rank")
            if first:
                ranks = distributed.world_size()
                minutes = (self.left + self.training) / self.rate / ranks / 60
                say(f"measured on the first batch: {self.rate:,.0f} image-steps a second and rank; at most about "
                    f"{minutes:,.0f} minutes are left ({ranks} rank{'s' * (ranks > 1)})")

    @property
    def rate(self) -> float:
        """Images that an attack of this rank shows its model in a second."""
        return self.passes / self.seconds if self.seconds else 0.0

    def finish(self, name: str) -> None:
        """Say how far it is after a method, for logs without a bar."""
        share = 100 * (self.done - self.before) / self.left if self.left else 100
        say(f"{name}: {share:.0f} % of the image-steps done, {self.rate:,.0f} a second and rank under attack")


def measure(plan: Plan, original: Clip, store: Store, args: argparse.Namespace, progress: Progress) -> dict[str, str]:
    """Train what is missing and fill all cells; what failed, by name: a training that diverged, images unreadable."""
    failed, diverged, room = {}, {}, Room(original.device)
    for seed in plan.seeds:
        for method in plan.methods:
            training = (method.loss, method.method, seed)
            try:
                if training in diverged:
                    raise DivergenceError(diverged[training])
                subject = get_subject(plan, original, method, seed, store.folder, args)
            except DivergenceError as error:
                failed[f"{method.name}, seed {seed}"] = diverged[training] = str(error)
                continue
            progress.bar.set_description(method.name)
            for dataset in plan.datasets:
                try:
                    evaluate_cells(subject, dataset, plan.attacks, store, room=room, workers=args.workers,
                                   strict=args.strict, progress=progress)
                except UnreadableImageError as error:
                    if args.strict:
                        raise
                    failed[f"{method.name} on {dataset.name}"] = str(error)
            progress.finish(f"{method.name}, seed {seed}")
    progress.bar.close()
    return {name: why for found in distributed.gather(failed) for name, why in found.items()}


def check_trainable(inventory: Inventory, original: Clip, args: argparse.Namespace) -> None:
    """Raise ZsarError where something has to be trained and cannot be, before hours of testing."""
    plan, source = inventory.plan, None
    for method, seed in inventory.to_train:
        recipe = plan.recipe(method, seed)
        make_student(original, method.method, pad=recipe.pad, tokens=recipe.tokens)
        if source is None:
            source = training_images(plan, recipe)[0]
            check_source(source, recipe, 0)
