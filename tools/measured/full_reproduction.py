"""*The full reproduction*: the stored drawn table, method by method, and what its cells printed."""

import numpy as np
import pandas

from measured import printed
from zsar.paths import data_path
from zsar.report import Scores
from zsar.results import Store
from zsar.results.comparison import compare, mean_difference

NOT_MEASURED = {"below 5 %": "the level of the tests, by convention"}
ATTACK, HALF_EPS = "pgd-20-worst@4:1", "pgd-20-worst@2:0.5"
FINETUNED = tuple(f"{loss}:finetune" for loss in ("adv", "coadv", "tecoa", "fare"))
PAGE = "full-reproduction"


def numbers() -> dict[str, float]:
    """Means, changes and leads of the table; averages of the literature; what one step of eps leaves."""
    store = Store(data_path("results", "reproduction-drawn"), write=False)
    scores = Scores(store)
    tasks, fewer = list(scores.tasks), [name for name in scores.tasks if name not in scores.two_class(scores.tasks)]
    changes = {method: compare(method, "clip", store)[0] for method in FINETUNED}

    def mean(method: str, kind: str = ATTACK, over: list[str] = tasks) -> float:
        return scores.mean(method, kind, over).value

    def lead(one: str, other: str, kind: str = ATTACK) -> float:
        return mean_difference([found for found in compare(one, other, store)[0] if found.attack == kind]).value

    def tasks_moved(method: str, kind: str) -> int:
        return sum(one.p_holm < 0.05 for one in changes[method] if one.attack == kind)

    return {
        "clip robust": mean("clip"), "constant": np.mean([scores.constant(name) for name in tasks]),
        "control apart": max(abs(lead("clean:finetune", "clip", kind)) for kind in ("none", ATTACK)),
        "least above the floor": min(mean(one, ATTACK, fewer) for one in FINETUNED)
        - np.mean([scores.constant(name) for name in fewer]),
        "least won": min(lead(one, "clip") for one in FINETUNED),
        "least tasks won": min(tasks_moved(one, ATTACK) for one in FINETUNED),
        "least tasks paid": min(tasks_moved(one, "none") for one in FINETUNED),
        "pads won": max(lead(one, "clip") for one in ("adv:pad", "tecoa:pad")),
        "fare paid": lead("clip", "fare:finetune", "none"), "tecoa paid": lead("clip", "tecoa:finetune", "none"),
        "fare below halfway, clean": lead("tecoa:finetune@0.5", "fare:finetune", "none"),
        "fare above halfway": lead("fare:finetune", "tecoa:finetune@0.5"),
        "adv behind tecoa": lead("tecoa:finetune", "adv:finetune"),
        "adv ahead, clean": lead("adv:finetune", "tecoa:finetune", "none"),
        "fare ahead at half eps": lead("fare:finetune", "tecoa:finetune", HALF_EPS),
        "tecoa ahead at eps": lead("tecoa:finetune", "fare:finetune"),
        "left at twice eps": max(mean(one, "pgd-20-worst@8:2") for one in ("tecoa:finetune", "fare:finetune")),
        "coadv pcam": scores.score("coadv:finetune", "DrawnPCAM", ATTACK).accuracy.value,
        "one step": printed(PAGE, r"^one step of eps +([\d.]+)"),
        "twenty steps": printed(PAGE, r"^twenty steps of eps / 4, any iterate +([\d.]+)"),
        "data": printed("sixteen-datasets", r"known sizes together: (\d+) GB")} | _in_the_literature()


def _in_the_literature() -> dict[str, float]:
    """How far apart the sources put TeCoA's robust mean, and the plain CLIP's clean one."""
    rows = pandas.read_csv(data_path("reported", "reported.csv"), keep_default_na=False)
    rows = rows[rows.eps_255 == 1]
    tecoa = rows[(rows.method == "TeCoA") & (rows.adaptation == "FT") & rows.dataset.str.startswith("mean")]
    plain = rows[(rows.method == "CLIP") & (rows.dataset == "mean of 16")]
    return {"tecoas apart": float(np.ptp(tecoa.robust.astype(float))),
            "plain apart": float(np.ptp(plain.clean.astype(float)))}
