"""The numbers of the chapter on breaking CLIP: what its cells printed, and the authors' averages as shipped."""

import pandas as pd

from measured import ROOT, printed
from zsar.results import interval

PAGE = "breaking-clip"


def numbers() -> dict[str, float]:
    """Losses, accuracies in percent, widths of intervals in points, counts of 40 pictures, grey levels."""
    reported = pd.read_csv(ROOT / "data" / "reported" / "reported.csv")
    clip = reported[reported.source.str.startswith("authors' README") & (reported.dataset == "mean of 16")
                    & (reported.method == "CLIP")].iloc[0]
    low, high = interval(10, 20)  # the widest there is of twenty pictures
    return {"reported clean": clip["clean"], "reported robust": clip["robust"], "widest of a task": high - low,
            **curve(), **attacks(), **slips()}


def curve() -> dict[str, float]:
    """The means of the sixteen tasks, and the widest of their intervals."""
    row = r"^{}/255 +([\d.]+) +([\d.]+) +([\d.]+)"
    widths = [printed(PAGE, row.format(level), 3) - printed(PAGE, row.format(level), 2) for level in (0, 1, 2, 4)]
    means = {name: printed(PAGE, row.format(level)) for name, level in (("clean", 0), ("at one", 1), ("at four", 4))}
    return {**means, "widest of the mean": max(widths)}


def attacks() -> dict[str, float]:
    """What steps, an aim and another order of the same changes do."""
    steps = {f"loss after {word}": printed(PAGE, rf"^{n} +[\d.]+ +([\d.]+) +\d+$")
             for n, word in ((1, "one"), (10, "ten"), (20, "twenty"))}
    return {**steps, "at bound": printed(PAGE, r"^(\d+) % of all changes"),
            "shuffled": printed(PAGE, r"^the same perturbation, shuffled +(\d+)"),
            "attacked flowers": printed(PAGE, r"^attacked +(\d+)"), "grown": printed(PAGE, r"24 px.*: ([\d.]+) times"),
            "aimed": printed(PAGE, r"^4/255 +(\d+)$"), "aimed at twice": printed(PAGE, r"^8/255 +(\d+)$"),
            "to aim": printed(PAGE, r"of (\d+) pictures called")}


def slips() -> dict[str, float]:
    """What the four mistaken attacks seem to show."""
    counts = r"^{} +[\d.]+ +([\d.]+)$"
    hot = r"^logits x 100, cross-entropy +(\d+) +(\d+)"
    first, second = (printed(PAGE, rf"^attacked at {side} px.* +(\d+) +(\d+) +(\d+)$", 2) for side in (24, 48))
    return {"shy levels": printed(PAGE, r"^eps in normalised units +([\d.]+)"),
            "shy right": printed(PAGE, counts.format("eps in normalised units")),
            "honest levels": printed(PAGE, r"^eps in pixels +([\d.]+)"),
            "wild as tensors": printed(PAGE, r"right after it: (\d+) as tensors"),
            "wild as pictures": printed(PAGE, r"as tensors, (\d+) as pictures"), "rows apart": first - second,
            "hot": printed(PAGE, hot), "still": printed(PAGE, hot, 2),
            "not hot": printed(PAGE, r"^the model, cross-entropy +(\d+)")}
