"""What a reproduction is to measure: methods, datasets, attacks and seeds, all checked before anything is computed."""

import argparse
import re
from dataclasses import dataclass
from functools import cache, cached_property
from pathlib import Path

from zsar.attacks import parse_attack, spell_attack
from zsar.datasets import ImageDataset, load_dataset
from zsar.errors import AdaptationError, ZsarError, unknown_name
from zsar.evaluate import check_workers, dataset_list, load_all
from zsar.grid import Cell
from zsar.losses import LOSSES
from zsar.methods import parts
from zsar.profiles import DRAWN_METHODS, METHODS, Profile, get_profile
from zsar.recipes import Recipe, get_recipe
from zsar.study import Study

ORIGINAL = "clip"
SUBSET_SEED = 0  # the test images are the same for all methods and seeds
SPELLED = re.compile(r"(?P<loss>[\w-]+):(?P<method>[\w+-]+)(@(?P<weight>\d*\.?\d+))?")


@dataclass(frozen=True)
class Method:
    """A row of the table: the original CLIP, an adaptation, or a file of weights that was adapted elsewhere.

    weight: 1, or a point on the line from the original's weights (0) to the adapted ones.
    """

    name: str
    loss: str | None = None
    method: str | None = None
    weight: float = 1
    file: str | None = None

    @property
    def adaptation(self) -> str:
        """What the store calls it."""
        return "none" if self.name == ORIGINAL else self.name


def parse_method(text: str) -> Method:
    """``clip``, ``LOSS:METHOD`` as adapt spells them, ``LOSS:METHOD@WEIGHT``, or ``NAME=FILE``.

    Raises UnknownNameError and AdaptationError.
    """
    name, equals, file = text.partition("=")
    if equals:
        if not name or ":" in name or name in (ORIGINAL, "none") or not Path(file).is_file():
            raise AdaptationError(f"method {text!r}: expected NAME=FILE, a name without a colon, and a file of weights "
                                  "that is there")
        return Method(name, file=file)
    if text == ORIGINAL:
        return Method(ORIGINAL)
    found = SPELLED.fullmatch(text)
    if not found:
        raise unknown_name("method", text, {*METHODS, *DRAWN_METHODS, *(f"{loss}:finetune" for loss in LOSSES)})
    if found["loss"] not in LOSSES:
        raise unknown_name("loss", found["loss"], LOSSES)
    parts(found["method"])
    weight = float(found["weight"] or 1)
    if not 0 < weight <= 1 or (weight < 1 and found["method"] != "finetune"):
        raise AdaptationError(f"method {text!r}: expected LOSS:finetune@WEIGHT with a weight above 0, at most 1")
    name = f"{found['loss']}:{found['method']}"
    return Method(name if weight == 1 else f"{name}@{weight:g}", found["loss"], found["method"], weight)


@dataclass(frozen=True)
class Plan:
    """Everything that is to be measured; ``missing`` are datasets that were asked for and are not on this machine."""

    profile: Profile
    model: str
    pretrained: str | None
    protocol: str
    per_class: int | None
    methods: tuple[Method, ...]
    datasets: tuple[ImageDataset, ...]
    attacks: tuple[dict, ...]
    seeds: tuple[int, ...]
    missing: tuple[str, ...]
    training_steps: int | None
    fresh: bool
    precision: str
    compiled: bool
    root: str | None

    @cached_property
    def source(self) -> ImageDataset:
        """The training images of the profile's source, listed once for all methods. Raises DatasetError."""
        return load_dataset(self.profile.source, "train", self.root, self.protocol)

    @property
    def adaptations(self) -> list[tuple[Method, int]]:
        """The trainings that the methods rest on, each with its seed; points of one line share one."""
        trained = {(method.loss, method.method): method for method in self.methods if method.loss}
        return [(method, seed) for seed in self.seeds for method in trained.values()]

    def recipe(self, method: Method, seed: int) -> Recipe:
        """How a method is trained: on the drawn world as in the study, at the rate that its search chose there."""
        if self.profile.name == "drawn":
            cell = Cell(method.loss, method.method, seed)
            if self.training_steps:
                cell = Cell(method.loss, method.method, seed, training_steps=self.training_steps)
            return cell.recipe(self.searched_rate(method))
        name = "fare" if method.loss == "fare" and self.profile.recipe == "paper" else self.profile.recipe
        return get_recipe(name, steps=self.training_steps, seed=seed)

    def searched_rate(self, method: Method) -> float | None:
        """The rate of the study's search on held-out source images; None where it has not searched."""
        return _searched_rates().get((method.loss, method.method))

    @property
    def settings(self) -> dict:
        """The plan as plain values."""
        return {"profile": self.profile.name, "model": self.model, "pretrained": self.pretrained,
                "methods": [method.name for method in self.methods],
                "datasets": [dataset.name for dataset in self.datasets], "missing": list(self.missing),
                "attacks": [spell_attack(attack) for attack in self.attacks], "seeds": list(self.seeds),
                "images": {dataset.name: len(dataset) for dataset in self.datasets},
                "per_class": self.per_class, "protocol": self.protocol, "resolution": "native",
                "training_steps": self.training_steps, "fresh": self.fresh, "precision": self.precision,
                "compiled": self.compiled}


@cache
def _searched_rates() -> dict[tuple[str, str], float]:
    """The rate that the study's search on held-out source images chose for each loss and method."""
    return {cell: found["rate"] for cell, found in Study().rates.items()}


def make_plan(args: argparse.Namespace) -> Plan:
    """The plan of a command line. Raises ZsarError for what cannot be meant, or is not there."""
    profile = get_profile(args.profile)
    methods = [parse_method(text) for text in _words(args.methods, profile.methods, "--methods")]
    attacks = [parse_attack(text, profile.eps_255) for text in _words(args.attacks, profile.attacks, "--attacks")]
    seeds = [_seed(text) for text in _words(args.seeds, ("0",), "--seeds")]
    names = {method.name: method for method in methods}
    if twice := [method.name for method in methods if names[method.name] != method]:
        raise AdaptationError(f"--methods: two files are called {twice[0]!r}; give them different names")
    for name in ("images", "per_class", "training_steps"):
        if (value := getattr(args, name)) is not None and value < 1:
            raise ZsarError(f"--{name.replace('_', '-')} {value}: expected at least 1")
    check_workers(args.workers)
    if args.fresh and profile.name != "drawn":
        raise ZsarError(f"--fresh has no meaning with the profile {profile.name}: no adaptations of it are shipped")
    whole, missing = load_all(dataset_list(args.datasets, profile.datasets), args.root, args.protocol, True)
    images = args.images or profile.images
    tests = {dataset.name: dataset.subset(images or len(dataset), SUBSET_SEED, args.per_class) for dataset in whole}
    model = args.model or profile.model
    pretrained = args.pretrained or (profile.pretrained if model == profile.model else None)
    plan = Plan(profile, model, pretrained, args.protocol, args.per_class, tuple(names.values()),
                tuple(tests.values()), tuple({spell_attack(attack): attack for attack in attacks}.values()),
                tuple(dict.fromkeys(seeds)), tuple(missing), args.training_steps, args.fresh,
                args.precision, args.compile, args.root)
    for method, seed in plan.adaptations:
        plan.recipe(method, seed)
    return plan


def _words(text: str | None, default: tuple[str, ...], option: str) -> list[str]:
    """A comma-separated list without repetitions. Raises ZsarError where nothing is in it."""
    words = list(default) if text is None else [word.strip() for word in text.split(",") if word.strip()]
    if not words:
        raise ZsarError(f"{option} {text!r}: expected names with commas between them, such as {','.join(default)}")
    return list(dict.fromkeys(words))


def _seed(text: str) -> int:
    if not text.isdecimal() or int(text) >= 2**23:
        raise ZsarError(f"--seeds {text}: expected whole numbers from 0 to {2**23 - 1}")
    return int(text)
