"""*Teaching with this book*: minutes of reading from the chapters' words, and what grading took."""

import json
from pathlib import Path

from prose import WORDS_A_MINUTE, count_words

from measured import path_of, texts

NOT_MEASURED = {
    "10 to 30 minutes": "a rough estimate",
    "3 GB of memory": "a limit that is set", "64 MB of files": "a limit that is set",
    "8 MB of output": "a limit that is set", "3 GB or more": "what is asked of an image"}
READ = {"read 1": ("welcome", "zero-shot-clip"), "read 2": ("breaking-clip",),
        "read 3": ("loss-variants", "price-of-robustness"), "read 4": ("evaluate-it-right",),
        "read losses": ("loss-variants",), "read prompts": ("finetuning-or-prompts",),
        "read price": ("price-of-robustness",), "read datasets": ("sixteen-datasets", "full-reproduction"),
        "read scale": ("scaling-out", "make-it-fast")}


def numbers() -> dict[str, float]:
    """Minutes of reading, and seconds, ways and minutes of the simulated class."""
    took = recorded("grading")
    words = {page: count_words(texts(path_of(page))) for page in sum(READ.values(), ())}
    return {name: sum(map(words.get, pages)) / WORDS_A_MINUTE for name, pages in READ.items()} | {
        "fastest": took["fastest right submission, s"], "slowest": took["slowest right submission, s"],
        "class": took["class"], "ways": took["wrong in ways"], "class took": took["class, minutes"]}


def recorded(assignment: str) -> dict:
    """What was measured once for an assignment, or for the guide, over many runs."""
    return json.loads(Path(__file__).with_name("assignments.json").read_text(encoding="utf-8"))[assignment]

