"""``python -m zsar evaluate --trust``: the trust report of the attack of the command line, a dataset at a time."""

import argparse
from pathlib import Path

import torch

from zsar import datasets
from zsar.attacks import Attack, describe_attack, image_seeds
from zsar.clip import Clip, ZeroShotClassifier
from zsar.errors import ChecksFailedError, UnreadableImageError
from zsar.evaluate.accuracy import Room
from zsar.evaluate.trust import TrustReport, trust
from zsar.fast import fast
from zsar.outputs import write_json
from zsar.results import provenance

#: Images a dataset: a minute on a core for the drawn CLIP, and every gross error shows on fewer.
IMAGES = 64
#: Steps of our own attacks at least, and as many as the audited one takes of these.
STEPS = 20


def audit(clip: Clip, control: Clip | None, tests: list[datasets.ImageDataset], attack: Attack, settings: dict,
          args: argparse.Namespace, out: Path | None) -> str:
    """The reports on ``clip``, one a dataset, as text; with ``out`` their rows are written after each of them.

    Raises ChecksFailedError, whose text they are, where a check failed.
    """
    record = {"rows": [], "settings": settings, "provenance": provenance(clip), "digest": clip.digest,
              "threads": torch.get_num_threads(), "complete": False}
    texts, failed = [], False
    for dataset in tests:
        report = _report(clip, control, dataset, attack, settings, args)
        texts.append(f"{dataset.name}: {report.to_text()}")
        failed |= report.verdict == "failure"
        record["rows"] += [{"dataset": dataset.name, "images": report.images} | row for row in report.rows()]
        record["complete"] = dataset is tests[-1]
        if out:
            write_json(out, record)
    text = "\n\n".join([*texts, f"{record['provenance']['model']}, seed {settings['seed']}, "
                                f"{record['provenance']['device']}"])
    if failed:
        raise ChecksFailedError(text)
    return text


def _report(clip: Clip, control: Clip | None, dataset: datasets.ImageDataset, attack: Attack, settings: dict,
            args: argparse.Namespace) -> TrustReport:
    rows = torch.arange(len(dataset))
    batch = next(datasets.batches(dataset, [rows], clip.device, workers=args.workers, strict=args.strict))
    if not len(batch.rows):
        raise UnreadableImageError(f"none of the {len(dataset)} images of {dataset.name} can be read, e.g. "
                                   f"{next(iter(batch.unreadable.values()))}")
    models = [model and ZeroShotClassifier(model, dataset.classnames, dataset.templates, dataset.verbatim)
              for model in (clip, control)]
    climbed, seeds = fast(models[0], args.precision, args.compile), image_seeds(dataset.ids, args.seed)[batch.rows]
    return Room(clip.device).run(lambda size: trust(
        climbed, batch.images, batch.labels, eps=settings["eps_255"] / 255, attack=attack, control=models[1],
        steps=max(STEPS, settings["steps"] if "alpha_255" in settings else STEPS), seeds=seeds, micro_batch=size,
        words=describe_attack(settings)))
