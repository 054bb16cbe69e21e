"""Figures that move, on the side of Python: complete, escaped, alive in a kernel, whole without one.

And the live figure of a training: drawn now and then, at the end in any case, and nowhere but in a notebook.
"""

import base64
import io
import json
import re
from dataclasses import replace
from html.parser import HTMLParser

import IPython
import ipywidgets
import numpy as np
import pytest
import torch
from nbclient import NotebookClient
from nbformat.v4 import new_code_cell, new_notebook
from PIL import Image
from stored import ATTACK, first, put, task

from zsar.adapt import adapt
from zsar.datasets import load_dataset
from zsar.errors import FigureError
from zsar.recipes import RECIPES
from zsar.report import Scores, explorer
from zsar.results import Estimate, Store
from zsar.trainer import History
from zsar.widgets import (
    Bar,
    Change,
    GuessFigure,
    LiveCurves,
    LiveFigure,
    Menu,
    Picture,
    Round,
    Slider,
    State,
    attack_state,
    bars,
    curves,
    interpolation_state,
    pictures,
    prompt_state,
    template_state,
)

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
    monkeypatch.setattr(curves, "_in_notebook", lambda: True)
    monkeypatch.setattr(IPython.display, "display", screen.display)
    monkeypatch.setattr(curves.time, "monotonic", lambda: screen.now)
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


CONTROLS = {"who": Menu(("a", "b")), "eps": Slider(("0", "1", "2"), start=1)}
STATES = {(who, eps): State(f"<p>{who}{eps}</p>", f"{who} at {eps}.") for who in "ab" for eps in "012"}


class Tags(HTMLParser):
    """The names of all elements, their attributes, and the text outside of scripts and styles."""

    def __init__(self, html: str):
        super().__init__()
        self.tags, self.text, self.within = [], "", ""
        self.feed(html)

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        self.within = tag

    def handle_endtag(self, tag):
        self.within = ""

    def handle_data(self, data):
        if self.within not in ("script", "style"):
            self.text += data

    def all(self, name: str) -> list[dict]:
        """The attributes of each element of that name."""
        return [attrs for tag, attrs in self.tags if tag == name]


def page_data(html: str):
    """What the figure hands to the script of the page."""
    found, = re.findall(r'<script type="application/json">(.*?)</script>', html, re.DOTALL)
    return json.loads(found)


def shown(widget) -> str:
    """The HTML that a notebook shows of a figure."""
    found, = (child for child in widget.children if type(child).__name__ == "HTML")
    return found.value


def test_a_figure_carries_every_state_in_the_order_of_its_controls():
    backwards = dict(reversed(STATES.items()))
    data = page_data(LiveFigure(CONTROLS, backwards, "It moves.").html)
    assert data["values"] == [["a", "b"], ["0", "1", "2"]]
    assert data["states"] == [[STATES[who, eps].html, STATES[who, eps].sentence] for who in "ab" for eps in "012"]


def test_without_a_script_the_first_state_is_there_to_read():
    page = Tags(LiveFigure(CONTROLS, STATES, "It moves.").html)
    assert "a1" in page.text and "a at 1." in page.text and "It moves." in page.text
    assert "b2" not in page.text
    controls, = (attrs for attrs in page.all("div") if attrs["class"] == "controls")
    assert "hidden" in controls
    assert page.all("input")[0]["aria-valuetext"] == "1"


@pytest.mark.parametrize(("change", "said"), [
    (lambda states: states.pop(("b", "2")), "no state for ('b', '2')"),
    (lambda states: states.update({("c", "0"): STATES["a", "0"]}), "cannot be set to ('c', '0')"),
    (lambda states: states.clear(), "no state for ('a', '0') and 5 others"),
])
def test_a_figure_with_other_states_than_settings_is_refused_in_one_line(change, said):
    states = dict(STATES)
    change(states)
    with pytest.raises(FigureError) as error:
        LiveFigure(CONTROLS, states, "It moves.")
    assert said in str(error.value)
    assert "\n" not in str(error.value)


def test_the_kernel_exchanges_what_is_shown():
    widget = LiveFigure(CONTROLS, STATES, "It moves.").widget
    menu, slider, _ = widget.children
    assert "a at 1." in shown(widget)
    slider.value, menu.value = "2", "b"
    assert "<p>b2</p>" in shown(widget) and "b at 2." in shown(widget)
    assert "a1" not in shown(widget)


def test_a_result_is_widget_page_and_text_at_once(monkeypatch):
    monkeypatch.delattr(ipywidgets.Widget, "_repr_mimebundle_")  # as in ipywidgets 7, which Colab has
    found = LiveFigure(CONTROLS, STATES, "It moves.")._repr_mimebundle_()
    assert set(found) == {"application/vnd.jupyter.widget-view+json", "text/html", "text/plain"}
    assert found["text/plain"] == "a at 1."


def test_names_are_text_and_never_html():
    evil = "</script><b title='x'>&"
    state = State(bars([evil, evil], {evil: [evil]}) + pictures([Picture(torch.zeros(3, 2, 2), evil, evil)]), evil)
    figure = LiveFigure({evil: Menu((evil,))}, {(evil,): state}, evil)
    for html in (figure.html, shown(figure.widget)):
        assert Tags(html).all("b") == []
        assert evil in Tags(html).text
    assert page_data(figure.html)["values"] == [[evil]]
    assert Tags(figure.html).all("img")[0]["alt"] == evil


def test_pictures_keep_every_grey_level():
    image = torch.arange(48).reshape(3, 4, 4) / 255
    source = Tags(pictures([Picture(image, "", "levels")])).all("img")[0]["src"]
    read = Image.open(io.BytesIO(base64.b64decode(source.removeprefix("data:image/png;base64,"))))
    assert torch.equal(torch.tensor(np.array(read)).permute(2, 0, 1), (255 * image).round().byte())


def test_bars_say_their_numbers():
    page = Tags(bars(["task", "clean"], {"pets": [Bar(51.25, 40, 60)], "cars": ["–"], "a:b": [Change(-.01, -1.5, 1.4)]},
                     bold="pets"))
    assert "51.2 40.0 to 60.0" in page.text and "–" in page.text and "+0.0 \u22121.5 to +1.4" in page.text
    assert [attrs["style"] for attrs in page.all("i")] == ["--v:51.2"]
    assert [attrs.get("class") for attrs in page.all("tr")] == [None, "bold", None, None]


def test_an_attack_is_read_aloud_as_it_came_out():
    image, sure = torch.full((3, 4, 4), 0.5), torch.tensor([0.9, 0.1, 0.0])
    fooled = attack_state(image, image + 4 / 255, sure, sure.flip(0), ("cat", "dog", "car"), 0, 4)
    assert fooled.sentence.replace("\u00a0", " ") == (
        "At eps 4/255 the cat is now called car, with 90.0 %; before the attack it was called cat, with 90.0 %.")
    assert len(Tags(fooled.html).all("img")) == 3
    held = attack_state(image, image, sure, sure, ("cat", "dog", "car"), 0, 0)
    assert "is still called cat" in held.sentence and "nothing yet" in held.html


def test_the_right_class_is_always_among_the_bars():
    sure = torch.tensor([0.0, 0.3, 0.2, 0.2, 0.1, 0.1, 0.1])
    state = attack_state(torch.zeros(3, 2, 2), torch.zeros(3, 2, 2), sure, sure, "abcdefg", 0, 1)
    rows = re.findall(r'<tr( class="bold")?><th scope="row">(\w)', state.html)
    assert len(rows) == 5
    assert [name for bold, name in rows if bold] == ["a"]


def test_a_sentence_names_the_two_likeliest_classes():
    state = template_state(torch.zeros(3, 2, 2), torch.tensor([0.2, 0.7, 0.1]), ("cat", "dog", "car"), 0, "A {}.")
    assert state.sentence.replace("\u00a0", " ") == (
        "With \u201cA {}.\u201d the cat is called dog, with 70.0 %; the next is cat, with 20.0 %.")


def test_a_frame_is_told_from_the_bare_model():
    parts = [torch.zeros(3, 4, 4), torch.ones(3, 8, 8), torch.tensor([0.2, 0.7, 0.1]), torch.tensor([0.6, 0.1, 0.3]),
             ("cat", "dog", "car"), 0, "random"]
    state = prompt_state(*parts, "transferred")
    assert state.sentence.replace("\u00a0", " ") == (
        "The cat, under the transferred attack, is called dog by the bare model, with 70.0 %; in the random frame it "
        "is called cat, with 60.0 %.")
    page = Tags(state.html)
    files = [base64.b64decode(tag["src"].partition(",")[2]) for tag in page.all("img")]
    assert [Image.open(io.BytesIO(file)).getpixel((0, 0)) for file in files] == [(0, 0, 0), (255, 255, 255)]
    assert "cat20.060.0" in page.text and "bare, %framed, %" in page.text
    assert prompt_state(*parts).sentence.startswith("The cat is called dog by the bare model")


def test_the_coin_lies_between_the_ends():
    pairs = {0: (90, 2), 0.5: (80, 12), 1: (50, 18)}
    curve = {w: tuple(Estimate(v, v - 2, v + 2, 1, 100) for v in pair) for w, pair in pairs.items()}
    state = interpolation_state(curve, 0.5)
    sentence = state.sentence.replace("\u00a0", " ")
    assert "At w = 0.5: 80.0 (78.0 to 82.0) % clean, 12.0 (10.0 to 14.0) % robust" in sentence
    assert "The coin would have 70.0 % and 10.0 %." in sentence
    assert len(Tags(state.html).all("circle")) == 4  # three points, and the one set off
    assert "w = 0.5 is set off" in Tags(state.html).all("svg")[0]["aria-label"]


def rounds(n: int) -> list[Round]:
    """Rounds whose second picture is white."""
    return [Round(torch.zeros(3, 2, 2), torch.ones(3, 2, 2), "a picture", f"Verdict {i}.") for i in range(n)]


def test_a_game_is_played_in_a_kernel():
    figure = GuessFigure("Which is white?", rounds(3))
    widget = figure.widget
    left_right, following = widget.children[1].children[:2], widget.children[1].children[2]
    for i, right in enumerate((True, False, True)):
        assert following.disabled and not left_right[0].disabled
        left_right[figure.sides[i] if right else 1 - figure.sides[i]].click()
        assert ("Right." if right else "Wrong.") in shown(widget) and f"Verdict {i}." in shown(widget)
        assert f"Found: {(1, 1, 2)[i]} of {i + 1}" in shown(widget)
        assert left_right[0].disabled
        following.click()
    assert "Pair 1 of 3" in shown(widget)
    left_right[figure.sides[0]].click()
    assert "Found: 1 of 1" in shown(widget)


def test_the_sides_of_a_game_are_those_of_the_pictures():
    figure = GuessFigure("Which is white?", rounds(8))
    white = Picture(torch.ones(3, 2, 2), "", "").address
    for html, side, verdict in page_data(figure.html):
        sources = [attrs["src"] for attrs in Tags(html).all("img")]
        assert sources.index(white) == side
        assert ("left", "right")[side] in verdict
    assert set(figure.sides) == {0, 1}
    assert figure.verdict(0) in Tags(figure.html).text  # in the fold, for those without scripts


def test_a_game_without_rounds_is_refused():
    with pytest.raises(FigureError, match="no round"):
        GuessFigure("Which?", [])


def test_the_explorer_answers_what_the_store_holds(tmp_path):
    store, of = Store(tmp_path), [task(name, [0, 1, 2, 0] * 5) for name in ("DrawnCIFAR10", "DrawnPCAM")]
    for method, clean, robust in (("clip", 18, 2), ("tecoa:finetune", 10, 6)):
        for one in of:
            put(store, one, method, "none", first(clean, 20))
            if (method, one.dataset) != ("tecoa:finetune", "DrawnPCAM"):
                put(store, one, method, ATTACK, first(robust, 20))
    figure = explorer(Scores(store), ATTACK)
    assert len(figure.states) == 3 * 3
    one = figure.states["tecoa:finetune", "DrawnCIFAR10"].sentence
    assert one.startswith("tecoa:finetune, DrawnCIFAR10: 50.0 (") and "\u221240.0 (" in one and "+20.0 (" in one
    lacking = figure.states["tecoa:finetune", "DrawnPCAM"]
    assert "under attack" not in lacking.sentence and "–" in lacking.html
    assert "under attack, clip is highest with 10.0\u00a0%" in figure.states["all methods", "DrawnPCAM"].sentence
    assert "clean, clip is highest with 90.0\u00a0%" in figure.states["all methods", "all datasets"].sentence
