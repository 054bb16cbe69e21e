"""``python -m zsar bench``: the speed of attacks and training steps, beside other programs that come to the same.

    python -m zsar bench --quick                # the drawn CLIP, within a minute on two cores
    python -m zsar bench --batch 16             # ViT-B/32 with random weights: long on a CPU
    python -m zsar bench --batch 256 --classes 1000 --precision bf16 --compile    # on an accelerator

Outputs are compared before anything is timed; what disagrees is named at the end, and not timed.
"""

import argparse
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from importlib.metadata import version
from pathlib import Path

import numpy as np
import torch
from tqdm import tqdm

from zsar.bench.comparisons import Speed, comparisons, measure
from zsar.bench.noise import noise
from zsar.bench.peers import HERE, NEEDED, Task, as_open_clip
from zsar.bench.sweeps import BATCHES, best_batch, drawn_in_both, points, scaling, sign_agreement
from zsar.bench.table import table
from zsar.bench.timing import Flops, image_flops, matrix_rate, prompt_flops
from zsar.clip import Clip, ZeroShotClassifier, load_clip, pick_device
from zsar.datasets import ImageDataset, load_dataset
from zsar.errors import DisagreementError, ZsarError
from zsar.evaluate import add_speed_arguments
from zsar.evaluate.accuracy import is_out_of_memory
from zsar.fast import check_precision
from zsar.outputs import writable_file, write_json
from zsar.profiles import get_profile
from zsar.results import provenance


@dataclass(frozen=True)
class Settings:
    """What is measured. ``classes`` None: the drawn source's own, and its pictures; else noise of so many classes."""

    model: str
    pretrained: str | None
    batch: int
    classes: tuple[int, ...] | None
    steps: int
    eps_255: float
    speed: Speed


class Bench:
    """The pictures, classifiers and tasks of a run."""

    def __init__(self, clip: Clip, settings: Settings):
        self.clip, self.settings = clip, settings
        self._made: dict[int, tuple[ImageDataset, ZeroShotClassifier]] = {}

    @property
    def accelerated(self) -> bool:
        """Whether to measure what only an NVIDIA device is asked for: half precisions, and the batch it likes best."""
        return self.clip.device.type == "cuda"

    @cached_property
    def classes(self) -> list[int]:
        """The numbers of classes to compare at."""
        return list(self.settings.classes or [len(load_dataset("DrawnImageNet").classnames)])

    @cached_property
    def flops(self) -> Flops:
        """Floating-point operations of forward passes."""
        size = self.task(1, self.classes[0], 1).images.shape[-1]
        return Flops(image_flops(self.clip, size), image_flops(as_open_clip(self.clip), size), prompt_flops(self.clip))

    def pictures(self, classes: int) -> tuple[ImageDataset, ZeroShotClassifier]:
        """Pictures of so many classes, at least one of each, and what classifies them: its text is encoded once."""
        if classes not in self._made:
            dataset = load_dataset("DrawnImageNet") if self.settings.classes is None else noise(
                max(*BATCHES, 2 * self.settings.batch, classes), classes, self.clip.image_size)
            self._made[classes] = dataset, ZeroShotClassifier(self.clip, dataset.classnames, dataset.templates,
                                                              dataset.verbatim)
        return self._made[classes]

    def task(self, batch: int, classes: int, steps: int) -> Task:
        """PGD of so many steps on the first pictures, each step a quarter of the radius, as ``zsar evaluate`` goes."""
        dataset, classifier = self.pictures(classes)
        images, labels = (part.to(self.clip.device) for part in dataset.select(np.arange(batch)).stack())
        eps = self.settings.eps_255 / 255
        return Task(classifier, images, labels, eps, eps / 4, steps)

    def rows(self, rates: dict[str, float]) -> Iterator[dict]:
        """The comparisons at every number of classes, measured one after the other."""
        settings, device = self.settings, self.clip.device
        precisions = ("fp32", "fp16") if self.accelerated else ("fp32",)
        for classes in self.classes:
            task = self.task(settings.batch, classes, settings.steps)
            for comparison in comparisons(self.pictures(classes)[0], task, settings.speed, precisions):
                yield measure(comparison, device, self.flops, rates)

    def sweeps(self) -> Iterator[dict]:
        """Parts of the record beyond the comparisons: scaling, and on an NVIDIA device the best batch and bfloat16."""
        settings, first = self.settings, self.classes[0]
        yield {"scaling": scaling(self.task, settings.speed, points(settings.batch, self.classes))}
        if self.accelerated:
            last = self.task(BATCHES[-1], self.classes[-1], settings.steps)
            yield {"batches": best_batch(last, settings.speed)}
            yield {"sign_agreement_bf16": sign_agreement(self.task(settings.batch, first, 1))}
            yield {"robust_bf16": drawn_in_both(self.clip.device)}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of ``python -m zsar bench``."""
    parser.add_argument("--quick", action="store_true", help="the drawn CLIP on drawn pictures, within a minute on two "
                        "cores; takes --device and --json, and no other option")
    parser.add_argument("--model", help="as zsar evaluate takes it (default: ViT-B-32-quickgelu)")
    parser.add_argument("--pretrained", help="its weights (default: random, of drawn its own)")
    parser.add_argument("--batch", type=int, help="pictures of noise (default: 16)")
    parser.add_argument("--classes", metavar="N,...", help="how many, each in turn (default: 100,1000)")
    parser.add_argument("--steps", type=int, help="of the attack (default: 10)")
    add_speed_arguments(parser)
    parser.add_argument("--repeats", type=int, help="of everything but the released code (default: 3)")
    parser.add_argument("--peer-repeats", type=int, help="of the released code (default: 1 on a CPU, else --repeats)")
    parser.add_argument("--chunk", type=int, help="prompts that the released code encodes at once, for want of memory; "
                        "with more classes its attack takes one step (default: 100 on a CPU, else all)")
    parser.add_argument("--device", help="cpu, cuda, ... (default: an accelerator where there is one)")
    parser.add_argument("--json", metavar="OUT", help="write rows and settings to this file, after each row")


def settings_from(args: argparse.Namespace, device: torch.device) -> Settings:
    """The settings of a run, what is not given filled in. Raises ZsarError for what cannot be meant."""
    drawn, full = get_profile("drawn"), get_profile("full")
    if args.quick:
        own = ("model", "pretrained", "batch", "classes", "steps", "repeats", "peer_repeats", "chunk")
        given = [name for name in own if getattr(args, name) is not None] + ["compile"] * args.compile + \
            ["precision"] * (args.precision != "fp32")
        if given:
            raise ZsarError(f"--quick has settings of its own: leave out "
                            f"{', '.join('--' + name.replace('_', '-') for name in given)}")
        return Settings("drawn", None, 40, None, 10, drawn.eps_255, Speed())
    model = args.model or full.model
    classes = _numbers(args.classes) if args.classes is not None else (100, 1000)
    few, repeats = device.type == "cpu", _at_least(1, "repeats", args.repeats, 3)
    speed = Speed(args.precision, args.compile, repeats,
                  _at_least(1, "peer-repeats", args.peer_repeats, 1 if few else repeats),
                  _at_least(1, "chunk", args.chunk, 100 if few else max(classes)))
    check_precision(args.precision, device)
    return Settings(model, args.pretrained or (None if model == drawn.model else "random"),
                    _at_least(1, "batch", args.batch, 16), classes, _at_least(1, "steps", args.steps, 10),
                    full.eps_255, speed)


def _at_least(least: int, name: str, value: int | None, default: int) -> int:
    if value is not None and value < least:
        raise ZsarError(f"--{name} {value}: expected at least {least}")
    return default if value is None else value


def _numbers(words: str) -> tuple[int, ...]:
    """Numbers of classes, each once. Raises ZsarError."""
    numbers = [word.strip() for word in words.split(",")]
    if not all(word.isdecimal() and int(word) >= 2 for word in numbers):
        raise ZsarError(f"--classes {words}: expected numbers of at least 2, such as 100,1000")
    return tuple(dict.fromkeys(map(int, numbers)))


def run(args: argparse.Namespace) -> str:
    """Measure as the command line says; returns the tables. Raises DisagreementError, with them, where sides differ."""
    device = pick_device(args.device)
    settings = settings_from(args, device)
    out = writable_file(args.json) if args.json else None
    bench = Bench(load_clip(settings.model, pretrained=settings.pretrained, device=device), settings)
    record = {"rows": [], "settings": {"quick": args.quick, "steps": settings.steps, "batch": settings.batch},
              "provenance": provenance(bench.clip), "threads": torch.get_num_threads(),
              "torchattacks": version("torchattacks") if HERE else None, "complete": False}
    try:
        _fill(record, bench, out)
    except RuntimeError as error:
        if not is_out_of_memory(error):
            raise
        mended = ZsarError(f"out of memory after {len(record['rows'])} comparisons: take a smaller --batch or --chunk")
        mended.report = table(record)
        raise mended from error
    report = "\n".join([table(record), *([] if HERE else [NEEDED])])
    if apart := [row for row in record["rows"] if not row["agreement"]["agrees"]]:
        names = ", ".join(f"{row['name']} ({row['settings']['peer_precision']}, {row['settings']['classes']} classes)"
                          for row in apart)
        error = DisagreementError(f"not timed, for ours came to something else: {names}; the table says how far apart")
        error.report = report
        raise error
    return report


def _fill(record: dict, bench: Bench, out: Path | None) -> None:
    """Measure into the record, which is written after each row: a run that is stopped loses one at most."""
    kinds = {"fp32": torch.float32} | ({"bf16": torch.bfloat16} if bench.accelerated else {})
    rates = record["matrix_flops_per_second"] = {name: matrix_rate(bench.clip.device, kind)
                                                 for name, kind in kinds.items()}
    record["flops"] = bench.flops._asdict()
    with tqdm(desc="comparisons", unit="", leave=False) as bar:
        for row in bench.rows(rates):
            record["rows"].append(row)
            bar.update()
            if out:
                write_json(out, record)
        if bench.settings.classes is not None:
            for part in bench.sweeps():
                record |= part
                if out:
                    write_json(out, record)
    record["complete"] = True
    if out:
        write_json(out, record)
