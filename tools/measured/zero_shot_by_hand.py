"""The assignment *Zero-shot by hand*: what the demonstrations of its instructor notebook printed."""

from measured import printed
from measured.teaching import recorded

PAGE = "zero-shot-by-hand"
NOT_MEASURED = {"about 3 hours": "an estimate", "30 minutes for part 1": "an estimate", "2 GB": "a bound",
                "77 points": "marks"}


def numbers() -> dict[str, float]:
    """Answers lost and moved, scales chosen on few pictures, calibration by chance and under attack."""
    once = recorded(PAGE)

    def right(row: str) -> float:
        return printed(PAGE, rf"^{row} +(\d+) +\d+$")

    def attacked(level: str, column: int) -> float:
        return printed(PAGE, rf"^eps = {level}/255 +([\d.]+) +([\d.]+) +([\d.]+)$", column)

    return {
        "lost by the bare word": right("ensemble") - right(r"\{\}"),
        "moved": printed(PAGE, r"^\.\.\. not renormalised +\d+ +(\d+)$"),
        "forest's": printed(PAGE, r"^0 +forest +[\d.]+ +(\d+) "),
        "ten pets, times": printed(PAGE, r"^DrawnOxfordPets, 10 held out .* ([\d.]+)$")
        / printed(PAGE, r"^DrawnOxfordPets, 250 held out .* ([\d.]+)$"),
        "wrong flowers": 250 * (1 - printed(PAGE, r"^DrawnFlowers102 +([\d.]+) +[\d.]+ ")),
        "ECE of 50": printed(PAGE, r"^n = +50: mean ECE ([\d.]+)"),
        "ECE of 250": printed(PAGE, r"^n = +250: mean ECE ([\d.]+)"),
        "ECE of 5,000": printed(PAGE, r"^n = +5000: mean ECE ([\d.]+)"),
        "right when clean": attacked("0", 1), "right at 2/255": attacked("2", 1), "right at 1/255": attacked("1", 1),
        "confidence at 2/255": attacked("2", 2), "gap when clean": attacked("0", 3), "gap at 2/255": attacked("2", 3),
        "right at a larger scale": once["right under FGSM at a thousand times the scale"],
        "unchanged": once["unchanged images, %"], "gain by peeking": once["gain by choosing on the reported images"]}
