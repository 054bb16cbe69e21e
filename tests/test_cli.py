"""The commands as a shell sees them: exit status, standard output, one line of error."""

import os
import subprocess
import sys

import numpy as np
import pytest
import torch
from PIL import Image

from zsar import __main__ as cli
from zsar import photo
from zsar.paths import data_path
from zsar.tokenizer import WordTokenizer


@pytest.fixture
def path(tmp_path):
    pixels = np.random.RandomState(0).randint(0, 256, (30, 40, 3), dtype=np.uint8)
    Image.fromarray(pixels).resize((80, 60)).save(tmp_path / "photo.png")
    return str(tmp_path / "photo.png")


@pytest.fixture(scope="module")
def names() -> str:
    """Two words that the drawn CLIP knows, whatever its vocabulary."""
    return ",".join(WordTokenizer.from_file(data_path("drawn", "vocabulary.txt")).words[-2:])


def error_of(capsys, *words: str) -> str:
    """The one line on standard error of a command that must end with status 2."""
    assert cli.main(words) == 2
    captured = capsys.readouterr()
    assert captured.out == "" and captured.err.startswith("zsar: error: ") and captured.err.count("\n") == 1
    return captured.err


def test_an_attack_on_a_photograph(path, names, drawn_weights, tmp_path, capsys):
    out = tmp_path / "out"
    assert cli.main(["attack", path, "--classes", names, "--pretrained", str(drawn_weights), "--out", str(out),
                     "--eps", "40", "--steps", "10"]) == 0
    captured = capsys.readouterr()
    assert {file.name for file in out.iterdir()} == {"photo-adversarial.png", "photo-attack.png", "photo-attack.json"}
    assert "80 x 60 pixels, attacked at its own resolution" in captured.out
    assert "\nsuccess: " in captured.out or "\nno success: " in captured.out
    assert "does not know photographs" in captured.out


def test_an_unchanged_label_is_no_failure(path, names, drawn_weights, tmp_path, capsys):
    assert cli.main(["attack", path, "--classes", names, "--pretrained", str(drawn_weights), "--out", str(tmp_path),
                     "--eps", "0"]) == 0
    assert "the attack did not change the label" in capsys.readouterr().out


@pytest.mark.parametrize(("words", "message"), [
    (["--classes", ""], "--classes is empty"), (["--classes", " , ,"], "no class names"),
    (["--classes", "cat"], "only one class name"), (["--classes", "cat,CAT"], "duplicate"),
    (["--eps", "-1"], "eps = -1"), (["--eps", "256"], "eps = 256"), (["--eps", "four"], "invalid float value: 'four'"),
    (["--eps", "nan"], "eps = nan"), (["--eps", "inf"], "eps = inf"), (["--classes", "cat!,cat"], "the same to this"),
    (["--classes", "\u732b,\u72ac"], "does not know"), (["--pretrained", "openai"], "brings its own"),
    (["--pretrained", "x" * 300 + ".pt"], "cannot read the weights file"), (["--device", "meta"], "device 'meta'"),
    (["--steps", "0"], "steps = 0"), (["--target", "horse"], "unknown target 'horse'"),
    (["--template", "a photo"], "exactly one {}"), (["--model", "ViT-B-33"], "unknown model 'ViT-B-33'"),
    (["--model", "ViT-B-32", "--pretrained", "openai"], "ViT-B-32-quickgelu"),
    (["--model", "ViT-B-32"], "needs weights"), (["--pretrained", "none.safetensors"], "missing weights file none"),
    (["--pretrained", "none.pt"], "missing weights file none"), (["--device", "gpu"], "device 'gpu'")])
def test_bad_input_of_attack(words, message, path, tmp_path, capsys):
    assert message in error_of(capsys, "attack", path, "--classes", "cat,dog", "--out", str(tmp_path), *words)


def test_a_word_that_the_drawn_clip_lacks(path, drawn_weights, tmp_path, capsys):
    line = error_of(capsys, "attack", path, "--classes", "photoo,zzzz", "--pretrained", str(drawn_weights),
                    "--out", str(tmp_path))
    assert "'photoo'" in line and "nearest: photo" in line


def test_photographs_that_are_none(tmp_path, capsys):
    (tmp_path / "notes.jpg").write_text("words, and more words")
    assert "no photograph at" in error_of(capsys, "attack", str(tmp_path / "none.jpg"), "--classes", "cat,dog")
    assert "cannot read" in error_of(capsys, "attack", str(tmp_path / "notes.jpg"), "--classes", "cat,dog",
                                     "--out", str(tmp_path))


@pytest.mark.parametrize(("words", "message"), [
    (["--seed", "-1"], "--seed -1"), (["--images", "0"], "--images 0"), (["--datasets", "DrawnDTT"], "DrawnDTD"),
    (["--attack", "fgsm", "--steps", "7"], "--steps has no meaning"),
    (["--attack", "none", "--eps", "3"], "--eps has no meaning"), (["--attack", "pdg"], "unknown attack 'pdg'"),
    (["--profile", "draw"], "unknown profile 'draw'")])
def test_bad_input_of_evaluate(words, message, capsys):
    assert message in error_of(capsys, "evaluate", *words)


@pytest.mark.parametrize(("words", "message"), [
    (["--images", "10"], "less than one --batch"), (["--seed", "-1"], "--seed -1"), (["--batch", "0"], "--batch 0"),
    (["--batch", "9"], "does not divide"), ([], "cannot read the checkpoint")])
def test_bad_input_of_pretraining(words, message, tmp_path, capsys):
    (tmp_path / "pretraining.pt").write_bytes(b"half a file")
    assert message in error_of(capsys, "pretrain-drawn", "--out", str(tmp_path), *words)


def test_a_path_that_no_file_can_have(capsys):
    assert "cannot read" in error_of(capsys, "attack", "x" * 300, "--classes", "cat,dog")


@pytest.mark.parametrize("command", ["attack", "evaluate"])
def test_an_output_folder_that_cannot_be_written(command, path, tmp_path, capsys):
    words = {"attack": [path, "--classes", "cat,dog", "--out", path],
             "evaluate": ["--json", os.path.join(path, "out.json")]}[command]
    assert "cannot write into the folder" in error_of(capsys, command, *words)


@pytest.mark.skipif(os.name != "posix" or os.geteuid() == 0, reason="the superuser may write anywhere")
def test_a_folder_without_permission(path, tmp_path, capsys):
    (tmp_path / "locked").mkdir(mode=0o500)
    assert "Permission denied" in error_of(capsys, "attack", path, "--classes", "cat,dog",
                                           "--out", str(tmp_path / "locked"))


@pytest.mark.parametrize("words", [[], ["atack"], ["attack"], ["attack", "photo.png"], ["evaluate", "--stepz", "3"]])
def test_a_wrong_command_line(words, capsys):
    assert "--help" in error_of(capsys, *words)


def test_an_interruption_is_one_line(path, monkeypatch, capsys):
    def interrupt(args):
        raise KeyboardInterrupt

    monkeypatch.setattr(photo, "run", interrupt)
    assert cli.main(["attack", path, "--classes", "cat,dog"]) == 130
    assert capsys.readouterr().err == "zsar: interrupted\n"


def test_the_real_process_has_no_traceback(tmp_path):
    torch.save([1], tmp_path / "foreign.pt")
    Image.new("RGB", (20, 20)).save(tmp_path / "photo.png")
    done = subprocess.run([sys.executable, "-m", "zsar", "attack", str(tmp_path / "photo.png"), "--classes", "cat,dog",
                           "--pretrained", str(tmp_path / "foreign.pt"), "--out", str(tmp_path)],
                          capture_output=True, text=True, cwd=data_path().parent, timeout=120)
    assert done.returncode == 2 and done.stdout == "" and done.stderr.count("\n") == 1
    assert done.stderr.startswith("zsar: error: no weights in ")
