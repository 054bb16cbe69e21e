"""The grid: its cells, its search of rates, and what it writes and skips."""

import argparse
import json
import re
import time
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from multiprocessing import get_context
from types import SimpleNamespace

import pytest
from made_up import made_up

from zsar import grid
from zsar.attacks import MICRO_BATCH
from zsar.errors import DivergenceError, UnknownNameError, ZsarError
from zsar.grid import CORE, EXTENDED, FURTHER_RATES, SEEDS, TIERS, Cell
from zsar.losses import LOSSES
from zsar.methods import parts
from zsar.trainer import Trainer

# the cells

def test_names_of_cells_are_unique_and_files():
    cells = {cell for tier in TIERS.values() for cell in tier}
    names = {cell.name for cell in cells}
    assert len(names) == len(cells) == len(CORE) + len(EXTENDED)
    assert all(re.fullmatch(r"[A-Za-z0-9+_.-]{1,120}", name) for name in names)
    assert Cell("tecoa", "pad+token", 2).name == "tecoa_pad+token_seed-2"
    assert all(cell.loss in LOSSES and parts(cell.method) for cell in cells)


def test_the_core_is_what_the_study_needs():
    wanted = [(loss, "finetune") for loss in ("clean", "adv", "adv-slow", "coadv", "imgcoadv", "tecoa", "fare")]
    wanted += [("adv", "pad+token"), ("tecoa", "pad+token")]
    assert sorted((cell.loss, cell.method, cell.seed) for cell in CORE) == sorted(
        (*pair, seed) for pair in wanted for seed in (0, 1, 2))
    assert all(replace(cell, tests=((1, 4),)) == Cell(cell.loss, cell.method, cell.seed) for cell in CORE)
    assert all((1, 4) in cell.tests for cell in CORE) and SEEDS == (0, 1, 2)
    assert [cell.seed for cell in CORE] == sorted(cell.seed for cell in CORE)  # a whole seed before the next


def test_a_cell_sees_each_training_picture_once():
    for cell in CORE:
        recipe = cell.recipe(.5)
        assert recipe.batch * recipe.steps == cell.train_images and recipe.keep == "last" and recipe.steps >= 300
        assert recipe.rate(cell.method) == .5 and recipe.seed == cell.seed and recipe.precision == "fp32"
        assert recipe.eps_255 == recipe.alpha_255 == 4 and recipe.attack_steps == 2


# the rates

@pytest.fixture
def landscape(monkeypatch, tmp_path):
    """Trainings whose held-out accuracy is a function of the exponent of their rate."""
    (tmp_path / grid.NAME).mkdir()
    monkeypatch.setattr(grid, "_original", lambda device: None)
    monkeypatch.setattr(grid, "provenance", lambda model: {})

    def search(robust, loss="tecoa", method="finetune"):
        tried = []

        def trainer(cell, recipe, device):
            exponent = round(2 * grid.np.log(recipe.rate(method) / (1e-3 if method == "finetune" else .1))
                             / grid.np.log(3)) / 2
            tried.append(exponent)
            history = SimpleNamespace(held_out=[], step=0)

            def advance(until):
                assert until == recipe.steps == 100 and recipe.warmup == 10 and recipe.seed == 0
                if robust(exponent) is None:
                    raise DivergenceError("the loss is nan")
                history.held_out.append({"step": 100, "clean": 50 - exponent, "robust": 40 + robust(exponent)})

            return SimpleNamespace(advance=advance, history=history)

        monkeypatch.setattr(grid, "_trainer", trainer)
        monkeypatch.setattr(grid, "source_images", lambda kind, images: made_up(240).hold_out(200))
        grid.search_rate(Cell(loss, method, 0), tmp_path, None)
        return tried, json.loads(grid._rates_file(Cell(loss, method, 0), tmp_path).read_text())

    return search


@pytest.mark.parametrize(("robust", "expected", "best", "at_an_edge"), [
    (lambda e: 10 - abs(e - .5), [], .5, False),  # inside: no further rate
    (lambda e: 10 - abs(e - 2.5), [2.5, 3.5], 2.5, False), (lambda e: 10 + e, [2.5, 3.5], 3.5, True),
    (lambda e: 10 - e, [-2.5, -3.5], -3.5, True), (lambda e: 10 - abs(e + 2.5), [-2.5, -3.5], -2.5, False),
    (lambda e: None if e > 0 else 10 + e, [], -.5, False)])  # diverged: as if nothing were right
@pytest.mark.parametrize("method", ["finetune", "pad+token"])
def test_the_search_moves_on_at_an_edge_and_stops(robust, expected, best, at_an_edge, method, landscape):
    tried, record = landscape(robust, method=method)
    assert tried == [-1.5, -.5, .5, 1.5, *expected] and len(expected) <= FURTHER_RATES
    centre = 1e-3 if method == "finetune" else .1
    assert record["rate"] == pytest.approx(centre * 3**best, rel=5e-3) and record["at_an_edge"] == at_an_edge
    assert [row["exponent"] for row in record["tried"]] == sorted(tried)


def test_where_no_rate_is_robust_the_clean_accuracy_decides(landscape):
    _, record = landscape(lambda e: e - 12)  # robust 24.5 to 29.5 of 100, where one of four classes is 25
    assert record["tried"][0]["exponent"] == -3.5 and record["rate"] == pytest.approx(1e-3 * 3**-3.5, rel=5e-3)
    assert record["at_an_edge"]


def test_the_control_is_chosen_by_its_clean_accuracy(landscape):
    _, record = landscape(lambda e: 10 + e, loss="clean")
    assert record["tried"][0]["exponent"] == -3.5 and record["rate"] == pytest.approx(1e-3 * 3**-3.5, rel=5e-3)


# running it

def _slow(marks, name):
    (marks / name).touch()
    time.sleep(.2)
    if name == "0":
        raise ZsarError("broken")


def test_one_failure_ends_the_grid(tmp_path):
    """Jobs that have not begun are not begun: a grid of hours must not go on behind an error, or a Ctrl-C."""
    with pytest.raises(ZsarError, match="broken"), ProcessPoolExecutor(1, get_context("spawn")) as pool:
        grid.finish([pool.submit(_slow, tmp_path, str(i)) for i in range(8)])
    assert len(list(tmp_path.iterdir())) < 6


@pytest.fixture
def miniature(monkeypatch, tiny_clip):
    """The whole grid on the tiny CLIP: two cells, three steps, a dozen pictures of two tasks."""
    cells = [Cell("tecoa", "finetune", 0, train_images=12, training_steps=3),
             Cell("adv", "pad", 0, train_images=12, training_steps=3)]
    monkeypatch.setattr(grid, "TIERS", {"core": cells, "extended": cells})
    monkeypatch.setattr(grid, "CORE", cells)
    monkeypatch.setattr(grid, "CURVE", (1, 2))
    monkeypatch.setattr(grid, "RATE_STEPS", 2)
    monkeypatch.setitem(MICRO_BATCH, "cpu", 8)
    monkeypatch.setitem(grid.ATTACK, "steps", 2)
    monkeypatch.setattr(grid, "get_profile", lambda name: SimpleNamespace(datasets=("DrawnImageNet", "DrawnDTD")))
    monkeypatch.setattr(grid, "_original", lambda device: tiny_clip)
    monkeypatch.setattr(grid, "source_images", lambda kind, images: made_up(24).hold_out(8))

    def load(name, split="test"):
        found = made_up(8, split=split)
        found.name = name
        return found

    monkeypatch.setattr(grid, "load_dataset", load)
    recipe = Cell.recipe
    monkeypatch.setattr(Cell, "recipe", lambda self, rate=None: replace(recipe(self, rate), batch=4, pad=2))

    class Here:
        """A pool that works at once, in this process."""

        def __init__(self, *args):
            pass

        def __enter__(self):
            return self

        def __exit__(self, *args):
            pass

        def submit(self, run, *job):
            jobs.append((job[0].__name__, *[cell.name for cell in job if isinstance(cell, Cell)]))
            job[0](*job[1:])
            return SimpleNamespace(result=lambda: None)

    jobs = []
    monkeypatch.setattr(grid, "ProcessPoolExecutor", Here)
    monkeypatch.setattr(grid, "as_completed", list)
    return jobs


def run(out, *words):
    parser = argparse.ArgumentParser()
    grid.add_arguments(parser)
    return grid.run(parser.parse_args(["--out", str(out), *words]))


def test_a_miniature_from_end_to_end_and_again(miniature, tmp_path, monkeypatch):
    said = run(tmp_path)
    first, second = (cell.name for cell in grid.CORE)
    assert [job[0] for job in miniature] == ["run_references", "run_cell", "run_cell"]
    assert str(tmp_path / "drawn-grid.csv") in said
    table = grid.table(tmp_path)
    wanted = ["loss", "method", "seed", "dataset", "source", "images", "clean", "robust", "attack", "steps", "eps_255",
              "lr", "training_steps"]
    assert [name for name in table if name in wanted] == wanted
    # Two cells, the original at three radii and the constant predictor, on two tasks each.
    assert len(table) == 2 * (2 + 3 + 1) and table[["clean", "robust"]].to_numpy().min() >= 0
    assert set(table[table.source].dataset) == {"DrawnImageNet"} and (table.images == 8).all()
    cell = json.loads((tmp_path / grid.NAME / f"{first}.json").read_text())
    assert [look["step"] for look in cell["curve"]] == [1, 2] and len(cell["losses"]) == 3
    assert "attacked_rows" in cell["curve"][1] and cell["curve"][1]["attacked_rows"][0]["images"] == 8
    assert cell["rate"] == json.loads((tmp_path / grid.NAME / "rates_tecoa_finetune.json").read_text())["rate"]
    written = json.loads((tmp_path / "drawn-grid.provenance.json").read_text())
    assert written["missing_of_core"] == [] and "Source: DrawnImageNet" in written["protocol"]

    miniature.clear()
    run(tmp_path)
    assert miniature == []
    (tmp_path / grid.NAME / f"{second}.json").unlink()
    monkeypatch.setattr(Trainer, "run", lambda self: (_ for _ in ()).throw(DivergenceError("the loss is nan")))
    run(tmp_path)
    assert miniature == [("run_cell", second)]  # only what is missing; a divergence is a result, not an end
    assert json.loads((tmp_path / grid.NAME / f"{second}.json").read_text())["diverged"] == "the loss is nan"
    assert len(grid.table(tmp_path)) == 2 * (1 + 3 + 1)


def test_bad_input(tmp_path):
    with pytest.raises(UnknownNameError, match="unknown tier 'cor': expected one of core, extended"):
        run(tmp_path, "--tier", "cor")
    with pytest.raises(ZsarError, match="--workers 0: expected at least 1"):
        run(tmp_path, "--workers", "0")
