"""The live figure of a training: drawn now and then, at the end in any case, and nowhere but in a notebook."""

from dataclasses import replace

import IPython
import pytest
from nbclient import NotebookClient
from nbformat.v4 import new_code_cell, new_notebook

from zsar import widgets
from zsar.adapt import adapt
from zsar.datasets import load_dataset
from zsar.recipes import RECIPES
from zsar.trainer import History
from zsar.widgets import LiveCurves

LOOK = {"step": 10, "clean": 80.0, "robust": 10.0}


class Screen:
    """Stands for IPython's display: what was shown, and how often each figure was."""

    def __init__(self):
        self.shown, self.updates, self.now = [], 0, 100.0

    def display(self, picture, display_id):
        assert display_id
        self.shown.append(picture)
        return self

    def update(self, picture):
        self.updates += 1
        self.shown[-1] = picture


@pytest.fixture
def screen(monkeypatch) -> Screen:
    """A notebook that is not there, with a clock that stands still."""
    screen = Screen()
    monkeypatch.setattr(widgets, "_in_notebook", lambda: True)
    monkeypatch.setattr(IPython.display, "display", screen.display)
    monkeypatch.setattr(widgets.time, "monotonic", lambda: screen.now)
    return screen


def test_curves_are_drawn_at_most_every_two_seconds(screen):
    watch, history = LiveCurves(), History()
    for step in range(1, 11):
        history.step, screen.now = step, screen.now + 0.5
        history.losses.append([step, 2.0])
        watch(history)
    assert len(screen.shown) == 1
    assert screen.updates == 2  # at once, and after two and four of the five seconds
    assert "after 9 steps" in screen.shown[0].alt


def test_the_last_state_is_always_drawn(screen):
    watch, history = LiveCurves(every=1e9), History()
    watch(history)
    history.step, history.losses, history.held_out = 10, [[10, 1.5]], [LOOK]
    watch(history)
    assert screen.updates == 1
    assert "80.0 % clean, 10.0 % robust" in screen.shown[0].alt


def test_another_training_begins_another_figure(screen):
    watch = LiveCurves()
    watch(History(step=1))
    watch(History(step=2))
    assert [("after 1 " in picture.alt, "after 2 " in picture.alt) for picture in screen.shown] == [
        (True, False), (False, True)]


def test_outside_a_notebook_nothing_happens(capsys):
    watch = LiveCurves()
    watch(History(step=10, losses=[[10, 1.5]], held_out=[LOOK]))
    assert capsys.readouterr() == ("", "")


def test_a_training_can_be_watched(tiny_clip, screen):
    source = load_dataset("DrawnSTL10").first_classes(2).subset(40)
    source.classnames, source.templates = ["cat", "dog"], ["this is a photo of the {}"]
    recipe = replace(RECIPES["drawn"], steps=2, batch=4, held_out=4, warmup=0)
    adapt(tiny_clip, source, recipe=recipe, watch=LiveCurves())
    assert "after 2 steps" in screen.shown[-1].alt


@pytest.mark.long
def test_a_kernel_shows_the_figure():
    code = """from zsar.trainer import History
from zsar.widgets import LiveCurves
watch, history = LiveCurves(every=0), History()
for step in (1, 2):
    history.step, history.losses = step, [[step, 1.0]]
    watch(history)"""
    notebook = NotebookClient(new_notebook(cells=[new_code_cell(code)]), kernel_name="python3").execute()
    output, = notebook.cells[0].outputs
    assert "after 2 steps" in output.metadata["image/png"]["alt"]
