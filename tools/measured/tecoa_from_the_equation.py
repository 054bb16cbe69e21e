"""The assignment *TeCoA from the equation*: its table of towers, and the bar, measured once over many seeds."""

from measured import printed
from measured.teaching import recorded

PAGE = "tecoa-from-the-equation"
NOT_MEASURED = {
    "25 minutes for part 1": "an estimate", "2 GB": "a bound", "76 points": "marks",
    "10 seconds": "a limit that is set", "at most 0.97 times": "the bar", "at most 8 points": "the bar",
    "at least 0.7 times": "the bar", "at 65 % clean": "a task that is set", "near 36 %": "an example"}
ROWS = {"drawn": "drawn CLIP", "clean": "clean pictures, your recipe", "short": "TeCoA, your recipe",
        "long": "TeCoA, 300 steps"}


def numbers() -> dict[str, float]:
    """Columns of the table of towers, and all that the record says of the bar."""
    once = {name: value for name, value in recorded(PAGE).items() if isinstance(value, int | float)}
    short = [_of("unseen", name, 2) for name in ("drawn", "clean", "short")]
    return once | {
        "source, before": _of("source", "drawn", 2), "source, after": _of("source", "long", 2),
        "unseen, before": _of("unseen", "drawn", 1), "unseen, after": _of("unseen", "long", 1),
        "apart": max(short) - min(short),
        "leaked gradient": printed("loss-variants", r"cosine of the two gradients ([\d.]+)")}


def _of(tasks: str, row: str, column: int) -> float:
    """Percent of the source or of the unseen tasks, clean (column 1) or attacked (2)."""
    return printed(PAGE, rf"(?s)^ +{tasks}, clean +{tasks}, attacked .*?^{ROWS[row]}.*? +([\d.]+) +([\d.]+) *$", column)
