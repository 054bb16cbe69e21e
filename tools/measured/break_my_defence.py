"""The assignment *Break my defence*: what is left of each defence, as its instructor notebook printed it."""

from measured import printed
from measured.teaching import recorded

PAGE = "break-my-defence"
NOT_MEASURED = {
    "30 minutes for part 1": "an estimate", "2 GB": "a bound", "76 points": "marks",
    "40 %": "made up for an example", "30 % clean errors": "made up for an example",
    "says 3 % and has 3 %": "made up for an example", "some 40 points": "the Wilson interval of 11 of 16",
    "99 %": "made up for a question"}


def numbers() -> dict[str, float]:
    """Percent right: worst of all rows, under a transferred attack; and what was measured once over many seeds."""
    worst = r"^{}: claimed (\d+) %, worst of all (\d+) %"
    once = {name: value for name, value in recorded(PAGE).items() if isinstance(value, int | float)}
    return once | {
        "amber left": printed(PAGE, worst.format("amber"), 2), "cedar left": printed(PAGE, worst.format("cedar"), 2),
        "claim too high": once["rounded, naive"] - once["rounded, worst"],
        "transferred, cedar": printed(PAGE, r"^cedar +([\d.]+) +True *$")}
