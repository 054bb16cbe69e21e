"""The numbers of the chapter on losses: from the drawn grid, the search for its rates, and what others reported."""

import pandas as pd

from measured import ROOT, printed
from zsar.study import Study

PAGE = "loss-variants"
UNSEEN = "unseen without binary"


def numbers() -> dict[str, float]:
    """Accuracies in percent and differences in points; the unseen tasks where no other are named."""
    study = Study()
    return {**kept(study), **search(study), **differences(study), **same_rate(study), **reported()}


def kept(study: Study) -> dict[str, float]:
    """What the losses leave of the clean accuracy, and how far above the constant predictor they are under attack."""
    names = {"fare": "fare", "adv": "adv", "coadv": "coadv", "tecoa": "tecoa", "slow": "adv-slow",
             "imgcoadv": "imgcoadv", "unlabelled": "tecoa-unlabelled"}
    clean = {name: study.mean(loss, "finetune", "clean").value for name, loss in names.items()}
    floor = study.mean("none", "constant", "robust", UNSEEN).value
    above = [study.mean(loss, "finetune", "robust", UNSEEN).value - floor for loss in ("tecoa", "fare", "adv", "coadv")]
    original, clean_too = (study.mean(*cell, "clean", **at).value for cell, at in (
        (("none", "original"), {}), (("clean", "finetune"), {"rate": 1.73e-3})))
    curve = [value for _, value in study.curve("tecoa", "finetune")]
    return {**{f"{name} clean": value for name, value in clean.items()}, "original clean": original,
            "original source": study.mean("none", "original", "clean", "source").value,
            "unlabelled robust": study.mean("tecoa-unlabelled", "finetune", "robust").value,
            "above least": min(above), "above most": max(above), "same rate lost": original - clean_too,
            "same rate share": 100 * (original - clean_too) / (original - clean["tecoa"]),
            "slow behind": clean["adv"] - clean["slow"], "tecoa back": curve[-1] - min(curve)}


def search(study: Study) -> dict[str, float]:
    """What the search for each loss's rate says, on 200 held-out pictures of the source."""
    rate = {loss: study.rates[loss, "finetune"]["rate"] for loss in ("clean", "tecoa", "adv", "adv-prefit")}
    tried = {loss: {row["rate"]: row for row in study.rates[loss, "finetune"]["tried"]}
             for loss in ("tecoa", "adv-random", "adv-onehot")}
    best, second = sorted(tried["tecoa"].values(), key=lambda row: -row["robust"])[:2]
    return {"tecoa pictures": (best["robust"] - second["robust"]) * 2, "tecoa points": second["clean"] - best["clean"],
            "slower": rate["tecoa"] / rate["clean"], "prefit faster": rate["adv-prefit"] / rate["adv"],
            "fixed robust": max(row["robust"] for loss in ("adv-random", "adv-onehot") for row in tried[loss].values()),
            "random kept": tried["adv-random"][rate["adv"]]["clean"],
            "onehot kept": tried["adv-onehot"][rate["adv"]]["clean"]}


def differences(study: Study) -> dict[str, float]:
    """How far one loss is ahead of another, picture by picture; and at equal robustness on the source."""
    asked = {"adv ahead": ("adv", "tecoa", "clean", "unseen"), "coadv ahead": ("coadv", "tecoa", "clean", "unseen"),
             "adv robust behind": ("tecoa", "adv", "robust", "unseen"),
             "fare ahead": ("fare", "tecoa", "clean", "unseen"), "fare ahead near": ("fare", "tecoa", "clean", "near"),
             "fare ahead far": ("fare", "tecoa", "clean", "far"),
             "fare robust behind far": ("tecoa", "fare", "robust", "far"),
             "fare robust behind source": ("tecoa", "fare", "robust", "source")}
    found = {name: study.difference((a, "finetune"), (b, "finetune"), kind, group).value
             for name, (a, b, kind, group) in asked.items()}
    first = {"seed": 0}
    prefit = study.difference(("adv", "finetune", first), ("adv-prefit", "finetune", first), "clean").value
    signed = r"^tecoa - {} +[\d.]+ +-([\d.]+) "
    return {**found, "prefit behind": prefit, "matched adv ahead": printed(PAGE, signed.format("adv")),
            "matched coadv ahead": -study.matched(("tecoa", "finetune"), ("coadv", "finetune"), "robust")[0].value}


def same_rate(study: Study) -> dict[str, float]:
    """TeCoA and Adv, FARE and TeCoA, with seed 0 at the same rate: clean accuracy."""
    core, low, high = {"seed": 0}, {"seed": 0, "rate": 5.77e-4}, {"seed": 0, "rate": 1.73e-3}
    asked = {"low rate behind": (("adv", core), ("tecoa", low)), "high rate ahead": (("tecoa", core), ("adv", high)),
             "fare ahead low": (("fare", low), ("tecoa", low)), "fare ahead high": (("fare", core), ("tecoa", core))}
    return {name: study.difference((a, "finetune", own), (b, "finetune", other), "clean").value
            for name, ((a, own), (b, other)) in asked.items()}


def reported() -> dict[str, float]:
    """What others reported of OpenAI's CLIP at one grey level, as shipped."""
    rows = pd.read_csv(ROOT / "data" / "reported" / "reported.csv")
    rows = rows[rows.dataset.str.startswith("mean of") & (rows.eps_255 == 1)]
    authors = rows[rows.source.str.startswith("authors' README") & (rows.adaptation != "VP")].set_index("method").clean
    tga = rows[rows.source.str.startswith("TGA-ZSR 2410.21802") & (rows.attack == "PGD-100")].set_index("method").robust
    return {"reported clip": authors["CLIP"], "reported adv": authors["Adv"], "reported tecoa": authors["TeCoA"],
            "reported fare behind": tga["TeCoA"] - tga["FARE"]}
