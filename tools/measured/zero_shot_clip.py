"""The numbers of the chapter on zero-shot CLIP: what its cells printed, and how many words the drawn CLIP knows."""

from measured import ROOT, printed

SLIPS = ("never normalised", "normalised twice", "blue and red swapped")


def numbers() -> dict[str, float]:
    """Accuracies in percent; what the slips lose of it on the first task of their table, in points."""
    page = "zero-shot-clip"
    good, *slipped = (printed(page, rf"^{row} +([\d.]+)") for row in ("as it should be", *SLIPS))
    vocabulary = (ROOT / "data" / "drawn" / "vocabulary.txt").read_text(encoding="utf-8")
    return {"mean": printed(page, r"^mean of \d+: ([\d.]+) %"),
            "constant": printed(page, r"^constant predictor: ([\d.]+) %"),
            "least lost": good - max(slipped), "most lost": good - min(slipped), "words": len(vocabulary.split())}
