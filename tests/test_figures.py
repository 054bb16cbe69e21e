"""Figures say in words what they show, and leave no trace; headlines are held."""

import io
import json
from importlib import import_module

import matplotlib.pyplot as plt
import PIL.Image
import pytest
import torch

from zsar import figures, results
from zsar.evaluate.trust import VERDICTS
from zsar.study import Estimate
from zsar.trainer import History


def pictures(n: int, size: int = 8) -> torch.Tensor:
    return torch.rand(n, 3, size, size, generator=torch.Generator().manual_seed(0))


def near(value: float) -> Estimate:
    return Estimate(value, value - 2, value + 2, 3, 3000)


def ring() -> torch.Tensor:
    frame = torch.ones(3, 8, 8)
    frame[:, 2:-2, 2:-2] = 0
    return frame


def every_figure() -> dict:
    clean = pictures(3)
    table = {"clean": [(80.0, 70.0, 90.0), (50.0, 40.0, 60.0)], "robust": [(2.0, 0.0, 9.0), (0.0, 0.0, 5.0)]}
    return {
        "grid": figures.image_grid(clean, ["cat", "dog", "a very long name that needs two lines"], columns=2),
        "sheet": figures.contact_sheet({"small": pictures(4, 6), "large": pictures(4, 12)}, columns=3),
        "strip": figures.attack_strip(clean, 1 - clean, ["cat", "dog", "car"], ["dog", "dog", "cat"]),
        "mixed": figures.attack_strip([pictures(1, 6)[0], pictures(1, 12)[0]], [pictures(1, 6)[0], pictures(1, 12)[0]],
                                      ["cat", "dog"], ["dog", "dog"]),
        "dots": figures.accuracy_dots(["one", "two"], table),
        "curves": figures.eps_curves([0, 4], table, faint={"one": [90, 1]}),
        "heatmap": figures.heatmap(torch.eye(2), ["cat", "dog"], ["a cat", "a dog"], images=list(clean[:2])),
        "tradeoff": figures.tradeoff({"original": (near(91), near(3.4)), "tecoa": (near(75), near(20))},
                                     [["original", "half way", "tecoa"]]),
        "steps": figures.step_curves({"tecoa": [(0, 91), (30, 80.5)], "fare": [(0, 91)]}, "training steps"),
        "prompted": figures.prompted_pictures(clean, ring(), clean + ring()),
        "crossing": figures.crossing({"clean": {"with text": [near(80), near(60)], "without": [near(40), None]},
                                      "robust": {"with text": [None, None], "without": [near(1), near(2)]}},
                                     ["finetune", "pad"]),
        "changes": figures.change_panels(["one", "two"], {
            "tecoa": {"clean": [(90.0, near(70)), (80.0, near(60))], "robust": [(5.0, near(25)), None]},
            "fare": {"clean": [(None, near(70)), None], "robust": [None, None]}}, columns=1),
        "training": figures.training_curves(
            History(20, 8.0, [[step, 2.05 - 0.05 * step] for step in range(1, 21)],
                    [{"step": 20, "clean": 80.0, "robust": 12.5}])),
        "schedules": figures.schedules({"cut": [(0, 0, 2), (1, 0, 5)], "claimed": [(0, 0, 2), (0, 2, 4), (1, 0, 3.5)]}),
        "pulls": figures.pulls(list(figures.PULLS)),
        "texts": figures.against_texts({"tecoa": (torch.tensor([[.8, .5], [.4, .5]]), torch.tensor([[.3, .5]]))}),
        "verdicts": figures.verdict_matrix({"sound": {"ball": "pass", "steps": "not run"},
                                            "no clamp": {"ball": "failure", "batches": "warning"}}),
        "gains": figures.gains({"frozen": (1.5, 1.2, 1.6), "cached": (2.0, 1.9, 2.2)}, {"frozen": 1.25, "cached": 3}),
        "roofline": figures.roofline(1e12, 1e11, {"product": (100, 8e11), "sum": (0.1, 5e9)}),
        "shares": figures.probability_bars(["sums"], {"time": [.25]}, "share of the whole"),
        "doubling": figures.step_curves({"mean": [(1, 0), (512, 20)]}, "batch", "zeros", doubling=True),
        "bars": figures.probability_bars(["cat", "dog"], {"before": [0.9, 0.1], "after": [0.2, 0.8]}),
    }


@pytest.fixture(scope="module")
def drawn():
    return every_figure()


@pytest.mark.parametrize(("name", "words"), [
    ("grid", "very long name that needs two lines"), ("sheet", "small, large"), ("strip", "cat becomes dog; dog stays"),
    ("dots", "robust: one 2, two 0"), ("curves", "50 at 4"), ("heatmap", "cat: a cat; dog: a dog"),
    ("verdicts", "sound: no warning, no failure; no clamp: ball failure, batches warning."),
    ("bars", "after: cat 0.20, dog 0.80"), ("pulls", "tecoa: the texts stand still; fare: where the original had the"),
    ("texts", "tecoa: 50 % of the clean and 0 % of the attacked images below it."),
    ("gains", "cached: 2.00 measured, 3.00 counted."), ("shares", "Bars of share of the whole. time: sums 0.25."),
    ("roofline", "up to 10 operations a byte, and is flat at 1e+03 billion operations a second"),
    ("roofline", "product: 80% of the roof at 100 operations a byte; sum: 50% of the roof"),
    ("doubling", "Curves of zeros against batch. mean: 0 at 1, 20 at 512."),
    ("prompted", "a frame 2 pixels wide on a picture of 8"),
    ("crossing", "clean, without: finetune 40.0, pad missing."),
    ("changes", "tecoa, robust: 5 to 25 on average. fare, clean: nothing to compare."),
    ("tradeoff", "tecoa: 75 clean, 20 robust. A line joins original, tecoa."),
    ("training", "20 steps: loss 2 at the first, 1.05 at the last; held-out source 80.0 % clean, 12.5 % robust."),
    ("schedules", "2 ranks. cut: ranks end at 2, 5. claimed: ranks end at 4, 3.5."),
    ("steps", "in percent against training steps. tecoa: 91 at 0, 80.5 at 30.")])
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


def test_every_verdict_has_a_sign_of_its_own(drawn):
    assert set(figures.VERDICT_SIGNS) == set(VERDICTS)
    assert len({sign for sign, *_ in figures.VERDICT_SIGNS.values()}) == len(VERDICTS)
    assert [text.get_text() for text in drawn["verdicts"].axes[0].texts] == ["\u2713", "\u2013", "", "\u2717", "", "!"]


def test_names_in_a_tradeoff_stay_inside_and_apart():
    crowd = {f"method {i}": (near(60 + i % 3), near(20 + i // 3)) for i in range(9)}
    figure = figures.tradeoff(crowd)
    figure.draw_without_rendering()
    boxes = [text.get_window_extent() for text in figure.axes[0].texts]
    assert [text.get_text() for text in figure.axes[0].texts] == list(crowd)
    assert all(figure.bbox.containsx(box.x0) and figure.bbox.containsx(box.x1) for box in boxes)
    pairs = [(a, b) for i, a in enumerate(boxes) for b in boxes[:i]]
    assert not any(a.overlaps(b) for a, b in pairs)


def test_many_series_look_different():
    labels = [f"series {i}" for i in range(12)]
    for figure in (figures.step_curves({label: [(0, 1), (1, 2)] for label in labels}, "steps"),
                   figures.eps_curves([0, 4], {label: [(9, 8, 10), (1, 0, 2)] for label in labels})):
        lines = figure.axes[0].lines
        assert len({(line.get_color(), line.get_marker(), line.get_linestyle()) for line in lines}) == len(labels)


def test_what_is_missing_is_shown_as_missing():
    for empty in (figures.tradeoff({}), figures.training_curves(History()),
                  figures.step_curves({}, "steps"), figures.step_curves({"tecoa": []}, "steps")):
        assert figures.encode(empty)
    assert "tecoa: not measured yet." in figures.alt_text(figures.step_curves({"tecoa": []}, "steps"))
    holes = figures.heatmap(torch.tensor([[1.0, float("nan")], [float("nan")] * 2]), ["a", "b"], ["c", "d"])
    assert [text.get_text() for text in holes.axes[0].texts] == ["1.00", "–", "–", "–"]
    assert "a: c; b: missing" in figures.alt_text(holes)
    assert figures.encode(figures.heatmap(torch.full((1, 1), float("nan")), ["a"], ["b"]))


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
    monkeypatch.setattr(import_module("zsar.results.provenance"), "data_path", lambda *parts: tmp_path.joinpath(*parts))
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
