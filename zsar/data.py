"""The real datasets on this machine: what is there, how to get it, whether it is whole. ``python -m zsar data``."""

import argparse
import sys
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas
import torch
from matplotlib.figure import Figure
from tqdm import tqdm

from zsar.datasets import SPLITS, ImageDataset, batches, data_root, load_dataset
from zsar.datasets.fetch import fetch
from zsar.datasets.manifest import Manifest, get_manifest
from zsar.datasets.packed import pack, read_packed
from zsar.datasets.sixteen import expected_images, find_listing, load_sixteen, packed_folder
from zsar.errors import DatasetError, MissingDatasetError, unknown_name
from zsar.figures import encode, image_grid
from zsar.outputs import writable_file, write_atomically, write_json
from zsar.profiles import SIXTEEN

SHEET = 24  # pictures that ``show`` shows


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of ``python -m zsar data``."""
    tasks = parser.add_subparsers(dest="task", required=True, metavar="list|fetch|verify|show|pack")

    def task(name: str, work: Callable[[argparse.Namespace], str], summary: str) -> argparse.ArgumentParser:
        command = tasks.add_parser(name, help=summary, description=summary)
        command.set_defaults(work=work)
        command.add_argument("--root", metavar="DIR", help="folder of the datasets (default: $ZSAR_DATA, else a cache)")
        if name != "list":
            command.add_argument("names", nargs="+", metavar="NAME", help="such as CIFAR10; all: the sixteen")
        return command

    task("list", list_datasets, "what is there").add_argument("--json", metavar="OUT", help="write it to this file")
    task("fetch", fetch_datasets, "download what is missing").add_argument(
        "--yes", action="store_true", help="do not ask before more than 5 GB")
    task("verify", verify_datasets, "count and decode every image").add_argument(
        "--workers", type=int, default=0, metavar="N", help="processes that decode (default: none)")
    task("show", show_datasets, "pictures with their prompts").add_argument(
        "--out", default="sheets", metavar="DIR", help="folder for a contact sheet a dataset (default: sheets)")
    command = task("pack", pack_datasets, "decode once, for repeated runs")
    command.add_argument("--split", default="test", help="test (default) or train")
    command.add_argument("--partial", action="store_true", help="pack what is there where images are missing")


def run(args: argparse.Namespace) -> str:
    """Do the task that was asked for."""
    args.root = Path(args.root) if args.root else data_root()
    if "names" in args:
        args.names = list(SIXTEEN) if args.names == ["all"] else list(dict.fromkeys(args.names))
        for name in args.names:
            if name not in SIXTEEN:
                raise unknown_name("dataset", name, SIXTEEN)
    return args.work(args)


def state(manifest: Manifest, root: Path) -> dict:
    """How much of the evaluation split is there.

    ``state``: ``present``, ``partial``, ``missing``, or ``needs you`` where it is missing and cannot be downloaded;
    ``found``: how many images; ``why``: what the loader says where it is not present; ``packed``: the packed splits.
    """
    expected, found, why, begun = expected_images(manifest, "test"), 0, "", True
    try:
        found = len(find_listing(manifest, "test", root).ids)
    except DatasetError as error:
        why, begun = str(error), not isinstance(error, MissingDatasetError)
    packed = [split for split in ("train", "test") if packed_folder(root, manifest.name, split).is_dir()]
    if not found and "test" in packed:
        found = len(read_packed(packed_folder(root, manifest.name, "test"))[0]["ids"])
    by_hand = all(source.kind == "manual" for source in manifest.sources)
    found_state = ("present" if found == expected else "partial" if begun or found else
                   "needs you" if by_hand else "missing")
    return {"state": found_state, "found": found, "why": why, "packed": packed}


def list_datasets(args: argparse.Namespace) -> str:
    """A row a dataset: images, classes, size, licence, and what of it is there."""
    rows = []
    for name in SIXTEEN:
        manifest, texts = get_manifest(name), get_manifest(name).protocols["tecoa16"]
        rows.append({"dataset": name, "images": texts.images, "classes": len(texts.classnames), "side": manifest.size,
                     "bytes": next((source.size for source in manifest.sources if source.size), None),
                     "licence": manifest.licence, **state(manifest, args.root)})
    if args.json:
        write_json(writable_file(args.json), {"root": str(args.root), "datasets": rows})
    table = pandas.DataFrame(rows)
    table["size"] = ["?" if size is None or size != size else f"{size / 1e9:.1f} GB" for size in table["bytes"]]
    table["here"] = [row["state"] + f" ({row['found']:,})" * (row["state"] == "partial") for row in rows]
    table["licence"] = [text if len(text) <= 34 else text[:33] + "…" for text in table["licence"]]
    columns = ["dataset", "images", "classes", "side", "size", "licence", "here"]
    there = Counter(row["state"] for row in rows)
    return "\n".join([table[columns].to_string(index=False, formatters={"images": "{:,}".format}),
                      f"{args.root}: {', '.join(f'{n} {what}' for what, n in there.items())}"])


def fetch_datasets(args: argparse.Namespace) -> str:
    """Download what is not there; says what to do where that cannot be."""
    lines = []
    for name in args.names:
        manifest = get_manifest(name)
        if state(manifest, args.root)["state"] == "present":
            lines.append(f"{name}: present, nothing to do")
            continue
        lines += _fetch_one(manifest, args)
    return "\n".join(lines)


def _fetch_one(manifest: Manifest, args: argparse.Namespace) -> list[str]:
    """From the first source that can be had; the steps, where that one is done by hand. Raises DatasetError."""
    lines = []
    for source in manifest.sources:
        try:
            with tqdm(unit="B", unit_scale=True, desc=manifest.name, leave=False) as bar:
                by_hand = fetch(source, args.root, name=manifest.name, progress=bar.update,
                                agreed=lambda size: args.yes or _ask(manifest.name, size))
        except DatasetError as error:
            lines.append(f"{manifest.name}: {source.kind}: {error}")
            continue
        if by_hand:
            return [*lines, f"{manifest.name} has to be fetched by hand, into {args.root}:", by_hand]
        there = state(manifest, args.root)
        return [*lines, f"{manifest.name}: {there['state']}, {there['found']:,} images {there['why']}".rstrip()]
    raise DatasetError("; ".join(lines))


def _ask(name: str, size: int) -> bool:
    """Whether a large download may begin; without a terminal it may not."""
    if not sys.stdin.isatty():
        return False
    return input(f"{name}: download {size / 1e9:.1f} GB? [y/N] ").strip().lower() in ("y", "yes")


def verify_datasets(args: argparse.Namespace) -> str:
    """Count, check and decode. Raises DatasetError, after a line a finding, where a dataset is not whole."""
    findings = {name: verify(get_manifest(name), args.root, args.workers) for name in args.names}
    lines = [f"{name}: {line}" for name, found in findings.items() for line in found or ["whole"]]
    if not (broken := [name for name, found in findings.items() if found]):
        return "\n".join(lines)
    tqdm.write("\n".join(lines))
    raise DatasetError(f"{len(broken)} of {len(findings)} datasets are not whole: {', '.join(broken)}; python -m zsar "
                       "data fetch gets what is missing, a broken file has to be deleted first")


def verify(manifest: Manifest, root: Path, workers: int = 0) -> list[str]:
    """What is wrong with a dataset's files, one line each; nothing if it is whole."""
    wrong = []
    for split in ("test", "train"):
        if (expected := expected_images(manifest, split)) is None:
            continue
        try:
            dataset = load_sixteen(manifest.name, split, root, "tecoa16", partial=True, packed=False)
        except MissingDatasetError as error:
            return [str(error)]
        except DatasetError as error:
            wrong.append(f"{split}: {error}")
            continue
        if len(dataset) != expected:
            wrong.append(f"{split}: found {len(dataset):,} images, expected {expected:,}")
        if absent := sorted(set(range(len(manifest.annotated))) - set(dataset.labels.tolist())):
            wrong.append(f"{split}: {len(absent)} classes have no image, e.g. {manifest.annotated[absent[0]]}")
        rows = torch.arange(len(dataset)).split(64)
        for batch in tqdm(batches(dataset, rows, torch.device("cpu"), workers=workers), total=len(rows), leave=False,
                          desc=f"{manifest.name} {split}", unit="batch"):
            wrong += [f"{split}: {reason}" for reason in batch.unreadable.values()]
    return wrong


def show_datasets(args: argparse.Namespace) -> str:
    """A contact sheet a dataset: pictures of different classes under their prompts."""
    lines = []
    for name in args.names:
        dataset = load_dataset(name, root=args.root, partial=True)
        path = writable_file(Path(args.out) / f"{name}.png")
        write_atomically(path, encode(sheet(dataset)))
        lines.append(f"{path}: {name}, {min(SHEET, len(dataset))} of {len(dataset):,} images")
    return "\n".join(lines)


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
    lines = []
    for name in args.names:
        dataset = load_sixteen(name, args.split, args.root, "tecoa16", args.partial, packed=False)
        folder = packed_folder(args.root, name, args.split)
        with tqdm(total=len(dataset), unit="image", desc=f"packing {name}", leave=False) as bar:
            pack(dataset, folder, bar.update)
        size = sum(path.stat().st_size for path in folder.iterdir())
        lines.append(f"{folder}: {size / 1e9:.2f} GB")
    return "\n".join(lines)
