"""Figures say in words what they show, and leave no trace; widgets live without a kernel; headlines are held."""

import io
import json

import ipywidgets
import matplotlib.pyplot as plt
import PIL.Image
import pytest
import torch

from zsar import figures, results
from zsar.widgets import frame_slider


def pictures(n: int, size: int = 8) -> torch.Tensor:
    return torch.rand(n, 3, size, size, generator=torch.Generator().manual_seed(0))


def every_figure() -> dict:
    clean = pictures(3)
    table = {"clean": [(80.0, 70.0, 90.0), (50.0, 40.0, 60.0)], "robust": [(2.0, 0.0, 9.0), (0.0, 0.0, 5.0)]}
    return {
        "grid": figures.image_grid(clean, ["cat", "dog", "a very long name that needs two lines"], columns=2),
        "sheet": figures.contact_sheet({"small": pictures(4, 6), "large": pictures(4, 12)}, columns=3),
        "strip": figures.attack_strip(clean, 1 - clean, ["cat", "dog", "car"], ["dog", "dog", "cat"]),
        "dots": figures.accuracy_dots(["one", "two"], table),
        "curves": figures.eps_curves([0, 4], table, faint={"one": [90, 1]}),
        "heatmap": figures.heatmap(torch.eye(2), ["cat", "dog"], ["a cat", "a dog"], images=list(clean[:2])),
        "bars": figures.probability_bars(["cat", "dog"], {"before": [0.9, 0.1], "after": [0.2, 0.8]}),
    }


@pytest.fixture(scope="module")
def drawn():
    return every_figure()


@pytest.mark.parametrize(("name", "words"), [
    ("grid", "very long name that needs two lines"), ("sheet", "small, large"), ("strip", "cat becomes dog; dog stays"),
    ("dots", "robust: one 2, two 0"), ("curves", "50 at 4"), ("heatmap", "cat: a cat; dog: a dog"),
    ("bars", "after: cat 0.20, dog 0.80")])
def test_a_figure_carries_its_alt_text(drawn, name, words):
    assert words in figures.alt_text(drawn[name])


@pytest.mark.parametrize("name", every_figure())
def test_a_figure_is_white_small_and_readable_as_a_file(drawn, name):
    for kind in ("png", "jpeg"):
        data = figures.encode(drawn[name], kind, dpi=60)
        image = PIL.Image.open(io.BytesIO(data))
        assert len(data) < 400_000
        assert min(image.convert("RGB").getpixel((1, 1))) > 245
    assert image.format == "JPEG"


def test_a_figure_is_shown_with_its_alt_text_and_changes_no_state(drawn):
    before = plt.get_fignums()
    shown, metadata = figures.show(drawn["strip"], "jpeg")._repr_mimebundle_()
    assert list(shown) == ["image/jpeg"]
    assert metadata["image/jpeg"]["alt"] == figures.alt_text(drawn["strip"])
    assert plt.get_fignums() == before


def test_a_magnified_perturbation_is_grey_where_nothing_changed():
    delta = torch.zeros(2, 3, 4, 4)
    delta[0, 0, 0, 0], delta[0, 1, 1, 1] = 0.01, -0.005
    large = figures.magnify(delta)
    assert large[0, 0, 0, 0] == 1
    assert large[0, 1, 1, 1] == pytest.approx(0.25)
    assert (large[1] == 0.5).all()  # no change at all is no error


def test_a_changed_label_is_marked_without_colour(drawn):
    texts = [text.get_text() for axis in drawn["strip"].axes for text in [axis.title, *axis.texts]]
    assert "\u2717 dog" in texts
    assert "dog" in texts


def test_the_slider_lives_without_a_kernel(drawn, monkeypatch):
    links = []
    monkeypatch.setattr(ipywidgets, "jslink", lambda *ends: links.append(ends))  # joined in the browser, not in Python
    slider, stack = frame_slider([drawn["strip"], drawn["grid"]], ["0", "4"], "eps =", start=1).children
    assert links == [((slider, "index"), (stack, "selected_index"))]
    assert stack.selected_index == slider.index == 1
    assert all(picture.value[:2] == b"\xff\xd8" for picture in stack.children)  # the frames are in the page: JPEG


def test_the_slider_wants_one_value_a_frame(drawn):
    with pytest.raises(ValueError, match="1 frames and 2 values"):
        frame_slider([drawn["grid"]], ["0", "4"], "eps")


def test_wilson_interval():
    low, high = results.interval(8, 10)  # Wilson 1927; the figures are those of every textbook
    assert (low, high) == (pytest.approx(49.02, abs=0.01), pytest.approx(94.33, abs=0.01))
    assert results.interval(0, 40)[0] == 0
    assert results.interval(40, 40)[1] == 100
    assert results.interval(0, 40)[1] == pytest.approx(8.76, abs=0.01)
    with pytest.raises(ValueError, match="5 hits of 4"):
        results.interval(5, 4)


def test_mean_interval_weighs_tasks_alike_and_narrows_with_images():
    mean, low, high = results.mean_interval([10, 0], [10, 100])
    assert mean == 50
    assert low < 50 < high
    wide, narrow = results.mean_interval([5, 5], [10, 10]), results.mean_interval([500, 500], [1000, 1000])
    assert narrow[2] - narrow[1] < (wide[2] - wide[1]) / 5


class Model(torch.nn.Linear):
    name, digest = "drawn", "0123456789abcdef"


@pytest.fixture
def expected(tmp_path, monkeypatch):
    monkeypatch.setattr(results, "data_path", lambda *parts: tmp_path.joinpath(*parts))
    monkeypatch.delenv("ZSAR_STORE_EXPECTED", raising=False)
    (tmp_path / "expected").mkdir()
    return tmp_path / "expected" / "drawn.json"


def test_check_holds_a_headline(expected):
    expected.write_text(json.dumps({Model.digest: {"cpu": {"mean": 80.0}}}))
    said = results.check("mean", 81.5, 2.0, model=Model(1, 1), profile="drawn")
    assert "as expected" in said
    for wrong in (82.5, float("nan")):
        with pytest.raises(AssertionError, match=r"expected 80\.00 \+- 2"):
            results.check("mean", wrong, 2.0, model=Model(1, 1), profile="drawn")


@pytest.mark.parametrize("stored", [None, {}, {"other": {"cpu": {"mean": 1.0}}},
                                    {Model.digest: {"cuda": {"mean": 1.0}}}, {Model.digest: {"cpu": {"another": 1.0}}}])
def test_check_says_when_nothing_was_compared(expected, stored):
    if stored is not None:
        expected.write_text(json.dumps(stored))
    said = results.check("mean", 81.5, 2.0, model=Model(1, 1), profile="drawn")
    assert "81.50" in said
    assert "nothing was compared" in said


def test_check_stores_what_it_is_told_to(expected, monkeypatch):
    monkeypatch.setenv("ZSAR_STORE_EXPECTED", "1")
    results.check("mean", 81.25, 2.0, model=Model(1, 1), profile="drawn")
    results.check("other", 3.0, 2.0, model=Model(1, 1), profile="drawn")
    assert json.loads(expected.read_text()) == {Model.digest: {"cpu": {"mean": 81.25, "other": 3.0}}}
