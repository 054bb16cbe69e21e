"""Tables of a store: a row a method, dataset, seed and attack, with the clean accuracy beside the robust one."""

from collections.abc import Iterable, Sequence

import pandas

#: Datasets for which the mean of the classes' accuracies is customary (Radford et al. 2021, appendix A).
MEAN_PER_CLASS = ("Caltech101", "OxfordPets", "Flowers102", "FGVCAircraft")


def method_name(adaptation: str) -> str:
    """How a row calls what the store calls ``none``: the original CLIP."""
    return "clip" if adaptation == "none" else adaptation


def rows(headers: Iterable[dict]) -> list[dict]:
    """Rows {method, dataset, seed, attack, images, classes, clean, robust, ...} from the headers of cells.

    A row an attack; with ``none`` alone a row without robust accuracy. In percent; ``*_interval`` are 95 % Wilson
    intervals, ``*_per_class`` the mean of the classes' accuracies where that is customary.
    """
    groups: dict[tuple, dict[str, dict]] = {}
    for header in headers:
        key = header["key"]
        place = (key["model"], key["adaptation"], key["dataset"], key["split"], key["task"], key["precision"],
                 key["seed"])
        groups.setdefault(place, {})[key["attack"]] = header
    found = []
    for cells in groups.values():
        clean = cells.pop("none", None)
        found += [_row(clean, cells[attack]) for attack in sorted(cells)] or [_row(clean, None)]
    return found


def _row(clean: dict | None, robust: dict | None) -> dict:
    key = (robust or clean)["key"]
    row = {"method": method_name(key["adaptation"]), "dataset": key["dataset"], "seed": key["seed"],
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


def wide(found: Sequence[dict], kind: str, methods: Sequence[str], datasets: Sequence[str]) -> pandas.DataFrame:
    """Accuracies of one ``kind`` (``clean`` or ``robust``), a row a method, a column a dataset, mean of the seeds.

    The last column is the mean over the datasets, where a method has all of them. What is missing is NaN.
    """
    table = pandas.DataFrame([row for row in found if kind in row],
                             columns=["method", "dataset", kind]).astype({kind: float})
    table = table.pivot_table(index="method", columns="dataset", values=kind, aggfunc="mean")
    table = table.reindex(index=list(methods), columns=list(datasets))
    table["mean"] = table.mean(axis=1, skipna=False)
    return table
