"""zsar reproduce: what it plans, measures, refuses, and survives."""

import argparse
import copy
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import asdict
from pathlib import Path

import pytest
from made_up import made_up
from open_clip.transformer import QuickGELU

from zsar import __main__ as cli
from zsar import reproduce
from zsar.cells import Subject, model_digest, task_of
from zsar.errors import (
    AdaptationError,
    AttackSettingsError,
    DatasetError,
    DivergenceError,
    StoreError,
    UnknownNameError,
    ZsarError,
)
from zsar.methods import load_adapted, save_adapted
from zsar.reproduce import engine, models, parse_method, plan
from zsar.results import Cell, Store
from zsar.trainer import ADAPTED

DATASETS = ("DrawnCIFAR10", "DrawnPCAM")
SMALL = ("--methods", "clip,tecoa:finetune,tecoa:finetune@0.5", "--training-steps", "2", "--attacks", "none,pgd-2",
         "--images", "20")


def parse(*words: str) -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    reproduce.add_arguments(parser)
    return parser.parse_args(words)


def run(*words: str) -> str:
    return reproduce.run(parse(*words))


def named(name: str):
    dataset = made_up(30, split="test")
    dataset.name = name
    return dataset


@pytest.fixture
def world(monkeypatch, tiny_clip):
    """The command line on the tiny CLIP and made-up pictures of two tasks."""
    monkeypatch.setattr(reproduce, "load_clip", lambda *args, **kwargs: tiny_clip)
    monkeypatch.setattr(plan, "load_all", lambda names, *rest: ([named(name) for name in names if name != "DrawnDTD"],
                                                                [name for name in names if name == "DrawnDTD"]))
    for module in (models, engine):
        monkeypatch.setattr(module, "training_images", lambda *args: (made_up(80), made_up(20)))


# words

def test_methods_in_words():
    assert parse_method("clip").adaptation == "none"
    method = parse_method("adv:pad+token")
    assert (method.loss, method.method, method.weight, method.adaptation) == ("adv", "pad+token", 1, "adv:pad+token")
    assert parse_method("tecoa:finetune@0.5").weight == .5
    assert parse_method("adv-slow:blocks-2").method == "blocks-2"


@pytest.mark.parametrize(("word", "error", "message"), [
    ("tecoa", UnknownNameError, "unknown method 'tecoa': did you mean .*tecoa:finetune"),
    ("teco:finetune", UnknownNameError, "unknown loss 'teco': did you mean .*tecoa"),
    ("tecoa:finetun", UnknownNameError, "unknown method 'finetun': did you mean"),
    ("tecoa:pad@0.5", AdaptationError, "expected LOSS:finetune@WEIGHT"),
    ("tecoa:finetune@1.5", AdaptationError, "at most 1"),
    ("tecoa:finetune@0", AdaptationError, "above 0"),
    ("mine=nowhere.pt", AdaptationError, "expected NAME=FILE"),
    ("clip=nowhere.pt", AdaptationError, "expected NAME=FILE"),
])
def test_methods_that_are_none(word, error, message):
    with pytest.raises(error, match=message):
        parse_method(word)


@pytest.mark.parametrize(("words", "error", "message"), [
    (["--datasets", "CIFAR11"], UnknownNameError, "unknown dataset"),
    (["--attacks", "pdg-20"], UnknownNameError, "unknown attack 'pdg'"),
    (["--attacks", "pgd-20@999"], AttackSettingsError, "grey levels from 0 to 255"),
    (["--attacks", ","], ZsarError, "--attacks ','.*expected names"),
    (["--methods", ""], ZsarError, "--methods ''.*expected names"),
    (["--seeds", "1,x"], ZsarError, "--seeds x: expected whole numbers"),
    (["--seeds", "-1"], ZsarError, "--seeds"),
    (["--images", "0"], ZsarError, "--images 0: expected at least 1"),
    (["--training-steps", "0"], ZsarError, "--training-steps 0: expected at least 1"),
    (["--workers", "-1"], ZsarError, "--workers -1"),
    (["--precision", "fp16"], UnknownNameError, "unknown precision 'fp16'"),
    (["--profile", "fulll"], UnknownNameError, "unknown profile"),
    (["--profile", "full", "--fresh"], ZsarError, "--fresh has no meaning with the profile full"),
])
def test_bad_words_are_refused_before_anything_is_written(words, error, message, world, tmp_path):
    with pytest.raises(error, match=message):
        run(*words, "--out", str(tmp_path / "out"))
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(("words", "cells"), [
    (["--attacks", "pgd-2,pgd-2@4:1"], 1), (["--seeds", "0,00", "--attacks", "none"], 1),
    (["--methods", "tecoa:finetune@1,tecoa:finetune,tecoa:finetune@.50", "--attacks", "none"], 2)])
def test_what_is_said_twice_is_meant_once(words, cells, world, tmp_path):
    given = dict(zip(words[::2], words[1::2], strict=True))
    words = ["--methods", "clip"] * ("--methods" not in given) + words
    assert f": {cells:,} cells, 0 done" in run(*words, "--datasets", "DrawnPCAM", "--dry-run", "--out", str(tmp_path))


def test_two_files_of_one_name_are_refused(world, tmp_path):
    for name in "xy":
        (tmp_path / name).write_text("")
    with pytest.raises(AdaptationError, match="two files are called 'a'"):
        run("--methods", f"a={tmp_path / 'x'},a={tmp_path / 'y'}", "--out", str(tmp_path / "out"))


def test_what_cannot_be_trained_is_said_before_anything_is_evaluated(world, tmp_path):
    with pytest.raises(AdaptationError, match="has 2 blocks"):
        run("--methods", "clip,tecoa:blocks-9", *SMALL[2:], "--datasets", "DrawnPCAM", "--out", str(tmp_path))
    assert not Store(tmp_path).headers()


def test_preprocessing_and_activation_are_part_of_a_model(tiny_clip):
    others = []
    for change in (lambda clip: clip.mean.add_(.1), lambda clip: setattr(clip, "squash", True),
                   lambda clip: setattr(clip.model.visual.transformer.resblocks[0].mlp, "gelu", QuickGELU())):
        others.append(copy.deepcopy(tiny_clip))
        change(others[-1])
    assert len({model_digest(clip) for clip in (tiny_clip, *others)}) == 4
    assert model_digest(tiny_clip) == tiny_clip.digest == others[0].digest


def test_the_source_is_listed_once(monkeypatch):
    listed = []
    monkeypatch.setattr(plan, "load_all", lambda names, *rest: (list(map(named, names)), []))
    monkeypatch.setattr(plan, "load_dataset", lambda *what: listed.append(what) or made_up(1100))
    whole = plan.make_plan(parse("--profile", "full", "--datasets", "CIFAR10", "--root", "here"))
    for method, seed in whole.adaptations:
        train, held_out = models.training_images(whole, whole.recipe(method, seed))
        assert (len(train), len(held_out)) == (100, 1000)
    assert listed == [("ImageNet", "train", "here", "tecoa16")] and len(whole.adaptations) > 1


def test_what_was_trained_afresh_comes_before_what_was_shipped(world, tiny_clip, tmp_path, monkeypatch):
    monkeypatch.setattr(models, "adapted_header", lambda path: {"settings": shipped} if path.exists() else None)
    whole, afresh = (plan.make_plan(parse("--methods", "tecoa:finetune", *words)) for words in ([], ["--fresh"]))
    (method, seed), = whole.adaptations
    shipped = asdict(whole.recipe(method, seed)) | {"original": tiny_clip.digest}
    ours, = {models.adapted_folder(one, tiny_clip, method, seed, tmp_path) for one in (whole, afresh)}
    found = models.find_adapted(whole, tiny_clip, method, seed, tmp_path)
    assert found.parent.name == "adapted" and tmp_path not in found.parents
    assert models.find_adapted(afresh, tiny_clip, method, seed, tmp_path) is None
    ours.mkdir(parents=True)
    (ours / ADAPTED).write_bytes(b"")
    for one in (whole, afresh):
        assert models.find_adapted(one, tiny_clip, method, seed, tmp_path) == ours / ADAPTED


# a run

def test_the_table_and_its_rows(world, tmp_path):
    file = tmp_path / "rows.json"
    text = run(*SMALL, "--datasets", "DrawnCIFAR10,DrawnPCAM", "--out", str(tmp_path / "out"), "--json", str(file))
    record = json.loads(file.read_text())
    assert len(record["rows"]) == 6
    assert {(row["method"], row["dataset"]) for row in record["rows"]} == {
        (method, dataset) for method in ("clip", "tecoa:finetune", "tecoa:finetune@0.5") for dataset in DATASETS}
    assert all(row["images"] == 20 and 0 <= row["robust"] <= row["clean"] + 30 for row in record["rows"])
    assert record["settings"]["attacks"] == ["none", "pgd-2@4:1"] and record["failed"] == {}
    assert {"device", "torch", "commit"} <= record["provenance"].keys()
    assert "tecoa:finetune@0.5" in text and "DrawnPCAM" in text
    about = [header["about"] for header in Store(tmp_path / "out").headers()
             if header["key"]["adaptation"] == "tecoa:finetune"]
    assert all(found["adaptation"]["loss"] == "tecoa" and found["adaptation"]["steps"] == 2 for found in about)


def test_a_second_run_computes_nothing(world, tmp_path, monkeypatch):
    out = ("--datasets", "DrawnPCAM", "--out", str(tmp_path / "out"))
    first = run(*SMALL, *out)
    monkeypatch.setattr(models, "adapt", lambda *args, **kwargs: pytest.fail("it was trained before"))
    monkeypatch.setattr("zsar.cells.batches", lambda *args, **kwargs: pytest.fail("it was evaluated before"))
    assert run(*SMALL, *out) == first
    assert "6 cells, 6 done" in run(*SMALL, *out, "--dry-run")


def test_attacks_without_a_step_size_fill_tables_and_reports(world, tmp_path, capsys):
    text = run(*SMALL[:4], "--attacks", "none,apgd-ce-5,apgd-ce-5@8,square-20", "--images", "20", "--datasets",
               "DrawnPCAM", "--out", str(tmp_path))
    assert "APGD-CE, 5 steps, L_inf, eps 4/255" in text and "Square, 20 queries, L_inf, eps 4/255" in text
    assert len(Store(tmp_path).headers()) == 3 * 4
    assert cli.main(["results", "show", str(tmp_path), "--attack", "square-20@4"]) == 0
    rows = capsys.readouterr().out.splitlines()[1:]
    assert [row.split()[:3] for row in rows] == [[name, "DrawnPCAM", "square-20@4"] for name in (
        "clip", "tecoa:finetune", "tecoa:finetune@0.5")]


@pytest.mark.filterwarnings("ignore:precision bf16")
def test_a_precision_has_cells_of_its_own(world, tmp_path):
    words = ("--methods", "clip", "--attacks", "none,pgd-2", "--images", "20", "--datasets", "DrawnPCAM", "--out",
             str(tmp_path))
    run(*words, "--precision", "bf16", "--json", str(tmp_path / "rows.json"))
    assert {header["key"]["precision"] for header in Store(tmp_path).headers()} == {"bf16"}
    record = json.loads((tmp_path / "rows.json").read_text())["settings"]
    assert (record["precision"], record["compiled"]) == ("bf16", False)
    assert "2 cells, 0 done" in run(*words, "--dry-run")
    run(*words)
    assert len(Store(tmp_path).headers()) == 4
    assert "2 cells, 2 done" in run(*words, "--precision", "bf16", "--dry-run")


def test_a_dry_run_says_what_a_named_device_may_take(world, tmp_path):
    words = (*SMALL, "--datasets", "DrawnPCAM", "--dry-run", "--out", str(tmp_path / "out"))
    assert "NVIDIA T4: about 0.0 minutes in fp32, an estimate" in run(*words, "--estimate", "t4")
    assert "estimate" not in run(*words)
    with pytest.raises(UnknownNameError, match="unknown device 't5'"):
        run(*words, "--estimate", "t5")


def test_a_dry_run_writes_nothing(world, tmp_path):
    text = run(*SMALL, "--datasets", "DrawnCIFAR10,DrawnPCAM,DrawnDTD", "--dry-run", "--out", str(tmp_path / "out"))
    assert "methods 3 x datasets 2 (40 images) x attacks 2 x seeds 1: 12 cells, 0 done" in text
    assert "to train: tecoa:finetune (seed 0)" in text and "left out: DrawnDTD" in text
    assert f"at most {3 * 40 * (1 + 2)} image-steps" in text
    assert not (tmp_path / "out").exists()


def test_more_asked_for_adds_to_what_is_there(world, tmp_path):
    out = ("--out", str(tmp_path / "out"))
    run("--methods", "clip", "--attacks", "none", "--images", "20", "--datasets", "DrawnPCAM", *out)
    text = run(*SMALL, "--datasets", "DrawnCIFAR10,DrawnPCAM", *out, "--dry-run")
    assert "12 cells, 1 done" in text
    run("--methods", "clip", "--attacks", "none,pgd-2,pgd-2@8", "--seeds", "0,1", "--images", "20", *out)
    assert len(Store(tmp_path / "out").headers()) == 2 * 15 * 3


def test_the_test_images_are_the_same_for_every_seed(world, tmp_path):
    run("--methods", "clip", "--attacks", "none", "--images", "7", "--datasets", "DrawnPCAM", "--seeds", "0,5", "--out",
        str(tmp_path))
    assert len({header["key"]["task"] for header in Store(tmp_path).headers()}) == 1


def test_missing_datasets_are_left_out_and_said(world, tmp_path, capsys):
    file = tmp_path / "rows.json"
    run("--methods", "clip", "--attacks", "none", "--images", "9", "--datasets", "DrawnPCAM,DrawnDTD", "--out",
        str(tmp_path / "out"), "--json", str(file))
    assert json.loads(file.read_text())["settings"]["missing"] == ["DrawnDTD"]
    assert "left out: DrawnDTD" in capsys.readouterr().err


def test_a_training_that_diverges_does_not_stop_the_others(world, tmp_path, monkeypatch):
    real = models.adapt

    def diverging(*args, **kwargs):
        if kwargs["loss"] == "tecoa":
            raise DivergenceError("the loss tecoa is nan")
        return real(*args, **kwargs)

    monkeypatch.setattr(models, "adapt", diverging)
    file = tmp_path / "rows.json"
    with pytest.raises(ZsarError, match="4 of 12 cells are missing; tecoa:finetune, seed 0: the loss tecoa is nan"):
        run("--methods", "tecoa:finetune,clip,adv:finetune", *SMALL[2:], "--datasets", ",".join(DATASETS), "--out",
            str(tmp_path), "--json", str(file))
    assert len(Store(tmp_path).headers()) == 8
    assert json.loads(file.read_text())["failed"] == {"tecoa:finetune, seed 0": "the loss tecoa is nan"}


def test_nothing_to_train_on_is_said_before_anything_is_evaluated(world, tmp_path, monkeypatch):
    def missing(*args):
        raise DatasetError("ImageNet: there is no train/")

    monkeypatch.setattr(engine, "training_images", missing)
    with pytest.raises(DatasetError, match="there is no train"):
        run(*SMALL, "--datasets", "DrawnPCAM", "--out", str(tmp_path))
    assert not Store(tmp_path).headers()
    run("--methods", "clip", *SMALL[2:], "--datasets", "DrawnPCAM", "--out", str(tmp_path))


def test_a_file_of_adapted_weights_is_a_row(world, tiny_clip, tmp_path):
    run(*SMALL, "--datasets", "DrawnPCAM", "--out", str(tmp_path / "out"))
    trained, = (tmp_path / "out" / "adapted").glob(f"*/{ADAPTED}")
    run("--methods", f"theirs={trained}", *SMALL[2:], "--datasets", "DrawnPCAM", "--out", str(tmp_path / "out"))
    cells = {(header["key"]["adaptation"], header["key"]["attack"]): header["hits"]
             for header in Store(tmp_path / "out").headers()}
    for attack in ("none", "pgd-2@4:1"):
        assert cells["theirs", attack] == cells["tecoa:finetune", attack]


def test_a_damaged_cell_is_computed_again_and_said(world, tmp_path):
    words = ("--methods", "clip", *SMALL[2:], "--datasets", "DrawnPCAM", "--out", str(tmp_path))
    text = run(*words)
    path, *_ = tmp_path.glob("cells/*/*.json")
    path.write_bytes(path.read_bytes()[:-5])
    with pytest.warns(UserWarning, match="damaged.*computed again"):
        assert run(*words) == text


def test_a_store_of_a_later_release_is_refused(world, tmp_path, monkeypatch):
    words = ("--methods", "clip", *SMALL[2:], "--datasets", "DrawnPCAM", "--out", str(tmp_path))
    with monkeypatch.context() as later:
        later.setattr("zsar.results.sealed.FORMAT", 9)
        run(*words, "--dry-run")
        store, = [Store(tmp_path)]
        dataset = named("DrawnPCAM").subset(20)
        store.add_task(task_of(dataset))
        original = reproduce.load_clip()
        key = Subject(original, original.digest, "none", 0, {}).key(task_of(dataset), {"attack": "none"})
        store.write(Cell(key, dataset.labels.numpy(), {}))
    with pytest.raises(StoreError, match="format 9, this release reads up to 1"):
        run(*words)


def test_half_precision_files_are_read_as_single(tiny_clip, tmp_path):
    save_adapted(tmp_path / "half.safetensors", tiny_clip, tiny_clip, "finetune", half=True)
    save_adapted(tmp_path / "full.safetensors", tiny_clip, tiny_clip, "finetune")
    half, full = (load_adapted(tmp_path / f"{name}.safetensors", tiny_clip) for name in ("half", "full"))
    assert full.digest == tiny_clip.digest
    for name, value in half.model.visual.state_dict().items():
        assert value.dtype == tiny_clip.model.visual.state_dict()[name].dtype
        assert (value - tiny_clip.model.visual.state_dict()[name]).abs().max() < 1e-3
    assert (tmp_path / "half.safetensors").stat().st_size < .6 * (tmp_path / "full.safetensors").stat().st_size


# killed

COMMAND = ("--methods", "clip,tecoa:finetune", "--datasets", "DrawnCIFAR10,DrawnPCAM,DrawnEuroSAT", "--images", "40",
           "--attacks", "none,pgd-3", "--training-steps", "4")


def start(out: Path) -> subprocess.Popen:
    return subprocess.Popen([sys.executable, "-m", "zsar", "reproduce", *COMMAND, "--out", str(out)],
                            stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def contents(out: Path) -> dict[str, object]:
    """Everything that a run leaves, but what says how long it took and where."""
    found: dict[str, object] = {}
    for path in sorted(path for path in out.rglob("*") if path.is_file()):
        name = str(path.relative_to(out))
        if name.startswith("cells"):
            header, answers, _ = path.read_text().splitlines()
            found[name] = {**json.loads(header), "run": None}, answers
        elif name.startswith("tasks") or name.endswith(ADAPTED):
            found[name] = path.read_bytes()
    return found


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory) -> dict[str, object]:
    """What a run leaves that nobody disturbs."""
    out = tmp_path_factory.mktemp("whole")
    assert cli.main(["reproduce", *COMMAND, "--out", str(out)]) == 0
    return contents(out)


def kill(process: subprocess.Popen, out: Path, seconds: float) -> bool:
    """Kill a run so long after it has written a file; False if it was done before."""
    def files() -> int:
        return sum(len(names) for _, _, names in os.walk(out))  # passes over a folder that vanishes meanwhile

    before = files()
    while files() <= before and process.poll() is None:
        time.sleep(.02)
    try:
        process.wait(seconds)
    except subprocess.TimeoutExpired:
        process.kill()
    return process.wait() == -signal.SIGKILL


@pytest.mark.parametrize("kills", [1, pytest.param(30, marks=pytest.mark.long)])
def test_a_run_that_is_killed_ends_with_the_store_of_one_that_was_not(kills, undisturbed, tmp_path):
    """Killed, and started again in the same folder, until it is done; then anew, until it was killed often enough."""
    out, killed, delay = tmp_path / "killed", 0, random.Random(kills)
    while killed < kills or out.exists():
        if killed == kills:
            assert cli.main(["reproduce", *COMMAND, "--out", str(out)]) == 0
        elif kill(process := start(out), out, delay.uniform(0, 3)):
            killed += 1
            continue
        else:
            assert process.returncode == 0, process.stderr.read()
        assert contents(out) == undisturbed and not list((out / "units").glob("*/*"))
        shutil.rmtree(out)


@pytest.mark.long  # the chapter on scaling out has two ranks on one store, each time
def test_two_processes_on_one_store(undisturbed, tmp_path):
    both = [start(tmp_path / "both") for _ in range(2)]
    for process in both:
        assert process.wait() == 0, process.stderr.read()
    assert contents(tmp_path / "both") == undisturbed


# many ranks

def cells_of(found: dict[str, object], adaptation: str) -> dict[str, object]:
    return {name: value for name, value in found.items() if Path(name).name.startswith(f"{adaptation}_")}


def children(process: int) -> list[int]:
    return [int(word) for word in Path(f"/proc/{process}/task/{process}/children").read_text().split()]


@pytest.mark.long  # two ranks, of which one dies, are each time what the chapter on scaling out shows
@pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="finds the ranks in /proc")
@pytest.mark.parametrize("ranks", [2, 3])
def test_ranks_of_which_one_dies_answer_as_one_process_does(ranks, undisturbed, tmp_path):
    launch = [sys.executable, "-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={ranks}",
              "--max-restarts=1", "-m", "zsar", "reproduce", "--methods", "clip", *COMMAND[2:], "--out", str(tmp_path)]
    with subprocess.Popen(launch, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as process:
        while process.poll() is None and not list(tmp_path.glob("units/*/*.json")):
            time.sleep(.02)
        os.kill(children(process.pid)[-1], signal.SIGKILL)
        text = process.communicate()[0]
    assert process.returncode == 0, text
    assert "exitcode: -9" in text, text  # torchrun reports it
    assert cells_of(contents(tmp_path), "none") == cells_of(undisturbed, "none")
