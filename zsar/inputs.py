"""What an adaptation is given, checked before it begins: kinds of arguments, the loss, the images to train on."""

import inspect
import reprlib
from typing import Any

from zsar import distributed
from zsar.clip import Clip
from zsar.datasets import ImageDataset
from zsar.errors import AdaptationError
from zsar.losses import Loss
from zsar.recipes import Recipe


def check_types(original: Any, source: Any, loss: Any, method: Any, recipe: Any, held_out: Any) -> None:
    """Raise AdaptationError for arguments of another kind, such as a name where the thing itself is expected."""
    for name, value, kind, how in (("original", original, Clip, "a Clip, as of load_clip(name)"),
                                   ("source", source, ImageDataset, "an ImageDataset, as of load_dataset(name)"),
                                   ("held_out", held_out, ImageDataset | None, "an ImageDataset or None"),
                                   ("method", method, str, "a name, such as 'finetune'"),
                                   ("recipe", recipe, Recipe, "a Recipe, as of get_recipe(name)")):
        if not isinstance(value, kind):
            raise AdaptationError(f"{name} = {reprlib.repr(value)}: expected {how}")
    if isinstance(loss, Loss) or not (isinstance(loss, str) or callable(loss)):
        raise AdaptationError(f"loss = an object of {type(loss).__name__}: expected a name, or a class that makes it")


def check_loss(loss: Any, recipe: Recipe) -> None:
    """Raise AdaptationError unless ``loss`` is one, and batches are large enough for it."""
    if not isinstance(loss, Loss):
        raise AdaptationError(f"the loss is a {type(loss).__name__}: expected a subclass of zsar.losses.Loss")
    if type(loss).per_image is Loss.per_image and type(loss).forward is Loss.forward:
        raise AdaptationError(f"the loss {type(loss).__name__} has no method per_image: define it")
    if loss.least_images > 1 and distributed.world_size() > 1:
        try:
            inspect.signature(loss.forward).bind("student", "images", "adversarial", "targets", "rows")
        except TypeError as error:
            raise AdaptationError(f"{type(loss).__name__}.forward takes no rows: a loss that compares images with each "
                                  "other needs them where ranks share a batch (zsar.losses.Loss.forward)") from error
    if (part := recipe.batch // recipe.accumulate) < loss.least_images:
        raise AdaptationError(f"{type(loss).__name__} compares images with each other: {part} at a time are too few, "
                              f"expected at least {loss.least_images}; take a larger batch or a smaller accumulate")


def check_source(source: ImageDataset, recipe: Recipe, held_out: int) -> None:
    """Raise AdaptationError unless ``source`` can be trained on."""
    n, classes = len(source), len(source.classnames)
    if n == 0:
        raise AdaptationError(f"{source.name} {source.split} is empty: there is nothing to train on")
    low, high = int(source.labels.min()), int(source.labels.max())
    if low < 0 or high >= classes:
        raise AdaptationError(f"labels of {source.name}: found {low} to {high}, expected 0 to {classes - 1}, "
                              "one a class name")
    present = source.labels.unique()
    if len(present) == 1:
        raise AdaptationError(f"all images of {source.name} are of one class ({source.classnames[low]!r}): "
                              "expected at least two to tell apart")
    if len(present) < classes:
        missing = sorted(set(range(classes)) - set(present.tolist()))
        raise AdaptationError(f"{len(missing)} of the {classes} classes of {source.name} have no image, e.g. "
                              f"{source.classnames[missing[0]]!r}: take more images, or leave those names out")
    if n - held_out < recipe.batch:
        raise AdaptationError(f"{source.name} has {n} images, of which {held_out} are held out: too few for a "
                              f"batch of {recipe.batch}; take at least {held_out + recipe.batch} images, fewer held "
                              "out or a smaller batch")
