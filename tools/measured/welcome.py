"""The numbers of the welcome page: its own headline, and the authors' averages as shipped in ``data/reported``."""

import pandas as pd

from measured import ROOT, printed

NOT_MEASURED = {"73 pictures for 5 %, and 381 for 1 %": "arithmetic: Wilson's formula at zero hits"}


def numbers() -> dict[str, float]:
    """Means over sixteen tasks, in percent."""
    reported = pd.read_csv(ROOT / "data" / "reported" / "reported.csv")
    authors = reported[reported.source.str.startswith("authors' README") & (reported.dataset == "mean of 16")]
    found = {kind: printed("welcome", rf"^{kind} +([\d.]+)") for kind in ("clean", "robust")}
    for name, method, adaptation in (("clip", "CLIP", "none"), ("tecoa", "TeCoA", "FT")):
        row = authors[(authors.method == method) & (authors.adaptation == adaptation)].iloc[0]
        found |= {f"{name} {kind}": float(row[kind]) for kind in ("clean", "robust")}
    return found
