"""The paper's study on the drawn world: losses x methods x seeds, by one command, resumable.

    python -m zsar drawn-grid --out data/results

The protocol, fixed before the first cell ran:

- Source: DrawnImageNet, freshly rendered: 12,000 training pictures, each seen once, in an order of the seed's own.
  The fifteen other tasks are never trained on and never selected on.
- Every cell: 300 steps of 40 pictures, AdamW, 30 steps of warm-up, cosine to zero, no augmentation, fp32; attack in
  training PGD-2, L_inf, eps = alpha = 4/255, random start (the paper's, at the drawn eps). The last weights count.
- Rates: four a loss and method, a factor 3 apart, centred on 1e-3 for the image tower and 1e-1 for prompts, tried
  with seed 0 for 100 steps; while the best lies at an edge the next rate beyond it is tried, at most twice. The best
  is the one with the highest robust accuracy by text on 200 held-out source pictures (PGD-10), of Clean the clean one,
  and so where no rate is more robust than the constant predictor (by the lower end of its Wilson interval).
- Test: 200 pictures a task, by text, clean and under PGD-10 (eps 4/255, alpha 1/255, random start, worst iterate, at
  each task's own resolution). After 30 and 100 steps: clean on all tasks, and the held-out source under attack; after
  100 steps with seed 0 also 100 pictures a task under attack. TeCoA by finetuning is also tested between its weights
  and the original's, and with seed 0 at eps 2/255 and 8/255.
- Seeds 0, 1, 2: order of pictures, random starts, heads and tokens. Near the source are the five tasks of objects
  drawn as the source's are; far are the ten others; two of the fifteen have two classes.
- A constant predictor, always right on the most frequent class of the test pictures, is a row of its own.

Amended before any cell was run: the rate searches of finetuning in the core looked at the last iterate of PGD-10;
everything else looks at the worst, which is stricter and costs a third. Interpolation and the tests at 2/255 and 8/255
moved into the core.

Amended before any cell of prompts was run, after their first rate searches had ended at the constant predictor: tokens
begin with standard deviation 1, as in the paper's code, instead of width^-1/2; and where no rate is robust, clean
accuracy decides, as it stands above (no other search is changed by it). Their rates were searched again.

Added after seed 0 of the core's finetuning had been seen, to look for causes: cells at another's rate.
"""

import argparse
import json
import os
import signal
import time
from collections import Counter
from collections.abc import Callable
from concurrent.futures import Future, ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from dataclasses import asdict, dataclass, replace
from functools import cache
from multiprocessing import get_context
from pathlib import Path

import numpy as np
import pandas
import torch
from tqdm import tqdm

from zsar.attacks import attack_from_settings
from zsar.clip import Clip, load_clip
from zsar.datasets import ImageDataset, load_dataset
from zsar.datasets.drawn.tasks import SOURCE_OBJECTS
from zsar.errors import AttackSettingsError, DivergenceError, ZsarError, unknown_name
from zsar.evaluate import evaluate_dataset
from zsar.methods import interpolate
from zsar.outputs import writable_folder, write_atomically, write_json
from zsar.profiles import get_profile
from zsar.recipes import Recipe, get_recipe
from zsar.results import commit, interval, pack_bits, provenance
from zsar.trainer import Trainer

SEEDS = (0, 1, 2)
CURVE = (30, 100)  # steps at which a cell is looked at on its way
RATE_STEPS, RATE_FACTOR, FURTHER_RATES = 100, 3.0, 2
TEST_IMAGES, CURVE_IMAGES, HELD_OUT = 200, 100, 200
ATTACK = {"attack": "pgd", "eps_255": 4, "alpha_255": 1, "steps": 10, "iterate": "worst"}
NAME = "drawn-grid"
FAILURES = (DivergenceError, AttackSettingsError)  # a broken tower is a result; the second is raised while it is tested


@dataclass(frozen=True)
class Cell:
    """One training and its tests. What is not of the core differs from it in the fields behind ``seed``."""

    loss: str
    method: str
    seed: int
    train_eps_255: float = 4
    train_images: int = 12_000
    training_steps: int = 300
    tokens: int = 144
    source: str = "all"  # or "objects": the source without its flowers, cars, scenes and textures
    rate: float | None = None  # None: what the search chose
    tests: tuple[tuple[float, float], ...] = ((1, 4),)  # weight between original (0) and adapted tower (1), eps_255

    @property
    def name(self) -> str:
        """The name of the cell's file: in what its training differs from the core's stands behind the seed."""
        core = asdict(Cell(self.loss, self.method, self.seed, tests=self.tests))
        other = [f"{key}-{value}" for key, value in asdict(self).items() if value != core[key]]
        text = "_".join([self.loss, self.method, f"seed-{self.seed}", *other])
        return "".join(c if c.isalnum() or c in "+-_." else "-" for c in text).replace("_-", "_")

    def recipe(self, rate: float | None = None) -> Recipe:
        """The recipe of this cell at a rate of its method."""
        recipe = get_recipe("drawn", batch=40, steps=self.training_steps, eps_255=self.train_eps_255,
                            alpha_255=self.train_eps_255, tokens=self.tokens, seed=self.seed, held_out=HELD_OUT,
                            validate_every=self.training_steps, keep="last")
        return recipe if rate is None else recipe.at_rate(self.method, rate)


BETWEEN = ((1, 4), (.75, 4), (.5, 4), (.25, 4))
CORE = [replace(cell, tests=BETWEEN + (((1, 2), (1, 8)) if cell.seed == 0 else ()))
        if (cell.loss, cell.method) == ("tecoa", "finetune") else cell
        for cell in (Cell(loss, method, seed) for seed in SEEDS for method, losses in (
            ("finetune", ("tecoa", "adv", "fare", "adv-slow", "coadv", "imgcoadv", "clean")),
            ("pad+token", ("tecoa", "adv"))) for loss in losses)]

EXTENDED = sorted([  # one seed of everything before the second of anything
    *(Cell(loss, "finetune", 0, rate=rate)
      for loss, rate in (("tecoa", 5.77e-4), ("fare", 5.77e-4), ("adv", 1.73e-3), ("clean", 1.73e-3))),
    Cell("tecoa", "pad+token", 0, rate=0.0192),
    *(Cell(loss, "finetune", 0, source="objects") for loss in ("tecoa", "adv", "fare")),
    *(Cell(loss, "finetune", 0, training_steps=1200, train_images=48_000) for loss in ("tecoa", "adv", "fare")),
    *(Cell("tecoa", "finetune", 0, train_eps_255=eps, tests=((1, 4), (1, 2), (1, 8))) for eps in (2, 8)),
    *(Cell("tecoa", "finetune", 0, train_images=n) for n in (200, 1000, 4000)),
    *(Cell("tecoa", method, seed) for seed in SEEDS for method in ("blocks-1", "blocks-2", "pad", "token")),
    *(Cell(loss, "finetune", seed) for seed in SEEDS
      for loss in ("adv-prefit", "adv-random", "adv-onehot", "tecoa-unlabelled")),
    *(Cell("tecoa", "token", 0, tokens=n) for n in (4, 36)),
    *(Cell("tecoa", "finetune+pad+token", seed) for seed in SEEDS),
    *(Cell(loss, "pad+token", seed) for seed in SEEDS for loss in ("fare", "coadv", "imgcoadv", "adv-slow", "clean")),
], key=lambda cell: cell.seed)
TIERS = {"core": CORE, "extended": CORE + EXTENDED}


@cache
def _original(device: str | None) -> Clip:
    return load_clip("drawn", device=device)


@cache
def source_images(kind: str, images: int) -> tuple[ImageDataset, ImageDataset]:
    """Training pictures and held-out ones, in memory, where the jobs of a process share them."""
    train, held_out = load_dataset("DrawnImageNet", "train").hold_out(HELD_OUT)
    if kind == "objects":
        train, held_out = train.first_classes(len(SOURCE_OBJECTS)), held_out.first_classes(len(SOURCE_OBJECTS))
    return train.select(np.arange(images)).in_memory(), held_out.in_memory()


def _trainer(cell: Cell, recipe: Recipe, device: str | None) -> Trainer:
    train, held_out = source_images(cell.source, cell.train_images)
    return Trainer(_original(device), train, cell.loss, cell.method, recipe, held_out=held_out)


def search_rate(cell: Cell, out: Path, device: str | None) -> None:
    """Try the rates of a loss and method with seed 0 and write what the held-out source says of each."""
    cell = Cell(cell.loss, cell.method, 0)
    start, recipe = time.monotonic(), replace(cell.recipe(), steps=RATE_STEPS, warmup=RATE_STEPS // 10)
    centre, tried = recipe.rate(cell.method), []
    labels = source_images(cell.source, cell.train_images)[1].labels.tolist()
    chance = 100 * Counter(labels).most_common(1)[0][1] / len(labels)

    def attempt(exponent: float) -> None:
        rate = float(f"{centre * RATE_FACTOR**exponent:.3g}")
        trainer = _trainer(cell, recipe.at_rate(cell.method, rate), device)
        try:
            trainer.advance(RATE_STEPS)
            found = trainer.history.held_out[-1]
        except FAILURES:
            found = {"step": trainer.history.step, "clean": 0.0, "robust": 0.0}
        tried.append({"rate": rate, "exponent": exponent, **found})
        tried.sort(key=lambda row: row["exponent"])

    for exponent in (-1.5, -.5, .5, 1.5):
        attempt(exponent)
    for _ in range(FURTHER_RATES):
        best = best_rate(tried, cell.loss, chance)
        if best not in (tried[0], tried[-1]):
            break
        attempt(best["exponent"] + (1 if best is tried[-1] else -1))
    best = best_rate(tried, cell.loss, chance)
    write_json(_rates_file(cell, out), {
        "loss": cell.loss, "method": cell.method, "steps": RATE_STEPS, "tried": tried, "rate": best["rate"],
        "at_an_edge": best in (tried[0], tried[-1]), "seconds": round(time.monotonic() - start, 1),
        "provenance": provenance(_original(device))})


def best_rate(tried: list[dict], loss: str, chance: float) -> dict:
    """The best of a search's rows {clean, robust, ...}; ``chance``: accuracy of the constant predictor in percent."""
    robust = any(interval(round(row["robust"] * HELD_OUT / 100), HELD_OUT)[0] > chance for row in tried)
    first, second = ("robust", "clean") if robust and loss != "clean" else ("clean", "robust")
    return max(tried, key=lambda row: (row[first], row[second]))


def _rates_file(cell: Cell, out: Path) -> Path:
    return out / NAME / f"rates_{cell.loss}_{cell.method}.json"


def _cell_file(cell: Cell, out: Path) -> Path:
    return out / NAME / f"{cell.name}.json"


def run_cell(cell: Cell, out: Path, device: str | None) -> None:
    """Train a cell at the rate that the search chooses, test it on the way and at the end, and write what came out."""
    if not cell.rate and not _rates_file(cell, out).exists():
        search_rate(cell, out, device)
    start, rate = time.monotonic(), cell.rate or json.loads(_rates_file(cell, out).read_text())["rate"]
    trainer, curve = _trainer(cell, cell.recipe(rate), device), []
    record = {"cell": asdict(cell), "rate": rate, "settings": trainer.settings}
    try:
        for step in CURVE:
            trainer.advance(step)
            curve.append({"step": step, **trainer.history.held_out[-1], "rows": test(trainer.student, None)})
            if cell.seed == 0 and step == CURVE[-1]:
                curve[-1]["attacked_rows"] = test(trainer.student, 4, CURVE_IMAGES)
        adapted = trainer.run()
        tests = [{"weight": weight, "eps_255": eps, "rows": test(
            adapted.clip if weight == 1 else interpolate(_original(device), adapted.clip, weight), eps)}
            for weight, eps in cell.tests]
    except FAILURES as error:
        tests, record["diverged"] = [], str(error)
    write_json(_cell_file(cell, out), record | {
        "losses": trainer.history.losses, "held_out": trainer.history.held_out, "curve": curve, "tests": tests,
        "seconds": round(time.monotonic() - start, 1), "provenance": provenance(_original(device))})


def test(clip: Clip, eps_255: float | None, images: int = TEST_IMAGES) -> list[dict]:
    """Rows of the sixteen tasks, clean (eps None) or under attack as well."""
    settings = ATTACK | ({"attack": "none"} if eps_255 is None else {"eps_255": eps_255, "alpha_255": eps_255 / 4})
    attack, keys = attack_from_settings(settings), ("dataset", "images", "clean", "clean_bits", "robust", "robust_bits")
    rows = [evaluate_dataset(clip, load_dataset(name).subset(images), attack) for name in get_profile("drawn").datasets]
    return [{key: row[key] for key in keys if key in row} for row in rows]


def run_references(out: Path, device: str | None) -> None:
    """The original CLIP and the constant predictor, in the form of a cell."""
    tests = [{"weight": 0, "eps_255": eps, "rows": test(_original(device), eps)} for eps in (2, 4, 8)]
    constant = []
    for name in get_profile("drawn").datasets:
        labels = load_dataset(name).subset(TEST_IMAGES).labels
        hits = labels == Counter(labels.tolist()).most_common(1)[0][0]
        accuracy, bits = round(100 * hits.double().mean().item(), 4), pack_bits(hits)
        constant.append({"dataset": name, "images": len(hits), "clean": accuracy, "clean_bits": bits,
                         "robust": accuracy, "robust_bits": bits})
    for method, rows in (("original", tests), ("constant", [{"weight": 0, "eps_255": 4, "rows": constant}])):
        write_json(out / NAME / f"{method}.json", {"cell": asdict(Cell("none", method, 0)), "rate": None,
                                                   "tests": rows, "provenance": provenance(_original(device))})


def table(out: Path) -> pandas.DataFrame:
    """Every test of every cell that is there: a row a cell and dataset, accuracies in percent."""
    rows = []
    for path in sorted((out / NAME).glob("*.json")):
        record = json.loads(path.read_text())
        for found in record.get("tests", ()):
            cell = record["cell"]
            about = {"loss": cell["loss"], "method": cell["method"], "seed": cell["seed"]}
            how = {"attack": f"PGD-{ATTACK['steps']}, {ATTACK['iterate']} iterate", "steps": ATTACK["steps"],
                   "eps_255": found["eps_255"], "lr": record["rate"],
                   "training_steps": cell["training_steps"] if record["rate"] else 0,
                   "train_eps_255": cell["train_eps_255"], "train_images": cell["train_images"],
                   "tokens": cell["tokens"], "source_classes": cell["source"], "weight": found["weight"]}
            rows += [about | {"dataset": row["dataset"], "source": row["dataset"] == "DrawnImageNet",
                              "images": row["images"], "clean": row["clean"], "robust": row["robust"]} | how
                     for row in found["rows"]]
    return pandas.DataFrame(rows)


def write_table(out: Path) -> Path:
    """Write ``drawn-grid.csv`` and, beside it, where its rows come from."""
    records = [json.loads(path.read_text()) for path in sorted((out / NAME).glob("*.json"))]
    makers = {tuple(record["provenance"].items()) for record in records}
    path = out / f"{NAME}.csv"
    write_atomically(path, table(out).to_csv(index=False).encode())
    write_json(out / f"{NAME}.provenance.json", {
        "command": "python -m zsar drawn-grid", "protocol": __doc__.strip().split("\n\n", 2)[2],
        "cells": sum("tests" in record for record in records),
        "seconds_of_one_thread": round(sum(record.get("seconds", 0) for record in records)),
        "missing_of_core": [cell.name for cell in CORE if not _cell_file(cell, out).exists()],
        "made_by": [dict(maker) for maker in sorted(makers)]})
    return path


def _in_process(work: Callable, *args) -> None:
    """A job in a process of its own, one thread each: two of two threads on two cores wait for each other."""
    torch.set_num_threads(1)
    commit()  # of the code as it was loaded, before a job of minutes
    try:
        work(*args)
    except KeyboardInterrupt:
        os._exit(130)  # else the process would go on with the next job


def finish(futures: list[Future]) -> None:
    """Wait for all jobs with a bar; where one fails, or at Ctrl-C, those that have not begun are not begun."""
    try:
        for done in tqdm(as_completed(futures), total=len(futures), unit="job"):
            done.result()
    except BaseException:
        for future in futures:
            future.cancel()
        raise


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of ``python -m zsar drawn-grid``."""
    parser.add_argument("--out", default="data/results", metavar="DIR",
                        help="where cells and table are kept (default: data/results)")
    parser.add_argument("--tier", default="core", help=f"{' or '.join(TIERS)} (default: core)")
    parser.add_argument("--workers", type=int, default=2, help="processes of one thread each (default: 2)")
    parser.add_argument("--device", help="cpu, cuda, ... (default: an accelerator where there is one)")


def run(args: argparse.Namespace) -> str:
    """Run what is missing of a tier, then write the table."""
    if args.tier not in TIERS:
        raise unknown_name("tier", args.tier, TIERS)
    if args.workers < 1:
        raise ZsarError(f"--workers {args.workers}: expected at least 1")
    out = writable_folder(args.out)
    writable_folder(out / NAME)
    _original(args.device)  # a device that is not there ends this here, not in its processes
    cells = TIERS[args.tier]
    jobs = [] if (out / NAME / "constant.json").exists() else [(run_references, out, args.device)]
    jobs += [(run_cell, cell, out, args.device) for cell in cells if not _cell_file(cell, out).exists()]
    try:  # outside a training Ctrl-C ends a process at once
        with ProcessPoolExecutor(args.workers, get_context("spawn"), signal.signal,
                                 (signal.SIGINT, signal.SIG_DFL)) as pool:
            finish([pool.submit(_in_process, *job) for job in jobs])
    except BrokenProcessPool as error:
        raise ZsarError(f"a process of the grid died (out of memory?); what is in {out / NAME} is kept: run the same "
                        "command again, with fewer --workers") from error
    return f"{write_table(out)}: {len(cells)} cells of the {args.tier} tier"
