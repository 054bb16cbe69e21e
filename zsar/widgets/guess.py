"""Which of two was it? Pictures side by side, an answer, and a score."""

import random
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import ipywidgets
from torch import Tensor

from zsar.errors import FigureError
from zsar.widgets.fragments import Picture, pictures, render
from zsar.widgets.live import State, bundle, in_notebook, script_data

SIDES = ("left", "right")


@dataclass(frozen=True)
class Round:
    """One question: images [3, H, W] of which the second is the one to find, what both show, and a sentence on them
    that is shown after the answer.
    """

    other: Tensor
    wanted: Tensor
    shows: str
    verdict: str


class GuessFigure:
    """Rounds in which one of two pictures is to be found; the score is kept.

    As many stand on the left as on the right, in an order drawn from ``seed``. Both are kept without loss: the
    difference may be too small for an eye, and must be there all the same.

    Raises FigureError where there is no round.
    """

    def __init__(self, question: str, rounds: Sequence[Round], seed: int = 0):
        if not rounds:
            raise FigureError("a figure to guess in has no round: expected at least one")
        self.question, self.rounds = question, tuple(rounds)
        self.sides = [n % 2 for n in range(len(self.rounds))]  # by tosses alone one side could win by far
        random.Random(seed).shuffle(self.sides)

    def pair(self, n: int) -> str:
        """The two pictures of a round, as HTML."""
        one = self.rounds[n]
        both = [one.other, one.wanted] if self.sides[n] else [one.wanted, one.other]
        return pictures([Picture(image, side, f"{one.shows}, the {side} one of two pictures")
                         for image, side in zip(both, SIDES, strict=True)])

    def verdict(self, n: int) -> str:
        """What is said after a round, whatever the answer."""
        return f"It was the {SIDES[self.sides[n]]} one. {self.rounds[n].verdict}"

    @property
    def html(self) -> str:
        """The figure as the page shows it, with all rounds."""
        data = [[self.pair(n), self.sides[n], self.verdict(n)] for n in range(len(self.rounds))]
        return render("guess.html", question=self.question, sides=SIDES, first=self.pair(0), verdict=self.verdict(0),
                      rounds=len(data), data=script_data(data))

    @cached_property
    def widget(self) -> ipywidgets.VBox:
        """The figure for a notebook."""
        return _Play(self).box

    def _repr_mimebundle_(self, **which: object) -> dict:
        return bundle(self.widget, self.html, f"{self.question} {len(self.rounds)} rounds")


class _Play:
    """A game in a notebook: the round it is at, and the score."""

    def __init__(self, figure: GuessFigure):
        self.figure, self.round, self.found = figure, 0, 0
        self.shown = ipywidgets.HTML()
        self.sides = [ipywidgets.Button(description=side) for side in SIDES]
        self.next = ipywidgets.Button(description="next pair")
        for side, button in enumerate(self.sides):
            button.on_click(lambda _, side=side: self.answer(side))
        self.next.on_click(lambda _: self.go_on())
        self.box = ipywidgets.VBox([self.shown, ipywidgets.HBox([*self.sides, self.next])])
        self.ask()

    def ask(self) -> None:
        """Show the pair of this round."""
        self.say(f"Pair {self.round + 1} of {len(self.figure.rounds)}. {self.figure.question}", answered=False)

    def answer(self, side: int) -> None:
        """Judge an answer."""
        right = side == self.figure.sides[self.round]
        self.found += right
        self.say(f"{'Right' if right else 'Wrong'}. {self.figure.verdict(self.round)} Found: {self.found} of "
                 f"{self.round + 1}; a coin finds half.", answered=True)

    def go_on(self) -> None:
        """The next round; after the last, the first again with a new score."""
        self.round = (self.round + 1) % len(self.figure.rounds)
        self.found *= self.round > 0
        self.ask()

    def say(self, sentence: str, *, answered: bool) -> None:
        """Show the pair with a sentence, and let that be pressed which makes sense now."""
        self.shown.value = in_notebook(State(self.figure.pair(self.round), sentence))
        self.next.disabled = not answered
        self.next.description = "next pair" if self.round + 1 < len(self.figure.rounds) else "begin again"
        for button in self.sides:
            button.disabled = answered
