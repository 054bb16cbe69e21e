"""Reading a grid: intervals that cover, pairs that are pairs, and a grid with holes in it."""

import json
from dataclasses import asdict
from itertools import product

import numpy as np
import pytest
import torch
from scipy import stats

from zsar.datasets.drawn import DRAWN_NAMES
from zsar.errors import UnknownNameError
from zsar.grid import Cell
from zsar.results import estimate, pack_bits
from zsar.study import BINARY, GROUPS, NEAR, SOURCE, Study, in_group

TASKS = (SOURCE, "DrawnCIFAR10", "DrawnDTD", "DrawnPCAM")
IMAGES = 40


def rows(clean, robust=None):
    """Rows of a test: the first ``clean`` of forty pictures of every task right, bits or a number a task."""
    def bits(value):
        return np.arange(IMAGES) < value if np.isscalar(value) else value

    found = []
    for i, task in enumerate(TASKS):
        row = {"dataset": task, "images": IMAGES}
        for kind, value in (("clean", clean), ("robust", clean if robust is None else robust)):
            value = bits(value[i] if isinstance(value, (list, tuple)) else value)
            row |= {kind: 100 * value.mean(), f"{kind}_bits": pack_bits(torch.from_numpy(value))}
        found.append(row)
    return found


def record(loss, method="finetune", seed=0, tests=None, curve=(), **other):
    cell = {"loss": loss, "method": method, "seed": seed, "train_eps_255": 4, "train_images": 12_000,
            "training_steps": 300, "tokens": 144, "source": "all"} | other
    return {"cell": cell, "rate": .1, "curve": list(curve), "tests": tests or []}


def test_of(found, eps_255=4, weight=1):
    return {"weight": weight, "eps_255": eps_255, "rows": found}


test_of.__test__ = False


def study(folder, *records):
    folder.mkdir(exist_ok=True)
    for i, found in enumerate(records):
        (folder / f"{i}.json").write_text(json.dumps(found))
    return Study(folder)


# intervals

def test_the_interval_by_hand():
    values = np.zeros((3, 2, 10))
    values[:, 0, :4], values[0, 1, :2], values[1:, 1, :3] = 1, 1, 1
    found = estimate(values.swapaxes(0, 1))
    means = [(.4 + .2) / 2, (.4 + .3) / 2, (.4 + .3) / 2]
    first = [1] * 4 + [0] * 6
    second = [1, 1, 2 / 3] + [0] * 7
    variance = sum((10 * np.var(task) + .5) / 12 / 10 for task in (first, second)) / 4
    half = np.hypot(1.959964 * np.sqrt(variance), 4.302653 * np.std(means, ddof=1) / np.sqrt(3))
    assert found.value == pytest.approx(100 * np.mean(means))
    assert (found.low, found.high) == pytest.approx((found.value - 100 * half, found.value + 100 * half), rel=1e-5)
    assert (found.seeds, found.images) == (3, 20) and str(found) == f"{found.value:.1f} ({found.low:.1f} to " \
                                                                    f"{found.high:.1f})"


@pytest.mark.parametrize(("seeds", "spread"), [(1, 0), (3, .05)])
def test_95_of_100_intervals_hold_the_truth(seeds, spread):
    random, truth = np.random.default_rng(0), np.array([.05, .3, .6, .9])
    covered = []
    for _ in range(600):
        chance = truth[:, None] * np.ones((1, 50))
        shift = spread * random.standard_normal((seeds, 1, 1))
        values = (random.random((seeds, 4, 50)) < chance + shift).astype(float)
        found = estimate(values.swapaxes(0, 1))
        covered.append(found.low <= 100 * truth.mean() <= found.high)
    assert .925 <= np.mean(covered) <= 1


def test_an_interval_is_never_a_point():
    for value in (0., 1.):
        found = estimate(np.full((3, 1, 50), value))
        assert found.low < 100 * value < found.high
    assert estimate(np.empty((0, 0, 0))) is None


def test_pairing_narrows_the_interval(tmp_path):
    random = np.random.default_rng(0)
    hard = [random.random(IMAGES) < .5 for _ in TASKS]
    ours = [bits | (random.random(IMAGES) < .05) for bits in hard]
    found = study(tmp_path, record("tecoa", tests=[test_of(rows(ours))]), record("adv", tests=[test_of(rows(hard))]))
    paired = found.difference(("tecoa", "finetune"), ("adv", "finetune"), "clean")
    apart = [found.mean(loss, "finetune", "clean") for loss in ("tecoa", "adv")]
    assert paired.value == pytest.approx(apart[0].value - apart[1].value) and paired.value > 0
    assert paired.high - paired.low < .7 * np.hypot(*(each.high - each.low for each in apart))


def test_an_accuracy_stays_between_0_and_100(tmp_path):
    found = study(tmp_path, record("tecoa", tests=[test_of(rows(IMAGES, 0))]))
    clean, robust = (found.mean("tecoa", "finetune", kind) for kind in ("clean", "robust"))
    assert clean.high == 100 > clean.low and robust.low == 0 < robust.high


# which cells and which pairs

def test_groups_part_the_sixteen():
    names = {group: {name for name in DRAWN_NAMES if in_group(name, group)} for group in GROUPS}
    assert names["source"] == {SOURCE} and len(names["unseen"]) == 15
    assert names["near"] == set(NEAR) and not names["near"] & names["far"]
    assert names["near"] | names["far"] == names["unseen"] == set(DRAWN_NAMES) - {SOURCE}
    assert names["unseen"] - names["unseen without binary"] == set(BINARY)


def test_means_take_the_tasks_of_the_group(tmp_path):
    found = study(tmp_path, record("tecoa", tests=[test_of(rows([4, 10, 20, 30], [0, 8, 4, 2]))]))
    for group, kind, hits in (("source", "clean", [4]), ("near", "clean", [10]), ("far", "robust", [4, 2]),
                              ("unseen", "clean", [10, 20, 30]), ("unseen without binary", "robust", [8, 4])):
        assert found.mean("tecoa", "finetune", kind, group).value == pytest.approx(100 * np.mean(hits) / IMAGES)


def test_the_core_is_what_the_grid_calls_so(tmp_path):
    """A changed default of a cell would otherwise make every comparison find nothing, and say nothing."""
    cell = asdict(Cell("tecoa", "finetune", 0))
    assert study(tmp_path, {"cell": cell, "tests": [test_of(rows(20))]}).select("tecoa", "finetune")
    for name, value in {key: cell[key] for key in cell.keys() - {"loss", "method", "seed", "tests"}}.items():
        other = {"cell": cell | {name: f"not {value}"}, "tests": [test_of(rows(20))]}
        (tmp_path / "0.json").unlink()
        assert not study(tmp_path, other).select("tecoa", "finetune")


def test_what_differs_from_the_core_is_asked_for(tmp_path):
    found = study(tmp_path, record("tecoa", tests=[test_of(rows(1)), test_of(rows(2), eps_255=8),
                                                   test_of(rows(3), weight=.5)]),
                  record("tecoa", train_eps_255=8, tests=[test_of(rows(4))]),
                  record("tecoa", tokens=4, tests=[test_of(rows(5))]),
                  record("none", "original", tests=[test_of(rows(6), weight=0)]))
    hits = {1: {}, 2: {"eps_255": 8}, 3: {"weight": .5}, 4: {"train_eps_255": 8}, 5: {"tokens": 4}}
    for n, which in hits.items():
        assert found.mean("tecoa", "finetune", "clean", **which).value == pytest.approx(100 * n / IMAGES)
    assert found.mean("tecoa", "finetune", "clean", train_images=7) is None
    ahead = found.difference(("none", "original"), ("tecoa", "finetune"), "clean", train_eps_255=8)
    assert ahead.value == pytest.approx(100 * 2 / IMAGES)  # the original was not trained at any eps


def test_a_cell_may_be_compared_with_one_of_other_fields(tmp_path):
    found = study(tmp_path, record("tecoa", tests=[test_of(rows(20))]),
                  record("tecoa", tests=[test_of(rows(30))], rate=1e-3), record("adv", tests=[test_of(rows(10))]))
    a, b = ("tecoa", "finetune"), ("adv", "finetune")
    assert found.difference(a, b, "clean").value == pytest.approx(25)
    assert found.difference((*a, {"rate": 1e-3}), b, "clean").value == pytest.approx(50)
    assert found.difference((*a, {"rate": 1e-3}), a, "clean").value == pytest.approx(25)
    assert found.difference((*a, {"rate": 1e-4}), b, "clean") is None


def test_pairs_are_of_one_seed(tmp_path):
    ours = [record("tecoa", seed=seed, tests=[test_of(rows(10 * seed + 5))]) for seed in (0, 2)]
    theirs = [record("adv", seed=seed, tests=[test_of(rows(10 * seed))]) for seed in (1, 2)]
    original = record("none", "original", tests=[test_of(rows(1), weight=0)])
    found = study(tmp_path, *ours, *theirs, original)
    paired = found.difference(("tecoa", "finetune"), ("adv", "finetune"), "clean")
    assert paired.seeds == 1 and paired.value == pytest.approx(100 * 5 / IMAGES)
    both = found.difference(("tecoa", "finetune"), ("none", "original"), "clean")
    assert both.seeds == 2 and both.value == pytest.approx(100 * (15 - 1) / IMAGES)


# along the way

def on_the_way(loss, source, robust, clean):
    """A cell whose accuracies after 100 and 300 steps are these, in hits of forty."""
    looks = [rows([c, c, c, c], [s, r, r, r]) for s, r, c in zip(source, robust, clean, strict=True)]
    return record(loss, curve=[{"step": 100, "rows": looks[0], "attacked_rows": looks[0]}], tests=[test_of(looks[1])])


ORIGINAL = record("none", "original", tests=[test_of(rows(40, 0), weight=0)])


def test_methods_are_compared_at_the_same_robustness_of_the_source(tmp_path):
    # adv: source 0, 10, 20 with clean 40, 30, 20; tecoa: source 0, 20, 40 with clean 40, 36, 32. At 20: 36 against 20.
    found = study(tmp_path, ORIGINAL, on_the_way("adv", (10, 20), (4, 8), (30, 20)),
                  on_the_way("tecoa", (20, 40), (10, 20), (36, 32)))
    ahead, at = found.matched(("tecoa", "finetune"), ("adv", "finetune"), "clean", draws=20)
    assert at == pytest.approx(50) and ahead.value == pytest.approx(100 * (36 - 20) / IMAGES)
    assert ahead.low <= ahead.value <= ahead.high
    behind, at = found.matched(("adv", "finetune"), ("tecoa", "finetune"), "robust", draws=20)
    assert at == pytest.approx(50) and behind.value == pytest.approx(100 * (8 - 10) / IMAGES)


def test_between_two_points_the_path_is_straight(tmp_path):
    # tecoa at source 30, halfway between its points: clean 34.
    found = study(tmp_path, ORIGINAL, on_the_way("adv", (10, 30), (4, 8), (30, 20)),
                  on_the_way("tecoa", (20, 40), (10, 20), (36, 32)))
    ahead, at = found.matched(("tecoa", "finetune"), ("adv", "finetune"), "clean", draws=2)
    assert at == pytest.approx(75) and ahead.value == pytest.approx(100 * (34 - 20) / IMAGES)


def test_a_path_that_falls_again_is_taken_where_it_first_arrives(tmp_path):
    # adv: source 0, 30, 25 with clean 40, 20, 8; tecoa: source 0, 20, 40 with clean 40, 36, 32. At 25: 35 against 23.3.
    found = study(tmp_path, ORIGINAL, on_the_way("adv", (30, 25), (4, 8), (20, 8)),
                  on_the_way("tecoa", (20, 40), (10, 20), (36, 32)))
    ahead, at = found.matched(("tecoa", "finetune"), ("adv", "finetune"), "clean", draws=20)
    assert at == pytest.approx(62.5) and ahead.value == pytest.approx(100 * (35 - (40 - 20 * 25 / 30)) / IMAGES)
    assert all(type(part) is float for part in (ahead.value, ahead.low, ahead.high, at))


def test_a_training_that_won_no_robustness_is_not_matched(tmp_path):
    found = study(tmp_path, ORIGINAL, on_the_way("adv", (5, 0), (4, 0), (20, 8)),
                  on_the_way("tecoa", (20, 40), (10, 20), (36, 32)))
    assert found.matched(("tecoa", "finetune"), ("adv", "finetune"), "clean") is None


def test_an_interaction_takes_the_seeds_that_all_four_have(tmp_path):
    cells = [(loss, method) for loss in ("tecoa", "adv") for method in ("finetune", "pad")]
    records = [record(*cell, seed=seed, tests=[test_of(rows(clean + seed))])
               for cell, clean, seeds in zip(cells, (30, 20, 10, 16), ((0, 1), (0, 1), (0, 2), (0, 2)), strict=True)
               for seed in seeds]
    found = study(tmp_path, *records).interaction(*cells, "clean")
    assert found.seeds == 1 and found.value == pytest.approx(100 * ((30 - 20) - (10 - 16)) / IMAGES)
    assert study(tmp_path / "less", *records[:-2]).interaction(*cells, "clean") is None


def test_the_curve(tmp_path):
    found = study(tmp_path, ORIGINAL, on_the_way("adv", (10, 20), (4, 8), (30, 20)))
    assert found.curve("adv", "finetune") == [(0, 100.), (100, 75.), (300, 50.)]


# holes

@pytest.mark.parametrize(("ask", "message"), [
    (lambda s: s.mean("tekoa", "finetune", "clean"), "unknown loss 'tekoa': did you mean"),
    (lambda s: s.mean("tecoa", "finetun", "clean"), "unknown method 'finetun': did you mean finetune"),
    (lambda s: s.mean("tecoa", "finetune", "cleen"), "unknown kind of accuracy 'cleen': expected one of clean, robust"),
    (lambda s: s.mean("tecoa", "finetune", "clean", "unsean"), "unknown group of tasks 'unsean': .*unseen"),
    (lambda s: s.mean("tecoa", "finetune", "clean", train_eps=2), "unknown field of a cell 'train_eps': did you mean"),
    (lambda s: s.table([("fair", "finetune")]), "unknown loss 'fair': did you mean fare")])
def test_a_misspelt_question_is_no_missing_cell(ask, message, tmp_path):
    with pytest.raises(UnknownNameError, match=message):
        ask(study(tmp_path, record("tecoa", tests=[test_of(rows(20))])))


def test_a_seed_may_be_asked_for(tmp_path):
    found = study(tmp_path, *(record("tecoa", seed=seed, tests=[test_of(rows(20 + seed))]) for seed in (0, 1)))
    assert found.mean("tecoa", "finetune", "clean", seed=1).seeds == 1
    assert found.mean("tecoa", "finetune", "clean", seed=1).value == pytest.approx(52.5)


@pytest.mark.parametrize("ask", [
    lambda s: s.bits("fare", "token", "rob", "unseen"), lambda s: s.bits("fare", "token", "robust", "unsen"),
    lambda s: s.matched(("tecoa", "finetune"), ("adv", "finetune"), "robst"),
    lambda s: s.difference(("tecoa", "finetune"), ("adv", "finetune"), "clean", "nea")])
def test_a_misspelt_question_about_a_missing_cell(ask, tmp_path):
    with pytest.raises(UnknownNameError, match="unknown (kind of accuracy|group of tasks)"):
        ask(Study(tmp_path))


def everything_of(found):
    """What a chapter may ask for."""
    a, b = ("tecoa", "finetune"), ("adv", "finetune")
    return [*(found.mean(*a, kind, group) for kind, group in product(("clean", "robust"), GROUPS)),
            found.difference(a, b, "robust"), found.difference(a, ("none", "original"), "clean"),
            found.matched(a, b, "clean")]


@pytest.mark.parametrize("make", [lambda path: path / "missing", lambda path: path])
def test_an_empty_grid_is_no_error(make, tmp_path):
    found = Study(make(tmp_path))
    assert everything_of(found) == [None] * 13
    assert found.curve("tecoa", "finetune") == found.path("tecoa", "finetune") == []
    table = found.table([("tecoa", "finetune"), ("none", "original")])
    assert set(table.drop(columns=["loss", "method"]).to_numpy().flat) == {"–"} and len(table) == 2


def test_a_missing_cell_is_a_dash(tmp_path):
    later = record("tecoa", seed=1, tests=[test_of(rows(20, 10))])
    diverged = record("fare") | {"tests": [], "diverged": "the loss fare is nan at step 7"}
    rates = {"loss": "tecoa", "method": "finetune", "tried": [], "rate": .1}
    found = study(tmp_path, later, ORIGINAL, diverged, rates)
    assert found.rates["tecoa", "finetune"]["rate"] == .1
    assert found.mean("fare", "finetune", "clean") is None and found.path("tecoa", "finetune") == []
    assert found.matched(("tecoa", "finetune"), ("tecoa", "finetune"), "clean") is None  # seed 0 is not there
    table = found.table([("tecoa", "finetune"), ("adv", "finetune")], ["unseen"])
    assert list(table.columns) == ["loss", "method", "unseen, clean", "unseen, robust", "seeds"]
    assert list(table["seeds"]) == ["1", "–"] and found.table([("fare", "finetune")])["seeds"][0] == "– + 1 diverged"
    assert list(table["unseen, clean"].str.startswith("50.0 (")) == [True, False] and table["unseen, robust"][1] == "–"


def test_two_seeds_widen_by_students_t():
    values = np.zeros((2, 1, 100))
    values[0, 0, :50], values[1, 0, :60] = 1, 1
    found = estimate(values.swapaxes(0, 1))
    assert found.high - found.value > 100 * stats.t.ppf(.975, 1) * .1 / 2
