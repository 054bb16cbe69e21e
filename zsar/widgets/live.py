"""A figure with controls: a state for each of their settings, moved by a kernel or by the script of the built page."""

import itertools
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import ipywidgets
from markupsafe import Markup

from zsar.errors import FigureError
from zsar.widgets.fragments import render


@dataclass(frozen=True)
class State:
    """What is shown at one setting: HTML (``pictures``, ``bars``, ...) and one sentence that says what it shows."""

    html: str
    sentence: str


@dataclass(frozen=True)
class Control:
    """What a figure is moved by: its values, as they are shown, and the place of the first that is."""

    values: tuple[str, ...]
    start: int = 0


class Slider(Control):
    """A control that is moved along its values, which have an order."""

    element, widget = "slider", ipywidgets.SelectionSlider


class Menu(Control):
    """A control that offers its values as a list."""

    element, widget = "menu", ipywidgets.Dropdown


class LiveFigure:
    """A figure with a state for every setting of its controls.

    controls: a ``Slider`` or a ``Menu`` by the label that stands before it.
    states: a ``State`` for each combination of their values, in the order of the controls.
    still: a sentence for those who cannot move it, on what moving it would show.

    As the result of a cell it is an ipywidget, in which the kernel exchanges what is shown. Beside it stands the HTML
    that the built page shows and ``book/_static/figures.js`` brings to life: without scripts, the first state.

    Raises FigureError where a combination has no state, a state belongs to none, or a control has a value twice.
    """

    def __init__(self, controls: Mapping[str, Control], states: Mapping[tuple[str, ...], State], still: str):
        self.controls, self.still = dict(controls), still
        for label, control in self.controls.items():
            if len(set(control.values)) < len(control.values) or control.start not in range(len(control.values)):
                raise FigureError(f"the figure's control {label!r} has values {control.values} and starts at "
                                  f"{control.start}: expected different texts, and the place of one of them")
        settings = list(itertools.product(*(control.values for control in self.controls.values())))
        _complete(settings, states)
        self.states = {setting: states[setting] for setting in settings}
        self.start = tuple(control.values[control.start] for control in self.controls.values())

    @property
    def html(self) -> str:
        """The figure as the page shows it, with all states."""
        first = self.states[self.start]
        data = {"values": [control.values for control in self.controls.values()],
                "states": [[state.html, state.sentence] for state in self.states.values()]}
        return render("live.html", controls=self.controls, first=first, still=self.still, data=script_data(data))

    @cached_property
    def widget(self) -> ipywidgets.VBox:
        """The figure for a notebook: the controls, and the state that they are set to."""
        looks = {"style": {"description_width": "initial"}, "layout": {"max_width": "100%", "width": "420px"}}
        controls = [control.widget(options=list(control.values), index=control.start, description=label, **looks)
                    for label, control in self.controls.items()]
        shown = ipywidgets.HTML()

        def show(_=None) -> None:
            shown.value = in_notebook(self.states[tuple(control.value for control in controls)])

        for control in controls:
            control.observe(show, "value")
        show()
        return ipywidgets.VBox([*controls, shown])

    def _repr_mimebundle_(self, **which: object) -> dict:
        return bundle(self.widget, self.html, self.states[self.start].sentence)


def in_notebook(state: State) -> str:
    """A state as a notebook shows it, below controls that are the kernel's."""
    return render("notebook.html", state=state)


def bundle(widget: ipywidgets.Widget, html: str, text: str) -> dict:
    """All forms of a figure as the result of a cell: for a notebook with a kernel, for a page, for a terminal."""
    # ipywidgets 7, which Colab has, makes no such bundle of its own
    view = widget.get_view_spec()
    return {"application/vnd.jupyter.widget-view+json": view, "text/html": html, "text/plain": text}


def script_data(data: object) -> Markup:
    """JSON that may stand in a script element: it cannot end it."""
    return Markup(json.dumps(data, ensure_ascii=False, separators=(",", ":")).replace("<", r"\u003c"))


def _complete(settings: Sequence[tuple[str, ...]], states: Mapping[tuple[str, ...], State]) -> None:
    lacking = [setting for setting in settings if setting not in states]
    foreign = [setting for setting in states if setting not in set(settings)]
    for what, found in (("has no state for", lacking), ("cannot be set to", foreign)):
        if found:
            more = f" and {len(found) - 1} others" * (len(found) > 1)
            raise FigureError(f"the figure {what} {found[0]!r}{more}: found {len(states)} states, expected one for "
                              f"each of {len(settings)} combinations of the controls' values, as a tuple of texts")
