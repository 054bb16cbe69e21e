"""The whole table, methods x datasets x attacks x seeds, by one command that can be killed: ``zsar reproduce``.

What is measured is kept in a store (``zsar.results``), every image's answer once; what is adapted, in folders beside
it. The same line goes on where it was, on one processor or, under ``torchrun``, on many.
"""

import argparse
from pathlib import Path

from zsar import distributed
from zsar.attacks import ATTACKS
from zsar.bench.estimates import get_device, seconds, utilisation
from zsar.bench.timing import image_flops
from zsar.clip import Clip, load_clip
from zsar.errors import ZsarError
from zsar.evaluate import add_data_arguments, add_model_arguments, add_speed_arguments
from zsar.fast import check_precision
from zsar.outputs import writable_file, write_json
from zsar.report import Scores, paper_table, write_report
from zsar.reproduce.engine import Inventory, Progress, check_trainable, measure, say
from zsar.reproduce.plan import Method, Plan, make_plan, parse_method
from zsar.results import Key, Store, provenance
from zsar.results.tables import rows

__all__ = ["Method", "Plan", "add_arguments", "make_plan", "parse_method", "run"]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of ``python -m zsar reproduce``."""
    add_model_arguments(parser)
    parser.add_argument("--methods", metavar="NAME,...", help="clip, LOSS:METHOD as adapt spells them, LOSS:finetune@W "
                        "(W of the way from the original), NAME=FILE of weights (default: the profile's eight)")
    parser.add_argument("--datasets", default="all", metavar="all|NAME,...",
                        help="names, or places of your own (default: the profile's); what is missing is left out")
    parser.add_argument("--attacks", metavar="NAME,...", help=f"{', '.join(ATTACKS)}: each as "
                        "NAME[-STEPS][-worst][@EPS[:ALPHA]] in grey levels, such as none,pgd-20,pgd-100@1:1,"
                        "apgd-ce-100@1 (default: the profile's)")
    add_speed_arguments(parser)
    parser.add_argument("--seeds", metavar="N,...", help="of adaptations and random starts (default: 0)")
    parser.add_argument("--images", type=int, help="test images a dataset (default: the profile's)")
    parser.add_argument("--per-class", type=int, metavar="N", help="at most N of them of each class")
    parser.add_argument("--training-steps", type=int, metavar="N", help="updates of every adaptation (default: the "
                        "recipe's)")
    parser.add_argument("--fresh", action="store_true", help="train anew what comes with the package; later "
                        "runs into the same folder use that")
    parser.add_argument("--out", metavar="DIR", help="folder of the store, adaptations and report (default: "
                        "reproduction-PROFILE); what is there is not computed again")
    parser.add_argument("--dry-run", action="store_true", help="say what there is to do, and stop")
    parser.add_argument("--estimate", metavar="t4|h100", help="say also how many minutes it may take on one of these, "
                        "computed from its data sheet")
    add_data_arguments(parser)
    parser.add_argument("--device", help="cpu, cuda, ... (default: an accelerator where there is one)")
    parser.add_argument("--json", metavar="OUT", help="write rows and settings to this file")


def run(args: argparse.Namespace) -> str:
    """Reproduce as the command line says; returns the table."""
    with distributed.ranks():
        return _run(args)


def _run(args: argparse.Namespace) -> str:
    plan = make_plan(args)
    out, file = Path(args.out or f"reproduction-{plan.profile.name}"), writable_file(args.json) if args.json else None
    original = load_clip(plan.model, pretrained=plan.pretrained, device=distributed.rank_device(args.device))
    check_precision(plan.precision, original.device)
    store = None if args.dry_run and not out.exists() else Store(out, write=not args.dry_run)
    inventory = Inventory(plan, original, store, out, args)
    plans = f"{inventory}{_estimate(args.estimate, original, inventory)}"
    if args.dry_run:
        return "" if distributed.rank() else plans
    say(plans)
    check_trainable(inventory, original, args)
    failed = measure(plan, original, store, args, Progress(*inventory.image_steps()))
    inventory = Inventory(plan, original, store, out, args)
    told = distributed.first_alone(lambda: _report(plan, inventory, provenance(original), failed, file))
    return "" if distributed.rank() else told


def _estimate(device: str | None, original: Clip, inventory: Inventory) -> str:
    """A line on what is left to do, for a device that is named; an image-step is a pass there and back."""
    if device is None:
        return ""
    device = get_device(device)
    tokens = " Passes through token prompts, which cost several times as much, are counted as plain ones." * any(
        "token" in (method.method or "") for method in inventory.plan.methods)
    minutes = seconds(2 * image_flops(original, original.image_size) * sum(inventory.image_steps()), device) / 60
    return (f"\n{device.name}: about {minutes:,.1f} minutes in fp32, an estimate ({device.peak['fp32'] / 1e12:g} "
            f"TFLOPS x {utilisation():.0%}, what PGD of ViT-B/32 reached of an H100's).{tokens}")


def _report(plan: Plan, inventory: Inventory, made: dict, failed: dict[str, str], file: Path | None) -> str:
    """Write what was asked for. Raises ZsarError, at the end, where something of the plan could not be measured."""
    store = inventory.store
    wanted = {key.id for key, _ in inventory.done()}
    headers = [header for header in store.headers() if Key(**header["key"]).id in wanted]
    found = rows(headers)
    if file:
        write_json(file, {"rows": found, "settings": plan.settings, "failed": failed, "provenance": made})
    tables = []
    if broken := {header["key"]["dataset"]: header["unreadable"] for header in headers if header["unreadable"]}:
        named = ", ".join(f"{n} of {name}" for name, n in broken.items())
        say(f"images that could not be read and do not count: {named}")
    if headers:
        scores = Scores(store, headers)
        tables = [paper_table(scores, attack).to_text() for attack in ("none", *scores.attacks)
                  if scores.datasets(attack)]
        page = write_report(store, plan.settings, store.folder / "report.html", headers=headers, failed=failed)
        tables.append(f"the report, with intervals, figures and where each number comes from: {page}")
    if failed or len(wanted) < inventory.cells:
        say("\n\n".join(tables))
        raise ZsarError(f"{inventory.cells - len(wanted)} of {inventory.cells} cells are missing"
                        + "".join(f"; {name}: {why}" for name, why in failed.items()) + "; run the same line again")
    return "\n\n".join(tables)
