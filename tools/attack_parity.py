"""Our attacks beside their authors' code: robust accuracy under both, on the drawn CLIP and two adapted ones.

    python tools/attack_parity.py [--images 100] [--attacks apgd-ce,apgd-dlr] [--out data/results/attack-parity.json]

Every attack starts from its own random points, ours from an image's seed, theirs from a batch's. A row is a model, a
dataset and an attack; what is in the file already is not computed again. ``ensemble`` is compared with the reference's
standard AutoAttack, which adds FAB; tasks whose classes are too few for the package's attack are left out.
"""

import argparse
import json
import time
import warnings
from pathlib import Path

import torch

from zsar import datasets
from zsar.attacks import attack_from_settings, autoattack, image_seeds, misclassified, parse_attack
from zsar.attacks.reference import STANDARD, possible
from zsar.clip import Clip, ZeroShotClassifier, load_clip
from zsar.methods import load_adapted
from zsar.outputs import write_json
from zsar.paths import data_path
from zsar.profiles import get_profile
from zsar.results import provenance

MODELS = ("clip", "tecoa_finetune", "fare_finetune")
EPS_255 = 4
#: What of the package stands beside each of ours. Few classes replace or take away some of it.
THEIRS = {"apgd-ce": ("apgd-ce",), "apgd-dlr": ("apgd-dlr",), "apgd-t": ("apgd-t",), "ensemble": STANDARD}


def model(name: str) -> Clip:
    """The drawn CLIP, or one of the adapted ones that come with the package."""
    original = load_clip("drawn")
    return original if name == "clip" else load_adapted(data_path("drawn", "adapted", f"{name}_seed-0.safetensors"),
                                                        original)


def compare(clip: Clip, dataset: datasets.ImageDataset, attack: str, micro_batch: int | None) -> dict:
    """Images right after our attack and after theirs, and of these the ones right after both."""
    classifier = ZeroShotClassifier(clip, dataset.classnames, dataset.templates, dataset.verbatim)
    batch = next(datasets.batches(dataset, [torch.arange(len(dataset))], clip.device))
    images, labels, seeds = batch.images, batch.labels, image_seeds(dataset.ids)
    settings, row = parse_attack(attack, EPS_255), {"n": len(dataset), "classes": len(dataset.classnames)}
    right = {"clean": ~misclassified(classifier, images, labels)}
    for who, run in (("ours", lambda: attack_from_settings(settings)(classifier, images, labels, seeds,
                                                                      micro_batch=micro_batch)),
                     ("theirs", lambda: autoattack(classifier, images, labels, eps=EPS_255 / 255,
                                                   attacks=THEIRS[attack]))):
        begin = time.perf_counter()
        right[who] = ~misclassified(classifier, run(), labels)
        row[f"{who}_seconds"] = round(time.perf_counter() - begin, 1)
    return row | {who: int(hits.sum()) for who, hits in right.items()} | {
        "both": int((right["ours"] & right["theirs"]).sum())}


def main() -> None:
    """Fill the file row by row, and print each."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--images", type=int, default=100)
    parser.add_argument("--attacks", default="apgd-ce,apgd-dlr")
    parser.add_argument("--models", default=",".join(MODELS))
    parser.add_argument("--datasets", default=",".join(get_profile("drawn").datasets))
    parser.add_argument("--micro-batch", type=int, help="of ours: small where few images are left to attack")
    parser.add_argument("--out", type=Path, default=Path("data/results/attack-parity.json"))
    args = parser.parse_args()
    warnings.simplefilter("ignore")
    record = json.loads(args.out.read_text()) if args.out.exists() else {"rows": []}
    done = {(row["model"], row["dataset"], row["attack"], row["n"]) for row in record["rows"]}
    for attack in args.attacks.split(","):
        for name in args.models.split(","):
            clip = model(name)
            for task in args.datasets.split(","):
                dataset = datasets.load_dataset(task, "test").subset(args.images, 0)
                missing = not possible(THEIRS[attack], len(dataset.classnames))
                if missing or (name, task, attack, len(dataset)) in done:
                    continue
                made = {key: value for key, value in provenance(clip).items() if key != "model"}
                row = {"model": name, "dataset": task, "attack": attack, "threads": torch.get_num_threads(), **made}
                row |= compare(clip, dataset, attack, args.micro_batch)
                record["rows"].append(row)
                record |= {"eps_255": EPS_255, "seed": 0}
                write_json(args.out, record)
                print(row, flush=True)


if __name__ == "__main__":
    main()
