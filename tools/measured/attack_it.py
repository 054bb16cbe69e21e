"""The assignment *Attack it*: scores of attacks, measured once over many pictures and many draws of them."""

from measured.teaching import recorded

NOT_MEASURED = {"30 minutes for part 1": "an estimate", "2 GB": "a bound", "80 points": "marks",
                "55 %": "made up for a question", "60 %": "made up for a question"}


def numbers() -> dict[str, float]:
    """Grey levels on average, and how sure the bar of the leaderboard is."""
    once = recorded("attack-it")
    return {"FGSM": once["FGSM at 8/255"], "PGD at 6": once["PGD at 6/255"], "PGD at 4": once["PGD at 4/255"],
            "halvings": once["halvings of a line"], "growing ball": once["a growing ball"],
            "model answer": once["model answer"], "draws": once["draws of hidden images"],
            "share of draws": once["draws below, %"], "below": once["below"]}
