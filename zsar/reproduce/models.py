"""The models of a reproduction: the original, adaptations as they were shipped or trained before, or trained now."""

import argparse
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict
from pathlib import Path

from filelock import FileLock

from zsar import distributed
from zsar.adapt import adapt
from zsar.cells import Subject, model_digest
from zsar.clip import Clip, load_clip
from zsar.datasets import ImageDataset
from zsar.grid import Cell, source_images
from zsar.methods import adapted_header, interpolate, load_adapted
from zsar.outputs import writable_folder
from zsar.paths import data_path
from zsar.recipes import Recipe
from zsar.reproduce.plan import Method, Plan
from zsar.results.cell import digest_of
from zsar.trainer import ADAPTED


def get_subject(plan: Plan, original: Clip, method: Method, seed: int, out: Path, args: argparse.Namespace) -> Subject:
    """The model of a row, trained if it has to be. Raises DivergenceError, CheckpointError, what ``adapt`` raises."""
    if method.loss is None:
        clip, settings = original, {}
        if method.file:
            clip, settings = _from_file(plan, original, method.file), {"file": Path(method.file).name}
        return _subject(plan, clip, method, seed, settings)
    # One rank looks, for another launch may just be writing the file.
    path = distributed.first_alone(lambda: find_adapted(plan, original, method, seed, out))
    if path is None:
        path = _train(plan, original, method, seed, out, args)
    clip, settings = load_adapted(path, original), adapted_header(path)["settings"] | {"protocol": plan.protocol}
    if method.weight < 1:
        clip, settings = interpolate(original, clip, method.weight), settings | {"weight": method.weight}
    return _subject(plan, clip, method, seed, settings)


def _subject(plan: Plan, clip: Clip, method: Method, seed: int, settings: dict) -> Subject:
    return Subject(clip, model_digest(clip), method.adaptation, seed, settings, plan.precision, plan.compiled)


def _train(plan: Plan, original: Clip, method: Method, seed: int, out: Path, args: argparse.Namespace) -> Path:
    """Train a method, unless another launch has done so while this one waited for it; the file of its weights."""
    recipe, folder = plan.recipe(method, seed), adapted_folder(plan, original, method, seed, out)
    source, held_out = training_images(plan, recipe)
    with _alone_in(folder):
        if not distributed.first_alone((folder / ADAPTED).exists):
            adapt(original, source, loss=method.loss, method=method.method, recipe=recipe, out=folder,
                  held_out=held_out, workers=args.workers, strict=args.strict)
    return folder / ADAPTED


@contextmanager
def _alone_in(folder: Path) -> Iterator[None]:
    """Inside, no other launch trains in ``folder``; where a file system has no locks, nothing can be promised."""
    lock = FileLock(folder / ".lock")
    if distributed.rank() == 0:
        writable_folder(folder)
        with suppress(NotImplementedError, OSError):
            lock.acquire()
    try:
        yield
    finally:
        lock.release()


def _from_file(plan: Plan, original: Clip, file: str) -> Clip:
    """An adapted CLIP of this package, or weights that ``load_clip`` reads, such as those of TeCoA and FARE."""
    if adapted_header(file):
        return load_adapted(file, original)
    return load_clip(plan.model, pretrained=file, device=original.device)


def training_images(plan: Plan, recipe: Recipe) -> tuple[ImageDataset, ImageDataset]:
    """The source's training images and those held out. Raises DatasetError."""
    if plan.profile.name == "drawn":
        return source_images("all", min(Cell("tecoa", "finetune", 0).train_images, recipe.steps * recipe.batch))
    return plan.source.hold_out(recipe.held_out)


def adapted_folder(plan: Plan, original: Clip, method: Method, seed: int, out: Path) -> Path:
    """Where a method is trained; its name tells trainings with different settings apart."""
    told = digest_of([model_digest(original), plan.profile.source, plan.protocol, asdict(plan.recipe(method, seed))])
    return out / "adapted" / f"{method.loss}_{method.method}_seed-{seed}_{told[:8]}"


def find_adapted(plan: Plan, original: Clip, method: Method, seed: int, out: Path) -> Path | None:
    """The file of adapted weights that were trained before or come with the package; None: they have to be trained."""
    trained = adapted_folder(plan, original, method, seed, out) / ADAPTED
    if trained.exists():
        return trained
    shipped = data_path("drawn", "adapted", f"{method.loss}_{method.method}_seed-{seed}.safetensors")
    settings = (adapted_header(shipped) or {}).get("settings", {})
    same = plan.profile.name == "drawn" and settings.get("original") == original.digest and \
        asdict(plan.recipe(method, seed)).items() <= settings.items()
    return shipped if same and not plan.fresh else None
