"""Clean and robust accuracy of a zero-shot CLIP on many datasets: ``python -m zsar evaluate``."""

import argparse
import warnings

import pandas
import torch
from tqdm import tqdm

from zsar import datasets
from zsar.attacks import ATTACKS, OPTIONS, attack_from_settings, attack_settings, describe_attack
from zsar.clip import load_clip
from zsar.datasets.sixteen import root_option
from zsar.errors import (
    DatasetError,
    MissingDatasetError,
    OutputError,
    UnknownNameError,
    ZsarError,
    unknown_name,
)
from zsar.evaluate import trust_command
from zsar.evaluate.accuracy import evaluate_dataset
from zsar.fast import PRECISIONS, check_precision
from zsar.methods import load_adapted
from zsar.outputs import writable_file, write_json
from zsar.profiles import PROFILES, SIXTEEN, Profile, get_profile
from zsar.results import mean_interval, provenance


def summary(rows: list[dict], settings: dict) -> dict:
    """Means over datasets, each of the same weight, and the speed of the attack."""
    n, means = [row["images"] for row in rows], {}
    for kind in ("clean", "robust"):
        if all(kind in row for row in rows):
            mean, low, high = mean_interval([row[f"{kind}_hits"] for row in rows], n)
            means |= {f"mean_{kind}": round(mean, 2), f"mean_{kind}_interval": [round(low, 2), round(high, 2)]}
    # Whatever lets go of fooled images takes fewer steps than it might: no rate can be said of those.
    if settings.get("iterate") == "last" and (spent := sum(row.get("attack_seconds", 0) for row in rows)):
        means["images_x_steps_per_second"] = round(sum(n) * settings["steps"] / spent, 1)
    return means | {"seconds": round(sum(row["seconds"] for row in rows), 2)}


def table(record: dict) -> str:
    """The rows of a record of ``run`` as text for a terminal, its settings below."""
    columns = {"dataset": "dataset", "images": "images", "clean": "clean %", "clean_interval": "95 %",
               "robust": "robust %", "robust_interval": "95 % "}
    rows = [{title: row[key] for key, title in columns.items() if key in row} for row in record["rows"]]
    text = pandas.DataFrame(rows).to_string(index=False, formatters={
        title: (lambda v: f"{v[0]:.1f}-{v[1]:.1f}") if "95" in title else "{:.1f}".format
        for title in columns.values() if "%" in title})
    settings, means = record["settings"], record["summary"]
    robust = f", robust {means['mean_robust']:.1f} %" if "mean_robust" in means else ""
    broken = [name for row in record["rows"] for name in row.get("unreadable", ())]
    speed = means.get("images_x_steps_per_second")
    return "\n".join([
        text, *([f"missing, and not in the mean: {', '.join(record['missing'])}"] if record.get("missing") else []),
        f"mean of {len(rows)}: clean {means['mean_clean']:.1f} %{robust}",
        describe_attack(settings) + f", at each dataset's own resolution; {record['provenance']['model']}, "
        f"seed {settings['seed']}, {record['provenance']['device']}, {means['seconds']:.1f} s"
        + (f", {speed:.0f} images x steps per second" if speed else ""),
        *([f"images that could not be read and do not count: {len(broken)}, e.g. {broken[0]}"] if broken else [])])


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of ``python -m zsar evaluate``."""
    add_model_arguments(parser)
    parser.add_argument("--adapted", metavar="FILE", help="adapted.safetensors of zsar adapt, or a checkpoint of the "
                        "prompts of Mao et al., on top of the model")
    parser.add_argument("--datasets", metavar="all|NAME,...",
                        help="names, folders of class folders (./photos) or CSV files (default: all of the profile's; "
                        "with --trust its source)")
    parser.add_argument("--attack", metavar="NAME",
                        help=f"{', '.join(ATTACKS)} (default: pgd; with --trust 20 steps of it, any iterate)")
    parser.add_argument("--steps", type=int, help="steps of PGD and CW (default: 10) or APGD (100), queries of "
                        "Square (5000)")
    parser.add_argument("--eps", type=float, help="radius in grey levels, 4 = 4/255 (default: the profile's)")
    parser.add_argument("--alpha", type=float, help="step of PGD and CW in grey levels (default: eps / 4)")
    parser.add_argument("--iterate", help="last (default), or worst: any iterate of PGD or CW that fools")
    add_speed_arguments(parser)
    parser.add_argument("--images", type=int, help="test images a dataset (default: the profile's; with --trust "
                        f"{trust_command.IMAGES} at most)")
    parser.add_argument("--available", action="store_true",
                        help="leave out datasets that are not here, or not whole, and say so beside the mean")
    parser.add_argument("--per-class", type=int, metavar="N", help="at most N of them of each class")
    parser.add_argument("--seed", type=int, default=0, help="of random starts and of the choice of images (default: 0)")
    add_data_arguments(parser)
    parser.add_argument("--device", help="cpu, cuda, ... (default: an accelerator where there is one)")
    parser.add_argument("--json", metavar="OUT", help="write rows and settings to this file, after each dataset")
    parser.add_argument("--trust", action="store_true",
                        help="audit the attack instead: can its robust accuracy be trusted? (exit status 1: no)")


def add_speed_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of every command that attacks at a speed of choice."""
    parser.add_argument("--precision", default="fp32", metavar="|".join(PRECISIONS),
                        help="what the attack's gradients are computed in; answers always are in fp32 (default: fp32)")
    parser.add_argument("--compile", action="store_true", help="compile the image tower for the gradients")


def add_model_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of every command that takes a profile's CLIP or another."""
    parser.add_argument("--profile", help=f"{', '.join(PROFILES)} (default: $ZSAR_PROFILE, else drawn)")
    parser.add_argument("--model", help="drawn, a model of open_clip, a folder, or hf-hub:OWNER/NAME (default: the "
                        "profile's)")
    parser.add_argument("--pretrained", help="tag, file, TAG+FILE (an image tower in other weights), or random "
                        "(default: the profile's)")


def add_data_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of every command that reads real images."""
    parser.add_argument("--root", metavar="DIR", help="folder of the real datasets (default: $ZSAR_DATA, else a cache)")
    parser.add_argument("--protocol", default="tecoa16", metavar="|".join(datasets.PROTOCOLS),
                        help="class names and templates of the paper (default: tecoa16) or of CLIP_benchmark")
    parser.add_argument("--workers", type=int, metavar="N",
                        help="processes that decode images (default: one a core with an accelerator, else none)")
    parser.add_argument("--strict", action="store_true", help="stop at an image that cannot be read")


def check_workers(workers: int | None) -> None:
    """Raise ZsarError for a number of processes that cannot be."""
    if workers is not None and workers < 0:
        raise ZsarError(f"--workers {workers}: expected a whole number of at least 0")


def run(args: argparse.Namespace) -> str:
    """Evaluate as the command line says; returns the table. Every input is checked before the first image.

    With ``--trust`` the reports instead; raises ChecksFailedError where a check failed.
    """
    profile = get_profile(args.profile)
    args = filled_in(args, profile)
    settings = settings_from(args, profile)
    attack = attack_from_settings(settings)
    out = None if args.json is None else writable_file(args.json)
    if out and args.adapted and out.exists() and out.samefile(args.adapted):
        raise OutputError(f"--json {out} is the file of --adapted: name another")
    whole, missing = load_all(dataset_list(args.datasets, profile.datasets), args.root, args.protocol, args.available)
    tests = [dataset.subset(settings["images"] or len(dataset), args.seed, args.per_class) for dataset in whole]
    clip = load_clip(settings["model"], pretrained=settings["pretrained"], device=args.device)
    check_precision(args.precision, clip.device)
    original = clip
    if args.adapted:
        clip = load_adapted(args.adapted, original)
    if args.trust:
        return trust_command.audit(clip, original if args.adapted else None, tests, attack, settings, args, out)
    record = {"rows": [], "settings": settings, "provenance": provenance(clip), "digest": clip.digest,
              "threads": torch.get_num_threads(), "complete": False, "missing": missing}
    with tqdm(total=sum(map(len, tests)), unit="image", leave=False) as bar:
        for dataset, all_of_it in zip(tests, whole, strict=True):
            bar.set_description(dataset.name)
            row = evaluate_dataset(clip, dataset, attack, seed=args.seed, precision=args.precision,
                                   compiled=args.compile, progress=bar.update, workers=args.workers, strict=args.strict)
            counted = [name for name in dataset.ids if name not in row.get("unreadable", ())]
            record["rows"].append(row | ({"ids": counted} if len(counted) < len(all_of_it) else {}))
            record |= {"summary": summary(record["rows"], settings), "complete": dataset is tests[-1]}
            if out:
                write_json(out, record)  # after each dataset, so that a run that is stopped loses one at most
    return table(record)


def filled_in(args: argparse.Namespace, profile: Profile) -> argparse.Namespace:
    """The arguments with what was not given, and is another with ``--trust``."""
    defaults = {"attack": "pgd", "datasets": "all"}
    if args.trust:
        defaults = {"attack": "pgd", "datasets": profile.source,
                    "images": min(trust_command.IMAGES, profile.images or trust_command.IMAGES)}
        if args.attack is None:
            defaults |= {"steps": 20, "iterate": "worst"}
    return argparse.Namespace(**vars(args) | {name: value for name, value in defaults.items()
                                              if getattr(args, name) is None})


def load_all(names: list[str], root: str | None, protocol: str,
             available: bool) -> tuple[list[datasets.ImageDataset], list[str]]:
    """The test splits of these datasets, and the names of those that are not on this machine, or not whole.

    Raises DatasetError, without ``available`` for the first of these, with it where none is left. One of the sixteen
    that is there but not whole is left out with a warning; drawn ones and places of one's own never are.
    """
    found, missing = [], []
    for name in names:
        try:
            found.append(datasets.load_dataset(name, root=root, protocol=protocol))
        except DatasetError as error:
            if name not in SIXTEEN:
                raise
            if not available:
                raise DatasetError(f"{error}; --available goes on without it") from error
            if not isinstance(error, MissingDatasetError):
                warnings.warn(f"{name} is left out: {str(error).removeprefix(f'{name}: ')}", stacklevel=2)
            missing.append(name)
    if not found:
        raise DatasetError(f"none of {', '.join(names)} is on this machine: python -m zsar data list"
                           f"{root_option(root)} says what is")
    return found, missing


def settings_from(args: argparse.Namespace, profile: Profile) -> dict:
    """The settings of a run with the profile's defaults filled in. Raises ZsarError for what cannot be meant."""
    images = profile.images if args.images is None else args.images
    if images is not None and images < 1:
        raise ZsarError(f"--images {images}: expected at least 1 test image a dataset")
    if args.per_class is not None and args.per_class < 1:
        raise ZsarError(f"--per-class {args.per_class}: expected at least 1")
    check_workers(args.workers)
    if not 0 <= args.seed < 2**32:
        raise ZsarError(f"--seed {args.seed}: expected a whole number from 0 to {2**32 - 1}")
    if args.attack not in OPTIONS:
        raise unknown_name("attack", args.attack, ATTACKS)
    for option in ("eps", "alpha", "steps", "iterate"):
        if getattr(args, option) is not None and option not in OPTIONS[args.attack]:
            raise ZsarError(f"--{option} has no meaning with --attack {args.attack}: leave it out")
    model = args.model or profile.model
    pretrained = args.pretrained or (profile.pretrained if model == profile.model else None)
    eps = profile.eps_255 if args.eps is None else args.eps
    settings = {"profile": profile.name, "model": model, "pretrained": pretrained, "adapted": args.adapted,
                "images": images, "per_class": args.per_class, "protocol": args.protocol, "seed": args.seed}
    attack = attack_settings(args.attack, eps, args.alpha, args.steps, args.iterate)
    if args.trust and not attack.get("eps_255"):
        raise ZsarError(f"--trust audits an attack, and --attack {args.attack}"
                        f"{' --eps 0' if 'eps_255' in attack else ''} is none: use pgd, and an eps such as 4")
    speed = {"precision": args.precision, "compiled": args.compile}
    return settings | attack | ({} if args.attack == "none" else {"resolution": "native"} | speed)


def dataset_list(names: str, of_profile: tuple[str, ...]) -> list[str]:
    """``all`` or a comma-separated list as names and places of one's own. Raises UnknownNameError."""
    if names.strip() == "all":
        return list(of_profile)
    chosen = [name.strip() for name in names.split(",") if name.strip()]
    if not chosen:
        raise UnknownNameError(f"--datasets {names!r}: expected all, or names such as {of_profile[0]},{of_profile[1]}")
    for name in chosen:
        if name not in datasets.dataset_names() and not datasets.is_own(name):
            raise datasets.unknown_dataset(name, of_profile)
    return list(dict.fromkeys(chosen))
