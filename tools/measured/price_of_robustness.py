"""The price of robustness: the models of the drawn grid, and differences of two of them, in percent and points."""

from measured import printed
from zsar.study import Study

NOT_MEASURED = {"80 % of all cases": "how the linear world is made"}
LONGER = {"training_steps": 1200, "train_images": 48_000}
OBJECTS = {"source": "objects"}
FEW = {"train_images": 200}


def numbers() -> dict[str, float]:
    """The page's measured numbers by name."""
    study = Study()
    return levels(study) | dials(study) | {"kept half-way": printed("price-of-robustness", r"in the grid.* (\d+) %")}


def levels(study: Study) -> dict[str, float]:
    """Accuracies on the unseen tasks: of models, at an eps of training and of the test."""
    def tecoa(kind: str, group: str = "unseen", **which) -> float:
        return study.mean("tecoa", "finetune", kind, group, **which).value

    clean = {eps: tecoa("clean", train_eps_255=eps) for eps in (2, 4, 8)}
    won = tecoa("robust", train_eps_255=8, eps_255=8) - tecoa("robust", eps_255=8)
    return {"coadv lost to fare": study.difference(("fare", "finetune"), ("coadv", "finetune"), "clean").value,
            "constant": study.mean("none", "constant", "robust").value, "robust half-way": tecoa("robust", weight=0.5),
            "clean, trained at 2": clean[2], "clean, trained at 8": clean[8],
            "clean lost from 4 to 8": clean[4] - clean[8], "robust at 8, won from 4 to 8": won,
            "tecoa, robust on source": tecoa("robust", "source"),
            "two blocks, robust on source": study.mean("tecoa", "blocks-2", "robust", "source").value}


def dials(study: Study) -> dict[str, float]:
    """What a training with other settings wins or loses against the same one of the core, paired, seed 0."""
    def won(loss: str, which: dict, kind: str, group: str = "unseen") -> float:
        return study.difference((loss, "finetune", which), (loss, "finetune"), kind, group, seed=0).value

    found = {"robust on source lost, 200 pictures": -won("tecoa", FEW, "robust", "source"),
             "robust lost, 200 pictures": -won("tecoa", FEW, "robust"),
             "clean won, 200 pictures": won("tecoa", FEW, "clean")}
    for loss in ("tecoa", "adv", "fare"):
        found[f"{loss} lost far, objects"] = -won(loss, OBJECTS, "clean", "far")
        found[f"{loss}, longer, robust on source"] = won(loss, LONGER, "robust", "source")
    for loss in ("adv", "fare"):
        found[f"{loss}, longer, robust"] = won(loss, LONGER, "robust")
        found[f"{loss}, longer, clean lost"] = -won(loss, LONGER, "clean")
    blocks = {kind: study.difference(("tecoa", "blocks-2"), ("none", "original"), kind).value
              for kind in ("clean", "robust")}
    return found | {"two blocks, clean lost": -blocks["clean"], "two blocks, robust won": blocks["robust"]}
