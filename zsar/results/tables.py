"""Tables of a store: a row a method, dataset, seed and attack, with the clean accuracy beside the robust one."""

import json
from collections import defaultdict
from collections.abc import Iterable, Sequence
from pathlib import Path

from zsar.errors import StoreError, unknown_name
from zsar.profiles import DRAWN_METHODS, METHODS, SIXTEEN

ORIGINAL, CLEAN = "clip", "none"  # how rows call the original CLIP, and what stands for no attack
#: Datasets for which the mean of the classes' accuracies is customary (Radford et al. 2021, appendix A).
MEAN_PER_CLASS = ("Caltech101", "OxfordPets", "Flowers102", "FGVCAircraft")


def dataset_place(name: str) -> tuple[int, str]:
    """By what datasets are sorted: their place in the paper, then their names."""
    plain = name.removeprefix("Drawn")
    return SIXTEEN.index(plain) if plain in SIXTEEN else len(SIXTEEN), name


def method_place(method: str) -> tuple[int, str, str]:
    """By what methods are sorted: the original, the rows of the usual table, others; each before its points."""
    plain = method.partition("@")[0].partition(" ")[0]
    place = next((names.index(plain) for names in (METHODS, DRAWN_METHODS) if plain in names), len(METHODS))
    return place, plain, method


def method_name(adaptation: str) -> str:
    """How a row calls what the store calls ``none``: the original CLIP."""
    return ORIGINAL if adaptation == "none" else adaptation


def no_cells(folder: Path) -> StoreError:
    """The error for a store that is empty."""
    return StoreError(f"there is no cell in {folder}: python -m zsar reproduce --out {folder} computes some")


def model_of(header: dict) -> tuple[str, str, str]:
    """What a cell tested: adaptation, digest of the weights, precision."""
    key = header["key"]
    return key["adaptation"], key["model"], key["precision"]


def method_names(headers: Iterable[dict]) -> dict[tuple[str, str, str], str]:
    """How rows call every ``model_of``: ``clip``, or as it was adapted.

    Models of one adaptation and several seeds share a name. Where a seed has more than one, or their settings differ in
    more than the seed, each has a name of its own, with its digest: ``tecoa:finetune (9deac21 fp32)``.
    """
    models, settings = defaultdict(lambda: defaultdict(set)), defaultdict(set)
    for header in headers:
        model, seed = model_of(header), header["key"]["seed"]
        if model in models[model[0]][seed]:
            continue
        models[model[0]][seed].add(model)
        about = {key: value for key, value in header["about"].get("adaptation", {}).items() if key != "seed"}
        settings[model[0]].add(json.dumps(about, sort_keys=True))
    names = {}
    for adaptation, of_seed in models.items():
        alone = len(settings[adaptation]) == 1 and all(len(found) == 1 for found in of_seed.values())
        for _, digest, precision in set().union(*of_seed.values()):
            behind = "" if alone else f" ({digest[:7]} {precision})"
            names[adaptation, digest, precision] = method_name(adaptation) + behind
    return names


def select(headers: Sequence[dict], method: Sequence[str] = (), dataset: Sequence[str] = (),
           attack: Sequence[str] = (), seed: Sequence[str] = ()) -> list[dict]:
    """The headers that are among what is wanted; nothing named means all. Methods as ``method_names`` calls them.

    Raises UnknownNameError for what no header has, and StoreError where nothing is left.
    """
    names, wanted = method_names(headers), {"method": method, "dataset": dataset, "attack": attack, "seed": seed}

    def values(header: dict) -> dict[str, str]:
        return {"method": names[model_of(header)], **{kind: str(header["key"][kind])
                                                      for kind in ("dataset", "attack", "seed")}}
    told = [values(header) for header in headers]
    for kind, chosen in wanted.items():
        known = {value[kind] for value in told}
        for name in chosen:
            if name not in known:
                raise unknown_name(kind, name, known)
    found = [header for header, value in zip(headers, told, strict=True)
             if all(not chosen or value[kind] in chosen for kind, chosen in wanted.items())]
    if not found:
        raise StoreError("no cell has all of " + ", ".join(f"{kind} {' or '.join(chosen)}"
                                                           for kind, chosen in wanted.items() if chosen)
                         + ": leave one out")
    return found


def rows(headers: Iterable[dict], names: dict[tuple[str, str, str], str] | None = None) -> list[dict]:
    """Rows {method, dataset, seed, attack, images, classes, clean, robust, ...} from the headers of cells.

    A row an attack; with ``none`` alone a row without robust accuracy. In percent; ``*_interval`` are 95 % Wilson
    intervals, ``*_per_class`` the mean of the classes' accuracies where that is customary. ``names``: those of the
    methods in a larger set of headers, from which these were taken.
    """
    headers = list(headers)
    groups, names = {}, names or method_names(headers)
    for header in headers:
        key = header["key"]
        place = (key["model"], key["adaptation"], key["dataset"], key["split"], key["task"], key["precision"],
                 key["seed"])
        groups.setdefault(place, {})[key["attack"]] = header
    found = []
    for cells in groups.values():
        clean = cells.pop("none", None)
        name = names[model_of(clean or next(iter(cells.values())))]
        found += [_row(name, clean, cells[attack]) for attack in sorted(cells)] or [_row(name, clean, None)]
    return found


def _row(name: str, clean: dict | None, robust: dict | None) -> dict:
    key = (robust or clean)["key"]
    row = {"method": name, "dataset": key["dataset"], "seed": key["seed"],
           "attack": robust["key"]["attack"] if robust else "none", "images": (robust or clean)["images"],
           "classes": (robust or clean)["classes"], "model": key["model"][:12], "task": key["task"]}
    for kind, header in (("clean", clean), ("robust", robust)):
        if header:
            row |= {kind: header["accuracy"], f"{kind}_interval": header["interval"], f"{kind}_hits": header["hits"]}
            if key["dataset"].removeprefix("Drawn") in MEAN_PER_CLASS:
                row[f"{kind}_per_class"] = header["mean_per_class"]
            if header["unreadable"]:
                row["unreadable"] = header["unreadable"]
    return row


def cell_row(header: dict, name: str) -> dict:
    """A cell as a flat row: what it is of, accuracy in percent with its Wilson interval, and where it comes from."""
    key, about, run = header["key"], header["about"], header["run"]
    settings = {field: about.get("attack", {}).get(field) for field in ("eps_255", "alpha_255", "steps", "iterate")}
    return {"method": name, "dataset": key["dataset"], "split": key["split"], "attack": key["attack"], **settings,
            "seed": key["seed"], "precision": key["precision"], "images": header["images"],
            "classes": header["classes"], "hits": header["hits"], "accuracy": header["accuracy"],
            "low": header["interval"][0], "high": header["interval"][1], "mean_per_class": header["mean_per_class"],
            "unreadable": header["unreadable"], "model": key["model"], "task": key["task"],
            **{field: run.get(field) for field in ("device", "torch", "commit", "seconds", "passes", "micro_batch")},
            "adaptation": about.get("adaptation", {})}
