import argparse
import json

import numpy as np
import pytest
import torch
from PIL import Image
from real_fixtures import build

from zsar import datasets, evaluate
from zsar.attacks import MICRO_BATCH, attack_from_settings, cross_entropy, image_seeds, pgd
from zsar.clip import ZeroShotClassifier
from zsar.datasets import ImageDataset
from zsar.datasets.manifest import get_manifest
from zsar.errors import (
    AttackSettingsError,
    ClassNamesError,
    DatasetError,
    OutputError,
    UnknownNameError,
    UnreadableImageError,
    ZsarError,
)
from zsar.profiles import PROFILES, SIXTEEN, get_profile

NAMES = ["cat", "dog", "car", "frog"]


def fake(name: str, n: int = 13) -> ImageDataset:
    """n random pictures with random labels, always the same for a name."""
    random = np.random.RandomState(len(name))
    pixels = random.randint(0, 256, (n, 3, 20, 20), dtype=np.uint8)
    labels = torch.from_numpy(random.randint(0, 4, n))
    return ImageDataset(name, "test", NAMES, ["a photo of a {}"], labels, [f"{name}/{i}" for i in range(n)],
                        lambda rows: pixels[rows])


@pytest.fixture
def world(monkeypatch, tiny_clip):
    """The command line on the tiny CLIP and made-up pictures."""
    monkeypatch.setattr(datasets, "load_dataset", lambda name, **where: fake(name))
    monkeypatch.setattr(evaluate.command, "load_clip", lambda *args, **kwargs: tiny_clip)


def run(*words: str) -> str:
    parser = argparse.ArgumentParser()
    evaluate.add_arguments(parser)
    return evaluate.run(parser.parse_args(words))


def test_the_rows_are_what_a_plain_loop_counts(tiny_clip):
    dataset = fake("DrawnDTD", 50)
    classifier = ZeroShotClassifier(tiny_clip, NAMES, ["a photo of a {}"])
    images, labels = dataset.stack()
    attacked = pgd(cross_entropy(classifier, labels), images, eps=8 / 255, alpha=2 / 255, steps=4,
                   seeds=image_seeds(dataset.ids, 3))
    attack = attack_from_settings({"attack": "pgd", "eps_255": 8, "alpha_255": 2, "steps": 4})
    row = evaluate.evaluate_dataset(tiny_clip, dataset, attack, seed=3)
    for kind, pictures in (("clean", images), ("robust", attacked)):
        hits = int((classifier(pictures).argmax(1) == labels).sum())
        assert row[f"{kind}_hits"] == hits and row[kind] == 100 * hits / 50
        low, high = row[f"{kind}_interval"]
        assert low <= row[kind] <= high
    assert row["images"] == 50 and row["classes"] == 4 and row["dataset"] == "DrawnDTD"
    assert row["layout"] == "unknown"  # made up, and it does not say


def test_correctness_is_invariant_to_the_micro_batch(classifier, images, labels):
    whole = evaluate.correct(classifier, images, labels)
    assert whole.dtype == torch.bool
    assert all(torch.equal(whole, evaluate.correct(classifier, images, labels, size)) for size in (1, 3, 8))


@pytest.mark.parametrize("micro_batch", [7, 16])
def test_the_counts_do_not_depend_on_the_micro_batch(micro_batch, tiny_clip, monkeypatch):
    attack = attack_from_settings({"attack": "pgd", "eps_255": 4, "alpha_255": 1, "steps": 3})
    rows = []
    for size in (40, micro_batch):
        monkeypatch.setitem(MICRO_BATCH, "cpu", size)
        rows.append(evaluate.evaluate_dataset(tiny_clip, fake("DrawnFood101", 33), attack))
    assert [rows[0][key] for key in ("clean_hits", "robust_hits")] == [rows[1][key] for key in
                                                                       ("clean_hits", "robust_hits")]


def test_all_means_the_sixteen_of_the_profile(world, tmp_path):
    out = tmp_path / "new" / "rows.json"
    text = run("--images", "5", "--steps", "2", "--json", str(out))
    record = json.loads(out.read_text())
    assert [row["dataset"] for row in record["rows"]] == [f"Drawn{name}" for name in SIXTEEN]
    assert all(row["images"] == 5 and 0 <= row["robust"] <= 100 for row in record["rows"])
    wanted = {"profile": "drawn", "attack": "pgd", "norm": "linf", "steps": 2, "seed": 0, "images": 5,
              "eps_255": PROFILES["drawn"].eps_255, "alpha_255": PROFILES["drawn"].eps_255 / 4, "iterate": "last"}
    assert wanted.items() <= record["settings"].items()
    assert record["complete"] and len(record["digest"]) == 64
    assert {"device", "torch", "commit", "model"} <= record["provenance"].keys()
    assert {"mean_clean", "mean_robust", "seconds", "images_x_steps_per_second"} <= record["summary"].keys()
    for word in ("DrawnHatefulMemes", "robust %", "mean of 16", "PGD-2", "alpha 1/255", "images x steps per second"):
        assert word in text


def test_the_same_seed_gives_the_same_rows(world, tmp_path):
    rows = []
    for name in ("a", "b"):
        run("--datasets", "DrawnPCAM,DrawnDTD", "--images", "9", "--seed", "1", "--json", str(tmp_path / name))
        rows.append([{key: value for key, value in row.items() if "seconds" not in key}
                     for row in json.loads((tmp_path / name).read_text())["rows"]])
    assert rows[0] == rows[1] and len(rows[0]) == 2


def test_no_attack_has_no_robust_column(world, tmp_path):
    text = run("--attack", "none", "--datasets", "DrawnPCAM", "--json", str(tmp_path / "out"))
    record = json.loads((tmp_path / "out").read_text())
    assert "robust" not in record["rows"][0] and "robust" not in text and "eps_255" not in record["settings"]
    assert record["rows"][0]["images"] == 13  # fewer than asked for: all of them


def test_fgsm_is_one_step_of_eps(world, tmp_path):
    run("--attack", "fgsm", "--eps", "3", "--datasets", "DrawnPCAM", "--json", str(tmp_path / "out"))
    settings = json.loads((tmp_path / "out").read_text())["settings"]
    assert settings["steps"] == 1 and settings["alpha_255"] == 3 and not settings["random_start"]


def test_an_interrupted_run_keeps_what_it_measured(world, tmp_path, monkeypatch):
    plain = evaluate.evaluate_dataset

    def interrupted(clip, dataset, *args, **kwargs):
        if dataset.name == "DrawnDTD":
            raise KeyboardInterrupt
        return plain(clip, dataset, *args, **kwargs)

    monkeypatch.setattr(evaluate.command, "evaluate_dataset", interrupted)
    with pytest.raises(KeyboardInterrupt):
        run("--datasets", "DrawnPCAM,DrawnDTD", "--json", str(tmp_path / "out"))
    record = json.loads((tmp_path / "out").read_text())
    assert [row["dataset"] for row in record["rows"]] == ["DrawnPCAM"] and not record["complete"]
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


@pytest.mark.parametrize(("words", "error", "message"), [
    (["--datasets", "DrawnPCAN"], UnknownNameError, "DrawnPCAM"), (["--datasets", " , "], UnknownNameError, "all, or"),
    (["--attack", "pdg"], UnknownNameError, "attack 'pdg'.*pgd"), (["--profile", "drwan"], UnknownNameError, "drawn"),
    (["--eps", "-1"], AttackSettingsError, "eps = -1"), (["--eps", "256"], AttackSettingsError, "0 to 255"),
    (["--alpha", "nan"], AttackSettingsError, "alpha = nan"), (["--steps", "0"], AttackSettingsError, "steps = 0"),
    (["--images", "0"], ZsarError, "at least 1 test image")])
def test_bad_input(words, error, message, world):
    with pytest.raises(error, match=message):
        run(*words)


def test_the_output_is_tried_before_the_work(world, tmp_path, monkeypatch):
    monkeypatch.setattr(evaluate.command, "load_clip", lambda *args, **kwargs: pytest.fail("work had begun"))
    (tmp_path / "file").write_text("")
    for out in (tmp_path, tmp_path / "file" / "out.json"):
        with pytest.raises(OutputError, match="cannot write"):
            run("--json", str(out))


def test_profiles(monkeypatch):
    monkeypatch.delenv("ZSAR_PROFILE", raising=False)
    assert get_profile().name == "drawn" and len(get_profile().datasets) == 16
    monkeypatch.setenv("ZSAR_PROFILE", "full")
    assert get_profile().model == "ViT-B-32-quickgelu" and get_profile("colab").images == 1000
    with pytest.raises(UnknownNameError, match="profile 'ful'.*full"):
        get_profile("ful")


# images that cannot be read, and images of one's own

def broken(n=13, at=(2, 9)):
    source = fake("DrawnPCAM", n)

    def read(rows):
        if hit := set(at) & set(rows.tolist()):
            raise UnreadableImageError(f"cannot read the image {source.ids[min(hit)]}: truncated")
        return source._read(rows)

    return ImageDataset(source.name, "test", source.classnames, source.templates, source.labels, source.ids, read)


def test_unreadable_images_do_not_count_and_are_named(tiny_clip):
    attack = attack_from_settings({"attack": "pgd", "eps_255": 4, "alpha_255": 1, "steps": 2})
    row = evaluate.evaluate_dataset(tiny_clip, broken(), attack)
    readable = evaluate.evaluate_dataset(tiny_clip, fake("DrawnPCAM").select(np.delete(np.arange(13), [2, 9])), attack)
    for key in ("images", "clean", "robust", "clean_bits", "robust_bits"):
        assert row[key] == readable[key]
    assert row["images"] == 11 and list(row["unreadable"]) == ["DrawnPCAM/2", "DrawnPCAM/9"]
    with pytest.raises(UnreadableImageError, match="DrawnPCAM/2: truncated"):
        evaluate.evaluate_dataset(tiny_clip, broken(), attack, strict=True)
    with pytest.raises(UnreadableImageError, match="none of the 13 images of DrawnPCAM can be read"):
        evaluate.evaluate_dataset(tiny_clip, broken(at=range(13)), attack)


def test_the_report_names_what_could_not_be_read(world, monkeypatch, tmp_path):
    monkeypatch.setattr(datasets, "load_dataset", lambda name, **where: broken())
    report = run("--datasets", "DrawnPCAM", "--attack", "none", "--json", str(tmp_path / "out.json"))
    assert report.endswith("images that could not be read and do not count: 2, e.g. DrawnPCAM/2")
    assert json.loads((tmp_path / "out.json").read_text())["rows"][0]["unreadable"].keys() == {"DrawnPCAM/2",
                                                                                              "DrawnPCAM/9"}


def test_ids_of_a_subset_are_kept(world, tmp_path):
    out = tmp_path / "out.json"
    run("--datasets", "DrawnPCAM", "--attack", "none", "--images", "5", "--json", str(out))
    row, = json.loads(out.read_text())["rows"]
    assert row["ids"] == fake("DrawnPCAM").subset(5).ids
    run("--datasets", "DrawnPCAM", "--attack", "none", "--per-class", "1", "--images", "99", "--json", str(out))
    row, = json.loads(out.read_text())["rows"]
    assert row["ids"] == fake("DrawnPCAM").subset(99, per_class=1).ids and row["images"] == 4
    run("--datasets", "DrawnPCAM", "--attack", "none", "--images", "13", "--json", str(out))
    assert "ids" not in json.loads(out.read_text())["rows"][0]


def test_images_of_ones_own(monkeypatch, tiny_clip, tmp_path):
    monkeypatch.setattr(evaluate.command, "load_clip", lambda *args, **kwargs: tiny_clip)
    random = np.random.RandomState(0)
    for name in ("cat", "dog"):
        (tmp_path / name).mkdir()
        for i in range(3):
            Image.fromarray(random.randint(0, 256, (40, 30, 3), np.uint8)).save(tmp_path / name / f"{i}.png")
    assert run("--datasets", str(tmp_path), "--steps", "1").splitlines()[1].split()[:2] == [str(tmp_path), "6"]
    for words, message in ((["--workers", "-1"], "--workers -1"), (["--per-class", "0"], "--per-class 0"),
                           (["--protocol", "cp"], "unknown protocol 'cp'")):
        with pytest.raises(ZsarError, match=message):
            run("--datasets", str(tmp_path), *words)


# the texts of a protocol

@pytest.mark.parametrize("protocol", ["tecoa16", "cb"])
@pytest.mark.parametrize("name", SIXTEEN)
def test_a_protocols_texts_reach_the_model_as_they_stand(name, protocol, tiny_clip, monkeypatch):
    texts, seen = get_manifest(name).protocols[protocol], []

    def encode_text(prompts):
        seen.extend(prompts)
        return torch.ones(len(prompts), 16)

    monkeypatch.setattr(tiny_clip, "encode_text", encode_text, raising=False)
    classifier = ZeroShotClassifier(tiny_clip, texts.classnames, texts.templates, verbatim=True)
    assert seen == [template.replace("{}", name) for name in texts.classnames for template in texts.templates]
    assert len(classifier.text_features) == len(texts.classnames)


def test_of_two_equal_texts_the_first_wins(tiny_clip, images):
    classifier = ZeroShotClassifier(tiny_clip, ["cat", "dog", "cat"], ["a photo of a {}"], verbatim=True)
    assert set(classifier(images).argmax(1).tolist()) <= {0, 1}
    with pytest.raises(ClassNamesError, match="duplicate class name 'cat'"):
        ZeroShotClassifier(tiny_clip, ["cat", "dog", "cat"], ["a photo of a {}"])


def test_a_real_dataset_with_equal_names_is_evaluated(tiny_clip, tmp_path, monkeypatch):
    manifest = get_manifest("StanfordCars")
    build("StanfordCars", tmp_path, manifest.annotated, per_class=1)
    dataset = datasets.load_dataset("StanfordCars", root=tmp_path, partial=True).subset(8)
    monkeypatch.setattr(tiny_clip, "encode_text", lambda prompts: torch.ones(len(prompts), 16), raising=False)
    assert evaluate.evaluate_dataset(tiny_clip, dataset)["images"] == 8


def test_datasets_that_are_not_there_are_left_out_only_when_asked(tiny_clip, tmp_path, monkeypatch):
    monkeypatch.setattr(evaluate.command, "load_clip", lambda *args, **kwargs: tiny_clip)
    monkeypatch.setattr(tiny_clip, "encode_text", lambda prompts: torch.ones(len(prompts), 16), raising=False)
    monkeypatch.setattr(datasets.sixteen, "expected_images", lambda *which: 10)
    build("EuroSAT", tmp_path, get_manifest("EuroSAT").annotated, per_class=1)
    words = ["--datasets", "EuroSAT,HatefulMemes", "--attack", "none", "--root", str(tmp_path)]
    with pytest.raises(DatasetError, match="HatefulMemes: .*; --available goes on without it"):
        run(*words)
    report = run(*words, "--available", "--json", str(tmp_path / "out.json"))
    assert json.loads((tmp_path / "out.json").read_text())["rows"][0]["layout"] == "files"
    assert "missing, and not in the mean: HatefulMemes\nmean of 1: clean" in report
    assert json.loads((tmp_path / "out.json").read_text())["missing"] == ["HatefulMemes"]
    with pytest.raises(DatasetError, match="none of HatefulMemes is on this machine"):
        run("--datasets", "HatefulMemes", "--available", "--root", str(tmp_path))


def test_a_dataset_that_is_not_whole_is_left_out_where_available_will_do(tmp_path):
    build("EuroSAT", tmp_path, get_manifest("EuroSAT").annotated, per_class=1)
    names = ["EuroSAT", "DrawnDTD", "HatefulMemes"]
    with pytest.warns(UserWarning) as warned:
        found, missing = evaluate.load_all(names, tmp_path, "tecoa16", True)
    assert [dataset.name for dataset in found] == ["DrawnDTD"] and missing == ["EuroSAT", "HatefulMemes"]
    assert [str(one.message)[:52] for one in warned] == ["EuroSAT is left out: EuroSAT test: found 10 images, "]
    with pytest.raises(DatasetError, match="EuroSAT test: found 10 images.*; --available goes on without it"):
        evaluate.load_all(names, tmp_path, "tecoa16", False)
    with pytest.raises(DatasetError, match="photos does not exist"):  # a place of one's own is never passed over
        evaluate.load_all(["DrawnDTD", f"{tmp_path}/photos"], tmp_path, "tecoa16", True)
