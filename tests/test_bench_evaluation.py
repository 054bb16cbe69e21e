"""bench-evaluate: what it reports is what it did."""

import argparse
import json

import numpy as np
import pytest
from PIL import Image

from zsar.bench import evaluation
from zsar.bench.timing import image_flops
from zsar.errors import AttackSettingsError, DatasetError, ZsarError


def run(*words: str) -> str:
    parser = argparse.ArgumentParser()
    evaluation.add_arguments(parser)
    return evaluation.run(parser.parse_args(words))


@pytest.fixture
def tiny(monkeypatch, tiny_clip):
    monkeypatch.setattr(evaluation, "load_clip", lambda *args, **kwargs: tiny_clip)
    monkeypatch.setattr(evaluation, "matrix_rate", lambda device: 1e12)


def test_its_figures_agree_with_each_other(tiny, tmp_path):
    for kind in ("cat", "dog"):
        (tmp_path / "photos" / kind).mkdir(parents=True)
        for i in range(3):
            Image.fromarray(np.full((300, 260, 3), 40 * i, np.uint8)).save(tmp_path / "photos" / kind / f"{i}.png")
    text = run("--attack", "pgd-3@2", "--images", "50", "--classes", "3", "--photos", str(tmp_path / "photos"),
               "--workers", "0,1", "--json", str(tmp_path / "out.json"))
    found = json.loads((tmp_path / "out.json").read_text())
    assert found["passes"] == 4 * 60 and found["images"] == 50  # three micro-batches of twenty, three steps and a look
    assert found["images_x_steps_per_second"] == pytest.approx(150 / found["seconds"])
    assert 0 < found["attack_seconds"] <= found["seconds"]
    assert found["share_of_matrix_rate"] == pytest.approx(
        found["images_x_steps_per_second"] * 2 * found["flops_per_image"] / found["matrix_flops_per_second"])
    assert [(row["from"], row["workers"], row["images"]) for row in found["feeding"]] == [
        ("files", 0, 6), ("files", 1, 6), ("packed", 0, 6), ("packed", 1, 6)]
    assert "images x steps a second" in text and {"device", "commit"} <= found["provenance"].keys()


def test_operations_of_an_image_by_hand(tiny_clip):
    layers, width, tokens, size = 2, 32, 5, 16
    block = 2 * tokens * 12 * width**2  # without the products inside attention
    patches = 2 * (tokens - 1) * 3 * 8 * 8 * width
    assert image_flops(tiny_clip, size) == layers * block + patches + 2 * width * 16


@pytest.mark.parametrize(("words", "error"), [
    (["--images", "1"], ZsarError), (["--classes", "0"], ZsarError), (["--attack", "none"], ZsarError),
    (["--attack", "pdg"], ZsarError), (["--attack", "pgd-0"], AttackSettingsError), (["--workers", "x"], ZsarError),
    (["--photos", "./nowhere"], DatasetError)])
def test_bad_words(words, error, tiny):
    with pytest.raises(error):
        run(*words)
