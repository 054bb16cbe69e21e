"""How fast a robust evaluation is, and how many cores have to decode for it.

    python -m zsar bench-evaluate --model ViT-B-32-quickgelu --pretrained random --photos ./photos

Noise in memory is evaluated under PGD into a store, as ``zsar reproduce`` does it: images x steps a second, what the
store and the copy to the device cost of it, and which share of the rate of one large matrix product it reaches. With
``--photos`` the same model is fed from files, and from a packed copy of them, by more and more processes.
"""

import argparse
import tempfile
from pathlib import Path

import numpy as np
import torch

from zsar.attacks import parse_attack
from zsar.bench.noise import noise
from zsar.bench.timing import image_flops, matrix_rate, seconds
from zsar.cells import Subject, evaluate_cells
from zsar.clip import Clip, load_clip
from zsar.datasets import ImageDataset
from zsar.datasets.own import load_own
from zsar.datasets.packed import pack, read_packed
from zsar.errors import ZsarError
from zsar.evaluate import add_model_arguments
from zsar.outputs import writable_file, write_json
from zsar.profiles import get_profile
from zsar.results import Store, provenance


def copy_seconds(images: int, size: int, device: torch.device) -> float:
    """What it takes to bring so many uint8 images to the device and make floats of them."""
    pixels = torch.zeros(images, 3, size, size, dtype=torch.uint8)
    pixels = pixels.pin_memory() if device.type == "cuda" else pixels
    return min(seconds(lambda: pixels.to(device, non_blocking=True).float().div_(255), device) for _ in range(3))


def evaluation(clip: Clip, dataset: ImageDataset, attack: dict, workers: int = 0) -> dict:
    """One evaluation into a new store: seconds as a whole, those of the device in it, and forward passes of images."""
    subject, found = Subject(clip, clip.digest, "none", 0, {}), []
    with tempfile.TemporaryDirectory() as place:
        taken = seconds(lambda: evaluate_cells(subject, dataset, [attack], Store(place), workers=workers,
                                               progress=lambda _, images, answers: found.append(answers)),
                        clip.device)
    return {"images": len(dataset), "seconds": taken, "attack_seconds": sum(unit.seconds for unit in found),
            "passes": sum(unit.passes for unit in found), "images_per_second": len(dataset) / taken,
            "images_x_steps_per_second": len(dataset) * attack["steps"] / taken}


def measure(clip: Clip, args: argparse.Namespace, attack: dict) -> dict:
    """The evaluation of noise, and what it is made of."""
    size = args.size or clip.image_size
    dataset = noise(args.images, args.classes, size).in_memory()
    evaluation(clip, dataset.select(np.arange(min(len(dataset), 512))), attack | {"steps": 1})  # warms the device up
    found = evaluation(clip, dataset, attack)
    memory = torch.cuda.max_memory_allocated() if clip.device.type == "cuda" else None  # before the matrices
    peak, flops = matrix_rate(clip.device), image_flops(clip, size)
    # an image-step is a forward pass and one back to the pixels, which costs as much
    reached = found["images_x_steps_per_second"] * 2 * flops
    return found | {
        "attack": attack, "classes": args.classes, "size": size, "flops_per_image": flops, "flops_per_second": reached,
        "matrix_flops_per_second": peak, "share_of_matrix_rate": reached / peak,
        "share_outside_the_attack": 1 - found["attack_seconds"] / found["seconds"],
        "copy_seconds": copy_seconds(len(dataset), size, clip.device),
        "peak_memory_bytes": memory}


def feeding(clip: Clip, files: ImageDataset, workers: list[int], attack: dict) -> list[dict]:
    """Evaluations of the images in a folder, from its files and from a packed copy, with numbers of processes."""
    with tempfile.TemporaryDirectory() as place:
        pack(files, Path(place) / "packed")
        packed = ImageDataset(files.name, files.split, files.classnames, files.templates, files.labels, files.ids,
                              read_packed(Path(place) / "packed")[1])
        return [{"from": name, "workers": n, **evaluation(clip, dataset, attack, n)}
                for name, dataset in (("files", files), ("packed", packed)) for n in workers]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of ``python -m zsar bench-evaluate``."""
    add_model_arguments(parser)
    parser.add_argument("--attack", default="pgd-10", help="as zsar reproduce spells it (default: pgd-10)")
    parser.add_argument("--images", type=int, default=256, help="of noise (default: 256)")
    parser.add_argument("--classes", type=int, default=1000, help="of noise (default: 1000)")
    parser.add_argument("--size", type=int, help="side of the noise in pixels (default: the model's)")
    parser.add_argument("--photos", metavar="DIR", help="a folder of class folders to be fed from as well")
    parser.add_argument("--workers", default="0,1,2", help="processes that decode them (default: 0,1,2)")
    parser.add_argument("--device", help="cpu, cuda, ... (default: an accelerator where there is one)")
    parser.add_argument("--json", metavar="OUT", help="write the figures to this file")


def run(args: argparse.Namespace) -> str:
    """Measure as the command line says; returns the figures in words."""
    profile = get_profile(args.profile)
    attack = parse_attack(args.attack, profile.eps_255)
    workers = [word.strip() for word in args.workers.split(",")]
    if min(args.images, args.classes) < 2 or attack["attack"] == "none" or not all(map(str.isdecimal, workers)):
        raise ZsarError(f"--images {args.images}, --classes {args.classes}, --attack {args.attack}, --workers "
                        f"{args.workers}: expected at least 2 of both, an attack, and numbers of processes")
    files = load_own(Path(args.photos), "test") if args.photos else None
    out = writable_file(args.json) if args.json else None
    model = args.model or profile.model
    clip = load_clip(model, pretrained=args.pretrained or (profile.pretrained if model == profile.model else None),
                     device=args.device)
    found = measure(clip, args, attack)
    if files:
        found["feeding"] = feeding(clip, files, list(map(int, workers)), attack)
    found["provenance"] = provenance(clip)
    if out:
        write_json(out, found)
    lines = [f"{args.attack}, {found['images']} images of {found['size']} px, {args.classes} classes on "
             f"{found['provenance']['device']}: {found['images_x_steps_per_second']:,.0f} images x steps a second, "
             f"{100 * found['share_of_matrix_rate']:.0f} % of the rate of a matrix product; "
             f"{100 * found['share_outside_the_attack']:.1f} % outside the attack"]
    lines += [f"from {row['from']}, {row['workers']} processes: {row['images_per_second']:,.0f} images a second"
              for row in found.get("feeding", ())]
    return "\n".join(lines)
