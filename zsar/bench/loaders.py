"""How fast images reach the device, beside torchvision's own loader at equal pixels.

    python -m zsar bench-input ./photos

Three ways to the same batches of a folder of class folders, in turn: torchvision's ImageFolder in torch's DataLoader,
as tutorials write it (decoded, resized, cropped and made floats an image at a time); ours from the same files; ours
from a packed copy. Files are read once beforehand, so that all three find them in the memory of the operating system.
"""

import argparse
import os
import statistics
import tempfile
import time
from collections.abc import Callable, Iterable
from pathlib import Path

import torch
from torch import Tensor
from torch.utils.data import DataLoader
from torchvision.datasets import ImageFolder
from torchvision.transforms import CenterCrop, Compose, Resize, ToTensor

from zsar.clip import pick_device
from zsar.datasets import ImageDataset, batches
from zsar.datasets.own import load_own
from zsar.datasets.packed import pack, read_packed
from zsar.errors import DatasetError, ZsarError
from zsar.outputs import writable_file, write_json
from zsar.results import machine

BATCH = 64


def compare_loaders(folder: str, workers: int, repeats: int, device: torch.device) -> dict:
    """Images a second of the three loaders (medians over ``repeats``), and whether their pixels are equal.

    Raises DatasetError where the folder cannot be read, or holds an image that only one of them reads.
    """
    files = load_own(Path(folder), "test")  # whether there is a packed copy of it or not
    with tempfile.TemporaryDirectory() as place:
        pack(files, Path(place) / "packed")
        size = sum(path.stat().st_size for path in (Path(place) / "packed").iterdir())
        packed = ImageDataset(files.name, files.split, files.classnames, files.templates, files.labels, files.ids,
                              read_packed(Path(place) / "packed")[1])
        ways = {"torchvision": lambda: _torchvision(folder, workers, device), "files": lambda: _ours(
            files, workers, device), "packed": lambda: _ours(packed, workers, device)}
        sums = {name: torch.cat([images.double().mean((1, 2, 3)) for images in way()]) for name, way in ways.items()}
        agree = all(len(found) == len(files) and torch.equal(found.sort()[0], sums["files"].sort()[0])
                    for found in sums.values())
        seconds = {name: [] for name in ways}
        for _ in range(repeats):
            for name, way in ways.items():
                seconds[name].append(_seconds(way))
    rates = {name: len(files) / statistics.median(values) for name, values in seconds.items()}
    return {"images": len(files), "workers": workers, "repeats": repeats, "agree": agree, "packed_bytes": size,
            "images_per_second": rates, "spread": {name: [len(files) / max(values), len(files) / min(values)]
                                                   for name, values in seconds.items()},
            "ratio": {name: rates[name] / rates["torchvision"] for name in ("files", "packed")}}


def _ours(dataset: ImageDataset, workers: int, device: torch.device) -> Iterable[Tensor]:
    rows = torch.arange(len(dataset)).split(BATCH)
    return (batch.images for batch in batches(dataset, rows, device, workers=workers, strict=True))


def _torchvision(folder: str, workers: int, device: torch.device) -> Iterable[Tensor]:
    files = ImageFolder(folder, Compose([Resize(256), CenterCrop(224), ToTensor()]))
    loader = DataLoader(files, BATCH, num_workers=workers, pin_memory=device.type == "cuda")
    return (images.to(device, non_blocking=True) for images, _ in loader)


def _seconds(way: Callable[[], Iterable[Tensor]]) -> float:
    begin = time.perf_counter()
    for images in way():
        last = images
    last.sum().item()  # an accelerator has to have it all
    return time.perf_counter() - begin


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of ``python -m zsar bench-input``."""
    parser.add_argument("folder", help="a folder of class folders, such as ./photos")
    parser.add_argument("--workers", type=int, default=0, help="processes that decode (default: 0)")
    parser.add_argument("--repeats", type=int, default=5, help="of each way (default: 5)")
    parser.add_argument("--device", default="cpu", help="where the batches go (default: cpu)")
    parser.add_argument("--json", metavar="OUT", help="write the figures to this file")


def run(args: argparse.Namespace) -> str:
    """Compare the loaders as the command line says; returns the figures in words."""
    if args.workers < 0 or args.repeats < 1:
        raise ZsarError(f"--workers {args.workers}, --repeats {args.repeats}: expected at least 0 and 1")
    if not os.path.isdir(args.folder):  # Path.is_dir raises in a closed folder
        raise DatasetError(f"{args.folder} is no folder: expected one of class folders")
    out, folder = writable_file(args.json) if args.json else None, str(Path(args.folder).resolve())
    device = pick_device(args.device)
    found = compare_loaders(folder, args.workers, args.repeats, device)
    found |= {"provenance": machine(device.type)}
    if out:
        write_json(out, found)
    lines = [f"{name:12}{rate:8.0f} images/s ({found['spread'][name][0]:.0f} to {found['spread'][name][1]:.0f})"
             for name, rate in found["images_per_second"].items()]
    return "\n".join([f"{found['images']} images to {args.device}, {args.workers} workers, median of {args.repeats}; "
                      f"pixels {'equal' if found['agree'] else 'DIFFER'}", *lines,
                      f"ours from files {found['ratio']['files']:.2f}x, packed {found['ratio']['packed']:.2f}x "
                      "torchvision's"])
