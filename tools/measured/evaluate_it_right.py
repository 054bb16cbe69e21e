"""Evaluate it right: what the page's cells printed, and accuracies that others reported."""

import json

import pandas

from measured import printed
from zsar.paths import data_path

PAGE = "evaluate-it-right"
NOT_MEASURED = {
    "22 %": "a setting of APGD",
    "interval 3 %": "a setting of APGD",
    "than 6 %": "a setting of APGD",
    "at least 6 %": "a setting of APGD",
}


def numbers() -> dict[str, float]:
    """The page's measured numbers by name: pictures of forty, mistakes of eleven, percent and points."""
    reported = pandas.read_csv(data_path("reported", "reported.csv"))
    clip = reported[(reported.method == "CLIP") & (reported.eps_255 == 1) & (reported.backbone == "ViT-B/32 openai")]
    stored = json.loads(data_path("results", "attack-parity.json").read_text(encoding="utf-8"))
    parity = pandas.DataFrame(stored["rows"])
    parity["difference"] = 100 * (parity.ours - parity.theirs) / parity.n
    ladder = r"^TeCoA: (\d+) of \d+ pictures stand after one step, (\d+) after all"
    return {"TeCoA, after FGSM": printed(PAGE, ladder), "TeCoA, after all": printed(PAGE, ladder, 2),
            "restless, eps": printed(PAGE, r"^alpha = eps +(\d+) +\d+$"),
            "restless, quarter": printed(PAGE, r"^alpha = eps/4 +(\d+) +\d+$"),
            "told by more of the same": printed(PAGE, r"would have told (\d+) of"),
            "reported, PGD on STL10": clip[clip.dataset == "STL10"].robust.item(),
            "reported, AutoAttack": clip[clip.dataset == "mean of 13 zero-shot sets"].robust.item(),
            "largest mean difference": parity.groupby(["attack", "model"]).difference.mean().abs().max()}
