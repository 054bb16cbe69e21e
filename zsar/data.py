"""The real datasets on this machine: what is there, how to get it, whether it is whole. ``python -m zsar data``."""

import argparse
import os
import sys
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import huggingface_hub
import numpy as np
import pandas
import torch
from matplotlib.figure import Figure
from tqdm import tqdm

from zsar.datasets import SPLITS, ImageDataset, batches, data_root, is_own, load_dataset, unknown_dataset
from zsar.datasets.fetch import check_files, fetch
from zsar.datasets.manifest import Manifest, get_manifest
from zsar.datasets.own import load_own, own_packed_as, own_packed_folder, place_digest
from zsar.datasets.packed import pack, packed_folder, read_packed
from zsar.datasets.sixteen import expected_images, find_listing, load_sixteen, packed_as, root_option
from zsar.errors import DatasetError, MissingDatasetError, UnreadableImageError, ZsarError, unknown_name
from zsar.evaluate import check_workers
from zsar.figures import encode, image_grid
from zsar.outputs import writable_file, write_atomically, write_json
from zsar.profiles import FREE, SIXTEEN

SHEET = 24  # pictures that ``show`` shows


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of ``python -m zsar data``."""
    tasks = parser.add_subparsers(dest="task", required=True, metavar="list|fetch|verify|show|pack")

    def task(name: str, work: Callable[[argparse.Namespace], str], summary: str) -> argparse.ArgumentParser:
        command = tasks.add_parser(name, help=summary, description=summary)
        command.set_defaults(work=work)
        command.add_argument("--root", metavar="DIR", help="folder of the datasets (default: $ZSAR_DATA, else a cache)")
        if name != "list":
            command.add_argument("names", nargs="+", metavar="NAME", help="such as CIFAR10; all: the sixteen; "
                                 "colab: the nine of that profile"
                                 + "; or a place of your own, such as ./photos" * (name != "fetch"))
        return command

    task("list", list_datasets, "what is there").add_argument("--json", metavar="OUT", help="write it to this file")
    command = task("fetch", fetch_datasets, "download what is missing")
    command.add_argument("--yes", action="store_true", help="do not ask before more than 5 GB")
    command.add_argument("--split", choices=[*SPLITS[::-1], "all"], default="test",
                         help="which shards of the hub: of test, which is evaluated on (default), train or all; "
                         "archives of the original layouts always come whole")
    command = task("verify", verify_datasets, "compare checksums, count and decode every image")
    command.add_argument("--workers", type=int, default=0, metavar="N", help="processes that decode (default: none)")
    command.add_argument("--split", choices=[*SPLITS[::-1], "all"], default="test",
                         help="test, which is evaluated on (default), train or all")
    task("show", show_datasets, "pictures with their prompts").add_argument(
        "--out", default="sheets", metavar="DIR", help="folder for a contact sheet a dataset (default: sheets)")
    command = task("pack", pack_datasets, "decode once, for repeated runs")
    command.add_argument("--split", default="test", help="test (default) or train")


def run(args: argparse.Namespace) -> str:
    """Do the task that was asked for."""
    check_workers(getattr(args, "workers", None))
    args.root = (Path(args.root) if args.root else data_root()).expanduser()
    if "names" in args:
        groups = {"all": SIXTEEN, "colab": FREE}
        args.names = list(dict.fromkeys(name for word in args.names for name in groups.get(word, [word])))
        for name in args.names:
            if is_own(name) and args.task == "fetch":
                raise DatasetError(f"{name} is a place of your own: there is nothing to fetch; name one of the sixteen")
            if name not in SIXTEEN and not is_own(name):
                raise unknown_dataset(name, SIXTEEN)
    return args.work(args)


def state(manifest: Manifest, root: Path, split: str = "test") -> dict:
    """How much of a split is there.

    ``state``: ``present``, ``partial``, ``missing``, or ``needs you`` where it is missing and cannot be downloaded;
    ``found``: how many images; ``layout``: which ones ``load_dataset`` reads (None: none), those of a packed copy where
    there is one; ``why``: what the loader says where it is not present, and what is wrong with a packed copy;
    ``packed``: the packed splits.
    """
    expected, found, layout, why, begun = expected_images(manifest, split), 0, None, "", True
    try:
        layout, listing = find_listing(manifest, split, root)
        found = len(listing.ids)
    except DatasetError as error:
        why, begun = _without(manifest.name, error), not isinstance(error, MissingDatasetError)
    # unlike that of pathlib, this isdir raises nothing in a folder that must not be read
    packed = [part for part in SPLITS if os.path.isdir(packed_folder(root, manifest.name, part))]
    broken = []
    for part in packed:
        try:
            about, _ = read_packed(packed_folder(root, manifest.name, part), packed_as(manifest, part))
            if part == split:
                layout, copied = about["layout"], len(about["ids"])
                if found and copied != found:
                    broken.append(f"the packed copy, which is read, has {copied:,} images, the {found:,} of its files "
                                  "are there: pack it again")
                found, why = (found, why) if found else (copied, "")
        except DatasetError as error:
            broken.append(str(error))
    why, begun = "; ".join(filter(None, [why, *broken])), begun or bool(broken)
    by_hand = all(source.kind == "manual" for source in manifest.sources)
    found_state = ("present" if found == expected else "partial" if begun or found else
                   "needs you" if by_hand else "missing")
    return {"state": found_state, "found": found, "layout": layout, "why": why, "packed": packed}


def _without(name: str, error: ZsarError) -> str:
    """What an error says, for a line that begins with the name of the dataset already."""
    return str(error).removeprefix(f"{name}: ")


def list_datasets(args: argparse.Namespace) -> str:
    """A row a dataset: images, classes, size, licence, and what of it is there."""
    rows, failed = _each(SIXTEEN, lambda name: _row(get_manifest(name), args.root))
    rows = list(rows.values())
    if args.json:
        write_json(writable_file(args.json), {"root": str(args.root), "datasets": rows})
    lines = [_table(rows)] if rows else []
    begun = [row for row in rows if row["state"] in ("present", "partial")]
    lines += [f"{row['dataset']}: {row['why']}" for row in begun if row["why"]]
    there = Counter(row["state"] for row in rows)
    lines.append(f"{args.root}: {', '.join(f'{n} {what}' for what, n in there.items())}")
    return _finish(lines, failed, SIXTEEN, "cannot be listed")


def _row(manifest: Manifest, root: Path) -> dict:
    texts = manifest.protocols["tecoa16"]
    return {"dataset": manifest.name, "images": texts.images, "classes": len(texts.classnames), "side": manifest.size,
            "bytes": next((source.size for source in manifest.sources if source.size), None),
            "licence": manifest.licence, **state(manifest, root)}


def _table(rows: list[dict]) -> str:
    table = pandas.DataFrame(rows)
    table["size"] = ["?" if size is None or size != size else f"{size / 1e9:.1f} GB" for size in table["bytes"]]
    table["layout"] = [(row["layout"] or "") + ", packed" * ("test" in row["packed"]) for row in rows]
    table["here"] = [row["state"] + f" ({row['found']:,})" * (row["state"] == "partial") for row in rows]
    table["licence"] = [text if len(text) <= 34 else text[:33] + "…" for text in table["licence"]]
    columns = ["dataset", "images", "classes", "side", "size", "licence", "layout", "here"]
    return table[columns].to_string(index=False, formatters={"images": "{:,}".format})


def _each(names: Sequence[str], work: Callable[[str], Any]) -> tuple[dict[str, Any], dict[str, str]]:
    """What ``work`` gives for each name, and what is wrong where it raises: one that fails does not stop the others."""
    done, failed = {}, {}
    for name in names:
        try:
            done[name] = work(name)
        except ZsarError as error:
            failed[name] = _without(name, error)
    return done, failed


def _finish(lines: list[str], failed: dict[str, str], names: Sequence[str], what: str) -> str:
    """The lines as the answer of a task. Where something failed they are shown, and DatasetError says of which."""
    if not failed:
        return "\n".join(lines)
    if len(names) == 1:
        raise DatasetError(": ".join(*failed.items()))
    tqdm.write("\n".join([*lines, *(f"{name}: {why}" for name, why in failed.items())]))
    raise DatasetError(f"{len(failed)} of {len(names)} datasets {what}: {', '.join(failed)}; the lines above say why")


def fetch_datasets(args: argparse.Namespace) -> str:
    """Download what is not there; says what to do where that cannot be. Raises DatasetError when all were tried, and
    at once in the hub's offline mode.
    """
    if huggingface_hub.constants.HF_HUB_OFFLINE:
        raise DatasetError("HF_HUB_OFFLINE is set, nothing is fetched: unset it to fetch")
    lines, failed = _each(args.names, lambda name: _fetch_one(get_manifest(name), args))
    return _finish([line for part in lines.values() for line in part], failed, args.names, "cannot be fetched")


def _fetch_one(manifest: Manifest, args: argparse.Namespace) -> list[str]:
    """From the first source that can be had, that of what is there before others; the steps, where that one is done by
    hand. Raises DatasetError.
    """
    lines, splits = [], [split for split in _splits(args.split) if expected_images(manifest, split) is not None]
    if not splits:
        return [f"{manifest.name}: it has no {args.split} split, nothing to fetch"]
    there = {split: state(manifest, args.root, split) for split in ("test", *splits)}
    if all(there[split]["state"] == "present" for split in splits):
        but = "; ".join(dict.fromkeys(there[split]["why"] for split in splits if there[split]["why"]))
        return [f"{manifest.name}: present, nothing to do" + (f" but: {but}" if but else "")]
    layouts = {split["layout"] for split in there.values()}  # files beside shards would be read instead of them
    for source in sorted(manifest.sources, key=lambda source: source.kind not in layouts):
        try:
            with tqdm(unit="B", unit_scale=True, desc=manifest.name, leave=False) as bar:
                by_hand = fetch(source, args.root, name=manifest.name, progress=bar.update, split=args.split,
                                agreed=lambda size: args.yes or _ask(manifest.name, size))
        except DatasetError as error:
            lines.append(f"{source.kind}: {error}")
            continue
        lines = [f"{manifest.name}: {line}" for line in lines]
        if by_hand:
            return [*lines, f"{manifest.name} has to be fetched by hand, into {args.root}:", by_hand]
        return lines + [_fetched(manifest, split, args.root) for split in splits]
    raise DatasetError("; ".join(lines))


def _splits(asked_for: str) -> tuple[str, ...]:
    """The splits that ``--split`` means, the one that is evaluated on first."""
    return SPLITS[::-1] if asked_for == "all" else (asked_for,)


def _fetched(manifest: Manifest, split: str, root: Path) -> str:
    """What is there of a split after a download."""
    there, name = state(manifest, root, split), manifest.name + " train" * (split == "train")
    return f"{name}: {there['state']}, {there['found']:,} images {there['why']}".rstrip()


def _ask(name: str, size: int) -> bool:
    """Whether a large download may begin; without a terminal it may not."""
    if not sys.stdin.isatty():
        return False
    return input(f"{name}: download {size / 1e9:.1f} GB? [y/N] ").strip().lower() in ("y", "yes")


def verify_datasets(args: argparse.Namespace) -> str:
    """Compare, count and decode. Raises DatasetError, after a line a finding, where a dataset is not whole."""
    splits = _splits(args.split)
    findings, failed = _each(args.names, lambda name: ({}, verify_own(name, splits, args.workers)) if is_own(name) else
                             verify(get_manifest(name), args.root, args.workers, splits))
    findings |= {name: ({}, [why]) for name, why in failed.items()}
    lines = [f"{name}{_read_as(layouts)}: {line}" for name, (layouts, wrong) in findings.items()
             for line in wrong or [_whole(name, splits)]]
    if not (broken := [name for name, (_, wrong) in findings.items() if wrong]):
        return "\n".join(lines)
    tqdm.write("\n".join(lines))
    mend = "mend or delete what the lines above name" if all(map(is_own, broken)) else \
        f"python -m zsar data fetch NAME{root_option(args.root)} gets what is missing, a broken file has to be " \
        "deleted first"
    what = f"{broken[0]} is not whole" if len(findings) == 1 else \
        f"{len(broken)} of {len(findings)} datasets are not whole: {', '.join(broken)}"
    raise DatasetError(f"{what}; {mend}")


def _read_as(layouts: dict[str, str]) -> str:
    """The layouts of the splits that were looked at, in brackets: one word where they are the same."""
    if len(set(layouts.values())) > 1:
        return f" ({', '.join(f'{split} {layout}' for split, layout in layouts.items())})"
    return "".join(f" ({layout})" for layout in set(layouts.values()))


def _whole(name: str, splits: Sequence[str]) -> str:
    there = is_own(name) or any(expected_images(get_manifest(name), split) is not None for split in splits)
    return "whole" if there else f"it has no {splits[0]} split, nothing to check"


def verify(manifest: Manifest, root: Path, workers: int = 0,
           splits: Sequence[str] = ("test",)) -> tuple[dict[str, str], list[str]]:
    """The layout of each of these splits that is there, and what is wrong with a dataset's files, one line each.

    A dataset that is only evaluated needs no training split, so that this is looked at when asked for.
    """
    layouts, wrong = {}, [line for source in manifest.sources for line in check_files(source, root)]
    for split in splits:
        if (expected := expected_images(manifest, split)) is None:
            continue
        try:
            dataset = load_sixteen(manifest.name, split, root, "tecoa16", partial=True, packed=False)
        except MissingDatasetError as error:
            wrong.append(_without(manifest.name, error))
        except DatasetError as error:
            wrong.append(f"{split}: {_without(manifest.name, error)}")
        else:
            layouts[split] = dataset.layout
            wrong += _verify_split(manifest, dataset, expected, workers)
    return layouts, list(dict.fromkeys(wrong))  # several sources know one file, both splits miss one folder


def _verify_split(manifest: Manifest, dataset: ImageDataset, expected: int, workers: int) -> list[str]:
    split, wrong = dataset.split, []
    if len(dataset) != expected:
        wrong.append(f"{split}: found {len(dataset):,} images, expected {expected:,}")
    if absent := sorted(set(range(len(manifest.annotated))) - set(dataset.labels.tolist())):
        wrong.append(f"{split}: {len(absent)} classes have no image, e.g. {manifest.annotated[absent[0]]}")
    return wrong + unreadable(dataset, workers)


def verify_own(place: str, splits: Sequence[str], workers: int = 0) -> list[str]:
    """What is wrong with images of one's own, one line each. Raises DatasetError where they cannot be listed."""
    return [line for split in splits for line in unreadable(load_own(Path(place).expanduser(), split), workers)]


def unreadable(dataset: ImageDataset, workers: int) -> list[str]:
    """A line for every image of a dataset that cannot be decoded."""
    rows = torch.arange(len(dataset)).split(64)
    every = batches(dataset, rows, torch.device("cpu"), workers=workers)
    return [f"{dataset.split}: {reason}"
            for batch in tqdm(every, total=len(rows), leave=False, desc=f"{dataset.name} {dataset.split}", unit="batch")
            for reason in batch.unreadable.values()]


def show_datasets(args: argparse.Namespace) -> str:
    """A contact sheet a dataset: pictures of different classes under their prompts."""
    lines, failed = _each(args.names, lambda name: _show_one(name, args))
    return _finish(list(lines.values()), failed, args.names, "cannot be shown")


def _show_one(name: str, args: argparse.Namespace) -> str:
    dataset = load_dataset(name, root=args.root, partial=True)
    called = Path(name).stem
    if sum(Path(other).stem == called for other in args.names) > 1 and is_own(name):
        called += f"-{place_digest(Path(name).expanduser())}"
    path = writable_file(Path(args.out) / f"{called}.png")
    write_atomically(path, encode(sheet(dataset)))
    return f"{path}: {name}, {min(SHEET, len(dataset))} of {len(dataset):,} images"


def sheet(dataset: ImageDataset) -> Figure:
    """Pictures of as many classes as fit, each under its prompt."""
    first = np.unique(dataset.labels.numpy(), return_index=True)[1]
    rows = first[np.linspace(0, len(first) - 1, min(SHEET, len(first))).astype(int)]
    images, labels = dataset.select(rows).stack()
    prompts = [dataset.templates[0].format(dataset.classnames[label]) for label in labels.tolist()]
    return image_grid(images, prompts)


def pack_datasets(args: argparse.Namespace) -> str:
    """Write packed copies, which are used from then on."""
    if args.split not in SPLITS:
        raise unknown_name("split", args.split, SPLITS)
    lines, failed = _each(args.names, lambda name: _pack_one(name, args))
    return _finish(list(lines.values()), failed, args.names, "cannot be packed")


def _pack_one(name: str, args: argparse.Namespace) -> str:
    if is_own(name):
        place = Path(name).expanduser()
        folder, about = own_packed_folder(args.root, place, args.split), own_packed_as(place, args.split)
        dataset = load_own(place, args.split)
    else:
        folder, about = packed_folder(args.root, name, args.split), packed_as(get_manifest(name), args.split)
        dataset = load_sixteen(name, args.split, args.root, "tecoa16", packed=False)
    with tqdm(total=len(dataset), unit="image", desc=f"packing {name}", leave=False) as bar:
        try:
            pack(dataset, folder, about, bar.update)
        except UnreadableImageError as error:
            if not is_own(name):
                raise
            raise UnreadableImageError(f"{str(error).removesuffix('; fetch it again')}: remove or mend that file, then "
                                       "pack again") from error
    size = sum(path.stat().st_size for path in folder.iterdir())
    return f"{folder}: {size / 1e9:.2f} GB"
