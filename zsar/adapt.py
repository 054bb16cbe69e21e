"""Make a CLIP robust: a loss, a method, a recipe and source images. ``python -m zsar adapt``.

``torchrun --nproc-per-node N -m zsar adapt`` shares the images of each step among N processes, with the same outcome up
to rounding.
"""

import argparse
import shlex
import sys
from collections.abc import Callable
from dataclasses import asdict, fields
from pathlib import Path

from zsar import distributed
from zsar.clip import Clip, load_clip
from zsar.datasets import ImageDataset, load_dataset
from zsar.errors import AdaptationError, OutputError
from zsar.evaluate import add_data_arguments, add_model_arguments, check_workers
from zsar.losses import LOSSES, Loss, get_loss
from zsar.methods import METHODS, parts
from zsar.outputs import writable_folder
from zsar.profiles import get_profile
from zsar.recipes import RECIPES, Recipe, get_recipe
from zsar.trainer import ADAPTED, RECORD, Adapted, History, Trainer

__all__ = ["Adapted", "History", "adapt"]


def adapt(original: Clip, source: ImageDataset, *, loss: str | Callable[..., Loss] = "tecoa",
          method: str = "finetune", recipe: Recipe | None = None, out: str | Path | None = None,
          watch: Callable[[History], None] = lambda history: None,
          held_out: ImageDataset | None = None, workers: int | None = None, strict: bool = False) -> Adapted:
    """Adapt a copy of ``original`` to ``source``, its training split; ``original`` stays as it is.

    Args:
        loss: a name of ``zsar.losses.LOSSES``, or a subclass of ``zsar.losses.Loss``.
        method: what is trained (``zsar.methods.METHODS``). recipe: how; by default that of the drawn CLIP.
        out: a folder for checkpoint, adapted weights and record; a run found there is continued.
        watch: is shown the history as it grows.
        held_out: source images that are never trained on; by default ``recipe.held_out`` of ``source``. The weights
            that do best on them are kept.
        workers, strict: as in ``zsar.datasets.batches``; without ``strict`` other images stand in for those that
            cannot be read, and ``history.unreadable`` of the result names them.

    Inside ``zsar.distributed.ranks`` all ranks make this call, share the images of each step and return the same.
    Raises ZsarError for whatever does not fit together, and DivergenceError.
    """
    out = writable_folder(out) if out else None
    return Trainer(original, source, loss, method, recipe or RECIPES["drawn"], out, watch, held_out, workers,
                   strict).run()


def tensorboard(folder: str | Path) -> Callable[[History], None]:
    """A ``watch`` that writes losses and held-out accuracies for TensorBoard. Raises OutputError without it."""
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError as error:
        raise OutputError("--tensorboard needs the package tensorboard: pip install tensorboard") from error
    # A continued run writes its curves from the start: what an earlier file says from step 0 on is not shown twice.
    writer, written = SummaryWriter(writable_folder(folder), purge_step=0), [0, 0]

    def watch(history: History) -> None:
        for step, loss in history.losses[written[0]:]:
            writer.add_scalar("loss", loss, step)
        for found in history.held_out[written[1]:]:
            writer.add_scalar("held-out source/clean", found["clean"], found["step"])
            writer.add_scalar("held-out source/robust", found["robust"], found["step"])
        written[:] = len(history.losses), len(history.held_out)
        writer.flush()

    return watch


#: The options that change a recipe, and what they mean.
OPTIONS = {
    "optimizer": "adamw or sgd", "lr": "learning rate of the image tower", "prompt_lr": "learning rate of prompts",
    "weight_decay": "of the tower's matrices", "momentum": "of SGD", "batch": "images a step", "steps": "updates",
    "warmup": "steps of linear warm-up", "eps_255": "radius of the training attack in grey levels, 0 for none",
    "alpha_255": "its step in grey levels", "attack_steps": "its steps", "attack_momentum": "its momentum",
    "pad": "width of the pad prompt in pixels", "tokens": "number of prompt tokens", "precision": "fp32 or bf16",
    "accumulate": "parts into which a batch is split to save memory",
    "held_out": "source images that are never trained on", "validate_every": "steps between two looks at them",
    "keep": "best (on held-out images) or last", "seed": "of the order, the random starts, heads and tokens",
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of ``python -m zsar adapt``."""
    add_model_arguments(parser)
    parser.add_argument("--loss", default="tecoa", metavar="LOSS", help=f"{', '.join(LOSSES)} (default: tecoa)")
    parser.add_argument("--method", default="finetune", metavar="METHOD",
                        help=f"{', '.join(METHODS)} (default: finetune; blocks-k trains the last k blocks)")
    parser.add_argument("--source", metavar="NAME", help="what is trained on: a dataset, or a place such as ./photos "
                        "with folders train and test (default: the profile's)")
    parser.add_argument("--images", type=int, help="training images beside those held out (default: all there are)")
    parser.add_argument("--out", required=True, metavar="DIR",
                        help="folder for checkpoint, adapted weights and record; a run found there is continued")
    add_data_arguments(parser)
    parser.add_argument("--device", help="cpu, cuda, ... (default: an accelerator where there is one)")
    parser.add_argument("--tensorboard", metavar="DIR", help="write curves for TensorBoard as they come")
    parser.add_argument("--recipe", help=f"{', '.join(RECIPES)} (default: the profile's); the options below change it")
    for setting in fields(Recipe):
        parser.add_argument(_flag(setting.name), type=setting.type, dest=setting.name, help=OPTIONS[setting.name])
    settings = ", ".join(f"{_flag(name)} {value:g}" if isinstance(value, float) else f"{_flag(name)} {value}"
                         for name, value in asdict(RECIPES["drawn"]).items())
    parser.epilog = (f"The recipe drawn is {settings}. The others stand in zsar.recipes. torchrun --nproc-per-node N "
                     "-m zsar adapt shares the images of each step among N processes, each with an accelerator of its "
                     "own where there are as many; N changes nothing but the rounding, and may change when a run is "
                     "continued.")


def _flag(setting: str) -> str:
    """The option of a recipe's setting."""
    return f"--{setting.removesuffix('_255').replace('_', '-')}"


def run(args: argparse.Namespace) -> str:
    """Adapt as the command line says; returns where the result is and how good it is on held-out source images.

    Of several ranks only the first returns something.
    """
    profile = get_profile(args.profile)
    recipe = get_recipe(args.recipe or profile.recipe, **{name: getattr(args, name) for name in OPTIONS})
    get_loss(args.loss)  # before the model is loaded, which takes seconds
    refuse_unused(args, recipe)
    with distributed.ranks():
        out = writable_folder(args.out)
        watch = tensorboard(args.tensorboard) if args.tensorboard and distributed.rank() == 0 else lambda history: None
        check_workers(args.workers)
        source = load_dataset(args.source or profile.source, "train", args.root, args.protocol)
        if args.images is not None:
            if args.images < 1:
                raise AdaptationError(f"--images {args.images}: expected at least 1")
            source = source.subset(args.images + recipe.held_out)
        model = args.model or profile.model
        pretrained = args.pretrained or (profile.pretrained if model == profile.model else None)
        clip = load_clip(model, pretrained=pretrained, device=distributed.rank_device(args.device))
        adapted = adapt(clip, source, loss=args.loss, method=args.method, recipe=recipe, out=out, watch=watch,
                        workers=args.workers, strict=args.strict)
        if distributed.rank():
            return ""
    options = {name: getattr(args, name) for name in ("profile", "model", "pretrained", "device")}
    given = "".join(f" --{name} {shlex.quote(value)}" for name, value in options.items() if value)
    return report(adapted, out, given)


def refuse_unused(args: argparse.Namespace, recipe: Recipe) -> None:
    """Raise AdaptationError for an option that would change nothing."""
    trained, method = parts(args.method), f"--method {args.method}"
    prompts_only = {"pad", "token"}.issuperset(trained)
    no_attack = "--eps 0" if recipe.eps_255 == 0 else "--loss clean" if args.loss == "clean" else ""
    because = {"pad": method * ("pad" not in trained), "tokens": method * ("token" not in trained),
               "prompt_lr": method * {"pad", "token"}.isdisjoint(trained), "weight_decay": method * prompts_only,
               "lr": method * (prompts_only and args.loss not in ("adv-slow", "adv-prefit")),  # it is their heads'
               "momentum": "--optimizer adamw" * (recipe.optimizer != "sgd"),
               **dict.fromkeys(("alpha_255", "attack_steps", "attack_momentum"), no_attack)}
    for name, reason in because.items():
        if reason and getattr(args, name) is not None:
            raise AdaptationError(f"{_flag(name)} changes nothing with {reason}: leave it out")


def report(adapted: Adapted, out: Path, given: str = "") -> str:
    """What came out, in words; ``given``: the options that the next command needs as well."""
    settings, history = adapted.settings, adapted.history
    found = next(row for row in history.held_out if row["step"] == adapted.step)
    attack = (f"robust {found['robust']:.1f} % at eps {settings['eps_255']:g}/255 (PGD-10, worst iterate)"
              if settings["eps_255"] else "eps 0: trained without an attack")
    trained = sum(value.numel() for value in adapted.trained.values())
    broken = [f"{len(history.unreadable)} images could not be read, e.g. {next(iter(history.unreadable))}; others "
              "stood in for them"] if history.unreadable else []
    return "\n".join([
        f"{settings['loss']} by {settings['method']}: {trained:,} parameters, {history.step} steps of "
        f"{settings['batch']} images of {settings['source']}, {history.seconds:.0f} s",
        f"held-out source: clean {found['clean']:.1f} %, {attack}; step {adapted.step} is kept ({settings['keep']})",
        *broken,
        f"weights {out / ADAPTED}, record {out / RECORD}",
        f"next    {this_python()} -m zsar evaluate --adapted {shlex.quote(str(out / ADAPTED))}{given}"])


def this_python() -> str:
    """The interpreter that runs this, as it would be called from here."""
    path, here = Path(sys.executable), Path.cwd()
    return shlex.quote(str(path.relative_to(here) if path.is_relative_to(here) else path))
