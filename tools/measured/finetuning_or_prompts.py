"""Finetuning against prompt tuning: the grid's models, what the page's cells printed, and the literature's table."""

import pandas

from measured import printed
from zsar.paths import data_path
from zsar.study import Study

PAGE = "finetuning-or-prompts"
NOT_MEASURED = {
    "59 %": "arithmetic: the share of a 224-pixel picture in a border of 40",
    "61 %": "arithmetic: the share of a 48-pixel picture in a border of 9",
    "five times": "arithmetic: 250 tokens instead of 50",
}


def numbers() -> dict[str, float]:
    """The page's measured numbers by name."""
    return from_grid(Study()) | from_cells() | from_literature()


def from_grid(study: Study) -> dict[str, float]:
    """Accuracies of the drawn grid on the unseen tasks, in percent, and ratios of its learning rates."""
    mean = {(loss, method, kind): study.mean(loss, method, kind).value for kind in ("clean", "robust")
            for loss, method in (("none", "original"), ("none", "constant"), ("tecoa", "finetune"), ("adv", "finetune"),
                                 ("tecoa", "pad+token"), ("adv", "pad+token"), ("tecoa", "blocks-2"))}
    rate = {loss: study.rates[loss, "pad+token"]["rate"] for loss in ("tecoa", "adv")}
    curve = {loss: dict(study.curve(loss, "pad+token")) for loss in rate}
    frame = {kind: study.difference(("tecoa", "pad"), ("none", "original"), kind).value for kind in ("clean", "robust")}
    found = {"original, clean": mean["none", "original", "clean"], "constant": mean["none", "constant", "robust"],
             "adv prompts, clean": mean["adv", "pad+token", "clean"],
             "two blocks, robust": mean["tecoa", "blocks-2", "robust"],
             "adv prompts, clean after 100": curve["adv"][100], "tecoa prompts, clean after 30": curve["tecoa"][30],
             "adv rate over tecoa rate": rate["adv"] / rate["tecoa"],
             "frame, clean lost": -frame["clean"], "frame, robust won": frame["robust"],
             "constant without binary": study.mean("none", "constant", "robust", "unseen without binary").value}
    for loss in rate:
        found[f"{loss} prompts, robust"] = mean[loss, "pad+token", "robust"]
        found[f"{loss} finetuned, robust"] = mean[loss, "finetune", "robust"]
        found[f"{loss} finetuned, robust without binary"] = study.mean(loss, "finetune", "robust",
                                                                       "unseen without binary").value
    for kind in ("clean", "robust"):
        found[f"tecoa prompts at adv rate, {kind}"] = study.mean("tecoa", "pad+token", kind, rate=rate["adv"]).value
    return found


def from_cells() -> dict[str, float]:
    """What the cells printed: shares of numbers, and the short version's accuracies, in percent."""
    numbers_trained = {name: printed(PAGE, rf"^finetune +{'([0-9,]+) +' * 2}100", group)
                       for group, name in ((1, "drawn"), (2, "ViT-B/32"))}
    prompts = {name: printed(PAGE, rf"^pad\+token +{'([0-9,]+) +' * 2}\d", group)
               for group, name in ((1, "drawn"), (2, "ViT-B/32"))}
    share = {name: 100 * prompts[name] / numbers_trained[name] for name in prompts}
    random_frame = r"^a random frame +[\d.]+ +([\d.]+) +([\d.]+) +([\d.]+)"
    return {"share of prompts, drawn": share["drawn"],
            "share of prompts, drawn over ViT-B/32": share["drawn"] / share["ViT-B/32"],
            "share of two blocks": printed(PAGE, r"^blocks-2 +[\d,]+ +[\d,]+ +([\d.]+)"),
            "clean beside untrained tokens": printed(PAGE, r"clean accuracy beside untrained tokens: ([\d.]+)"),
            "random frame, transferred": printed(PAGE, random_frame),
            "random frame, white box": printed(PAGE, random_frame, 2),
            "random frame, on the original": printed(PAGE, random_frame, 3),
            "original, white box": printed(PAGE, r"^original +[\d.]+ +[\d.]+ +([\d.]+) +[\d.]+$")}


def from_literature() -> dict[str, float]:
    """Accuracies that others reported, in percent (``data/reported/reported.csv``)."""
    table = pandas.read_csv(data_path("reported", "reported.csv"))
    authors = table[table["source"].str.contains("README, 2023")].set_index(["method", "adaptation"])
    clip, prompts, tuned = (authors.loc[row] for row in (("CLIP", "none"), ("TeCoA", "VP"), ("TeCoA", "FT")))
    followers = table[table["source"].str.startswith("FAP") & table["adaptation"].str.startswith("VP")]
    followers = followers.set_index("train_set")["robust"]
    return {"reported CLIP, robust": clip["robust"], "reported prompts, robust": prompts["robust"],
            "reported lead, robust": tuned["robust"] - prompts["robust"],
            "reported lead, clean": tuned["clean"] - prompts["clean"],
            "reported all pictures, robust": followers["ImageNet"],
            "reported few pictures, robust": followers["ImageNet 16-shot"]}
