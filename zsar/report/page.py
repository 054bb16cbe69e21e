"""The report: one HTML file that needs no other, with tables, figures, numbers of others, and where ours come from."""

import base64
import json
import os
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import quote

from matplotlib.figure import Figure

from zsar import __version__
from zsar.attacks import describe_attack
from zsar.errors import StoreError
from zsar.figures import alt_text, encode
from zsar.outputs import writable_file, write_atomically
from zsar.profiles import PROFILES
from zsar.report.drawings import PANELS, against_eps, clean_against_robust, computes, interpolations, over_datasets
from zsar.report.html import render
from zsar.report.reported import is_drawn, ours, reported
from zsar.report.scores import Scores
from zsar.report.tables import Table, paper_table, per_class_table
from zsar.results import Key, Store, commit
from zsar.results.comparison import cell_file
from zsar.results.tables import CLEAN, ORIGINAL

LISTED = 1500  # cells whose provenance is listed: the page stays small enough to be sent
COLUMNS = ("attack", "seed", "accuracy", "95 %", "images", "unreadable", "passes a second", "seconds", "micro-batch",
           "device", "torch", "commit", "weights")


@dataclass
class Section:
    """A part of the page: a table, then pictures {png, alt, caption}, then sentences."""

    id: str
    title: str
    table: Table | None = None
    per_class: Table | None = None
    pictures: list[dict[str, str]] = field(default_factory=list)
    sentences: list[str] = field(default_factory=list)

    def draw(self, caption: str, make: Callable[[], Figure]) -> None:
        """Add a figure, or say which command computes what it lacks."""
        try:
            figure = make()
        except StoreError as error:
            self.sentences.append(f"{error}.")
            return
        self.pictures.append({"png": base64.b64encode(encode(figure, dpi=100)).decode(), "alt": alt_text(figure),
                              "caption": caption})


def write_report(store: Store, settings: Mapping, out: str | Path, *, headers: Iterable[dict] | None = None,
                 failed: Mapping[str, str] | None = None) -> Path:
    """Write the report on a store (or on the cells of ``headers``) into the file ``out``.

    settings: of the reproduction that filled it, as ``zsar.reproduce`` records them, or nothing; failed: what could not
    be measured, and why. Raises StoreError for a store without cells or with damaged ones, and OutputError.
    """
    out = writable_file(out)
    scores = Scores(store, headers)
    write_atomically(out, page(scores, settings, failed or {}, out.parent).encode())
    return out


def page(scores: Scores, settings: Mapping, failed: Mapping[str, str], folder: Path) -> str:
    """The report as HTML, with links to files that hold from ``folder``."""
    profile = PROFILES.get(settings.get("profile"))
    cells = scores.headers
    listed, source = cells[:LISTED], profile and profile.source
    return render(
        "page.html", title=_title(scores), facts=_facts(scores, settings), said=_said(scores, settings, failed),
        sections=_sections(scores), ours=[ours(scores, attack, source) for attack in scores.attacks],
        reported=reported(), drawn=is_drawn(scores), speed=_speed(cells), columns=COLUMNS,
        links={Key(**header["key"]).id for header in listed}, unlisted=len(cells) - len(listed),
        attacks=[(attack, _plain(scores.settings[attack])) for attack in (CLEAN, *scores.attacks)
                 if attack in scores.settings],
        provenance=_provenance(scores, listed, folder),
        export=f"python -m zsar results export {scores.store.folder} csv", footer=f"zsar {__version__}, {commit()}")


def _title(scores: Scores) -> str:
    models = sorted({header["run"].get("model", "?").partition(" (")[0] for header in scores.headers
                     if header["key"]["adaptation"] == "none"})
    return "Zero-shot adversarial robustness of CLIP" + f" ({', '.join(models)})" * bool(models)


def _facts(scores: Scores, settings: Mapping) -> list[tuple[str, str]]:
    """What was measured, in a few lines."""
    images = sum(header["images"] for header in scores.headers)
    facts = [("Profile", settings.get("profile")),
             ("Model", " ".join(filter(None, (settings.get("model"), settings.get("pretrained"))))),
             ("Methods", ", ".join(scores.methods)), ("Datasets", f"{len(scores.tasks)}: {', '.join(scores.tasks)}"),
             ("Attacks", "; ".join(describe_attack(scores.settings[attack]) for attack in scores.attacks) or "none"),
             ("Seeds", ", ".join(map(str, scores.seeds))), ("Training steps", settings.get("training_steps")),
             ("Precision", ", ".join(sorted({header["key"]["precision"] for header in scores.headers}))),
             ("Cells", f"{len(scores.headers):,}, with the answers to {images:,} images"),
             ("Evaluation", _duration(scores.headers))]
    return [(name, str(value)) for name, value in facts if value]


def _total(headers: Iterable[dict], name: str) -> float:
    return sum(header["run"].get(name, 0) for header in headers)


def _duration(headers: list[dict]) -> str:
    seconds, passes = _total(headers, "seconds"), _total(headers, "passes")
    spent = f"{seconds / 3600:.1f} hours" if seconds >= 7200 else f"{seconds / 60:.1f} minutes"
    rate = f", {passes / seconds:,.0f} images a second through the model" if seconds else ""
    return f"{spent}, added up over devices{rate}; adaptations are not counted"


def _said(scores: Scores, settings: Mapping, failed: Mapping[str, str]) -> list[tuple[str, list[str]]]:
    """What a reader must not overlook: (heading, lines)."""
    unmeasured = [method for method in settings.get("methods", ()) if method not in scores.methods]
    broken = {header["key"]["dataset"]: header["unreadable"] for header in scores.headers if header["unreadable"]}
    said = [("Failed", [f"{name}: {why}" for name, why in failed.items()]),
            ("Datasets that were asked for and are not on this machine", list(settings.get("missing", ()))),
            ("Methods without a result", unmeasured), ("In the store, and not in these tables", scores.left_out),
            ("Images that could not be read and do not count", [f"{name}: {n}" for name, n in broken.items()])]
    return [(heading, lines) for heading, lines in said if lines]


def _sections(scores: Scores) -> list[Section]:
    sections = []
    for attack in (CLEAN, *scores.attacks):
        if not scores.datasets(attack):
            continue
        clean = attack == CLEAN
        section = Section("clean" if clean else f"robust-{scores.attacks.index(attack) + 1}",
                          "Clean accuracy" if clean else f"Robust accuracy, {attack}",
                          paper_table(scores, attack), per_class_table(scores, attack))
        if not clean:
            section.draw(f"What methods (at most {PANELS}) change on every dataset, clean and under {attack}.",
                         lambda attack=attack: over_datasets(scores, attack))
            section.draw(f"Mean clean accuracy against mean accuracy under {attack}, with 95 % intervals. Lines join "
                         "the original with adapted weights through points between them, where these were measured.",
                         lambda attack=attack: clean_against_robust(scores, attack))
        sections.append(section)
    return [*sections, _across(scores)]


def _across(scores: Scores) -> Section:
    """What is seen across attacks and methods."""
    section = Section("eps", "Robust accuracy against eps")
    try:
        for kind, figure in against_eps(scores).items():
            section.draw(f"Mean accuracy against eps, {kind}, with 95 % bands; at eps 0 the clean accuracy.",
                         lambda figure=figure: figure)
    except StoreError as error:
        section.sentences.append(f"{error}.")
    finetuned = [method for method in scores.methods if method.endswith(":finetune")]
    if not interpolations(scores.methods):
        method = finetuned[-1] if finetuned else "tecoa:finetune"
        wanted = ",".join([ORIGINAL, *(f"{method}@{weight}" for weight in (0.25, 0.5, 0.75)), method])
        section.sentences.append("No point between the original and adapted weights was measured. "
                                 f"{computes(scores, methods=wanted)}.")
    return section


def _speed(headers: list[dict]) -> list[dict]:
    """Cells, images, seconds and passes a second of each device and attack."""
    groups = defaultdict(list)
    for header in headers:
        groups[header["run"].get("device", "?"), header["key"]["attack"]].append(header)
    rows = []
    for (device, attack), found in groups.items():
        seconds, passes = _total(found, "seconds"), _total(found, "passes")
        images = sum(header["images"] for header in found)
        rows.append({"device": device, "attack": attack, "cells": len(found), "seconds": seconds, "images": images,
                     "rate": passes / seconds if seconds else None})
    return rows


def _provenance(scores: Scores, headers: list[dict], folder: Path) -> list[dict]:
    """The cells of each method with everything that is known of them, and what its adaptations were."""
    groups = defaultdict(list)
    for header in headers:
        groups[scores.name(header)].append(header)
    return [{"method": method, "rows": [_row(scores.store, header, folder) for header in found],
             "settings": sorted({_plain(header["about"]["adaptation"]) for header in found
                                 if header["about"].get("adaptation")})} for method, found in groups.items()]


def _row(store: Store, header: dict, folder: Path) -> dict:
    key, run = Key(**header["key"]), header["run"]
    seconds, file = run.get("seconds"), os.path.relpath(cell_file(store, key), folder)
    return {"id": key.id, "href": quote(Path(file).as_posix()), "dataset": key.dataset, "attack": key.attack,
            "seed": key.seed, "accuracy": f"{header['accuracy']:.2f}",
            "95 %": "{:.1f} to {:.1f}".format(*header["interval"]), "images": header["images"],
            "unreadable": header["unreadable"], "seconds": seconds, "micro-batch": run.get("micro_batch", "?"),
            "passes a second": f"{run.get('passes', 0) / seconds:,.0f}" if seconds else "–",
            "device": run.get("device", "?"), "torch": run.get("torch", "?"), "commit": run.get("commit", "?"),
            "weights": key.model[:12]}


def _plain(settings: Mapping) -> str:
    """Settings as a line."""
    return ", ".join(f"{name} {value if isinstance(value, str) else json.dumps(value)}"
                     for name, value in settings.items())
