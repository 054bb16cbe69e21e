"""``python -m zsar data`` on small datasets in the genuine formats: what it says is there, and what it finds wrong."""

import json
import re
import shutil
from pathlib import Path

import huggingface_hub
import numpy as np
import pytest
import torch
from PIL import Image
from real_fixtures import build, build_parquet, build_wds

from zsar import __main__ as cli
from zsar import data
from zsar.datasets import fetch as fetching
from zsar.datasets import load_dataset, sixteen
from zsar.datasets.manifest import Source, get_manifest
from zsar.datasets.packed import pack, packed_folder
from zsar.errors import DatasetError, MissingDatasetError
from zsar.profiles import FREE, SIXTEEN

SMALL = ("CIFAR10", "DTD", "EuroSAT", "HatefulMemes", "OxfordPets", "PCAM", "STL10")  # few classes: quick to build


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    """Some of the sixteen with a picture or two of every class."""
    root = tmp_path_factory.mktemp("root")
    for name in SMALL:
        build(name, root, get_manifest(name).annotated, per_class=1)
    return root


@pytest.fixture
def whole(monkeypatch):
    """The manifests expect as many images as the small datasets have."""
    monkeypatch.setattr(data, "expected_images", lambda manifest, split: {
        ("EuroSAT", "test"): 10, ("PCAM", "test"): 2}.get((manifest.name, split)))


def zsar(capsys, *words, status=0):
    """What a command prints."""
    assert cli.main(["data", *map(str, words)]) == status
    captured = capsys.readouterr()
    if status:
        error = captured.err.split("\r")[-1]  # behind what is left of a bar
        assert error.startswith("zsar: error: ") and error.count("\n") == 1
    return captured.err if status else captured.out


def pack_partial(name, root):
    """A packed copy of a small dataset, which the command makes only of whole ones."""
    dataset = load_dataset(name, root=root, partial=True)
    pack(dataset, packed_folder(root, name, "test"), sixteen.packed_as(get_manifest(name), "test"))


def test_list_says_what_is_there(root, whole, capsys, tmp_path):
    out = zsar(capsys, "list", "--root", root, "--json", tmp_path / "list.json")
    rows = {row["dataset"]: row for row in json.loads((tmp_path / "list.json").read_text())["datasets"]}
    assert tuple(rows) == SIXTEEN and sum(row["images"] for row in rows.values()) == 337_128
    assert rows["EuroSAT"]["state"] == rows["PCAM"]["state"] == "present"
    assert rows["CIFAR10"]["state"] == "partial" and rows["CIFAR10"]["found"] == 10
    assert rows["Food101"]["state"] == "missing" and "food-101" in rows["Food101"]["why"]
    assert rows["ImageNet"]["state"] == "needs you"
    lines = {line.split()[0]: line for line in out.splitlines()}
    assert lines["CIFAR10"].split()[-3:] == ["files", "partial", "(10)"]
    assert lines["EuroSAT"].split()[-2:] == ["files", "present"]
    assert rows["EuroSAT"]["layout"] == "files" and rows["Food101"]["layout"] is None
    assert out.splitlines()[-1].startswith(f"{root}: ") and "2 present" in out.splitlines()[-1]


def test_without_a_root_everything_is_missing(tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("ZSAR_DATA", str(tmp_path / "none"))
    assert "present" not in zsar(capsys, "list") and not (tmp_path / "none").exists()


def test_verify_finds_nothing_wrong(root, whole, capsys):
    assert zsar(capsys, "verify", "EuroSAT", "PCAM", "--root", root) == "EuroSAT (files): whole\nPCAM (files): whole\n"


def test_verify_names_every_unreadable_image(whole, capsys, tmp_path):
    build("EuroSAT", tmp_path, get_manifest("EuroSAT").annotated, per_class=1)
    forest = next((tmp_path / "eurosat" / "2750" / "Forest").glob("*.jpg"))
    forest.write_bytes(forest.read_bytes()[:150])
    layouts, found = data.verify(get_manifest("EuroSAT"), tmp_path)
    assert layouts == {"test": "files"} and len(found) == 1 and f"2750/Forest/{forest.name}" in found[0]
    assert "EuroSAT is not whole; " in zsar(capsys, "verify", "EuroSAT", "--root", tmp_path, status=2)


def test_verify_counts(root, capsys):
    found = ["test: found 10 images, expected 10,000"]
    assert data.verify(get_manifest("CIFAR10"), root) == ({"test": "files"}, found)
    both = data.verify(get_manifest("CIFAR10"), root, splits=("test", "train"))
    assert both == ({"test": "files", "train": "files"}, [*found, "train: found 10 images, expected 50,000"])
    layouts, missing = data.verify(get_manifest("Food101"), root, splits=("test", "train"))
    assert layouts == {} and len(missing) == 1 and missing[0].startswith("there is no food-101/")


def test_a_training_split_is_looked_at_when_asked_for(whole, capsys, monkeypatch, tmp_path):
    """What is found in the test split is said also where there is no training split."""
    monkeypatch.setattr(data, "expected_images", lambda manifest, split: 2)
    build("PCAM", tmp_path, get_manifest("PCAM").annotated, per_class=1)
    for path in (tmp_path / "pcam").glob("*_train_*"):
        path.unlink()
    assert zsar(capsys, "verify", "PCAM", "--root", tmp_path) == "PCAM (files): whole\n"
    layouts, found = data.verify(get_manifest("PCAM"), tmp_path, splits=("test", "train"))
    assert layouts == {"test": "files"} and len(found) == 1
    assert found[0].startswith("train: ") and "split_train_y.h5 is missing" in found[0]
    monkeypatch.setattr(data, "expected_images", lambda manifest, split: 3)
    found = data.verify(get_manifest("PCAM"), tmp_path, splits=("test", "train"))[1]
    assert found[0] == "test: found 2 images, expected 3" and len(found) == 2


def test_what_has_no_training_split_is_not_called_whole(root, capsys):
    assert "EuroSAT: it has no train split" in zsar(capsys, "verify", "EuroSAT", "--root", root, "--split", "train")


def test_verify_compares_archives_with_what_is_known(whole, capsys, tmp_path):
    build("EuroSAT", tmp_path, get_manifest("EuroSAT").annotated, per_class=1)
    (tmp_path / "eurosat" / "EuroSAT.zip").write_bytes(b"other")
    found = data.verify(get_manifest("EuroSAT"), tmp_path)[1]
    assert len(found) == 1 and "EuroSAT.zip: found 5 bytes, expected " in found[0]
    assert "never compared with the genuine file" in found[0]


def break_pack(root, name):
    folder = root / "packed" / f"{name}-test"
    folder.mkdir(parents=True)
    (folder / "about.json").write_text("{")


def test_a_broken_pack_does_not_end_the_list(whole, capsys, tmp_path):
    build("EuroSAT", tmp_path, get_manifest("EuroSAT").annotated, per_class=1)
    for name in ("EuroSAT", "CIFAR10"):
        break_pack(tmp_path, name)
    out = zsar(capsys, "list", "--root", tmp_path)
    assert len(out.splitlines()) == 1 + len(SIXTEEN) + 2 + 1
    assert f"EuroSAT: cannot read the packed images in {tmp_path / 'packed' / 'EuroSAT-test'}" in out
    assert data.state(get_manifest("EuroSAT"), tmp_path)["state"] == "present"
    assert data.state(get_manifest("CIFAR10"), tmp_path)["state"] == "partial"


def test_a_broken_manifest_does_not_end_the_list(capsys, monkeypatch, tmp_path):
    def get(name):
        if name == "DTD":
            raise DatasetError("cannot use the manifest of DTD")
        return get_manifest(name)

    monkeypatch.setattr(data, "get_manifest", get)
    assert cli.main(["data", "list", "--root", str(tmp_path)]) == 2
    captured = capsys.readouterr()
    assert "DTD: cannot use the manifest of DTD" in captured.out and "Food101" in captured.out
    assert "1 of 16 datasets cannot be listed: DTD" in captured.err


def test_a_home_folder_is_understood(root, monkeypatch, capsys):
    monkeypatch.setenv("HOME", str(root.parent))
    assert f"{root}: " in zsar(capsys, "list", "--root", f"~/{root.name}")


def test_commands_in_messages_name_a_root_that_is_not_the_usual_one(capsys, monkeypatch, tmp_path):
    """Those of a missing dataset, of a missing root, and of one that is not whole."""
    place = tmp_path / "my data"
    shown, fetched = "'python -m zsar data verify DTD{}' shows what is there", "'data fetch DTD{}' gets the rest"
    with pytest.raises(DatasetError, match=f"fill it with 'python -m zsar data fetch DTD --root '{place}''"):
        load_dataset("DTD", root=place)
    place.mkdir()
    for usual, option in ((tmp_path, f" --root '{place}'"), (place, "")):
        monkeypatch.setenv("ZSAR_DATA", str(usual))
        with pytest.raises(MissingDatasetError) as error:
            load_dataset("DTD", root=place)
        assert str(error.value).endswith(f"{shown.format(option)}, {fetched.format(option)}")
        assert f"python -m zsar data fetch NAME{option} gets what is missing" in \
            zsar(capsys, "verify", "DTD", "--root", place, status=2)


def test_a_count_that_differs_is_not_loaded(root):
    with pytest.raises(DatasetError, match=r"CIFAR10 test.*: found 10 images, expected 10,000"):
        load_dataset("CIFAR10", root=root)
    with pytest.raises(DatasetError, match=f"python -m zsar data verify CIFAR10 --root {root} says what is missing"):
        load_dataset("CIFAR10", root=root)
    assert len(load_dataset("CIFAR10", root=root, partial=True)) == 10


@pytest.mark.parametrize("name", SIXTEEN)
def test_from_files_to_a_packed_copy(name, capsys, tmp_path):
    """Every one of the sixteen: verified, loaded, packed, and loaded again the same."""
    manifest = get_manifest(name)
    build(name, tmp_path, manifest.annotated, per_class=1)
    found = data.verify(manifest, tmp_path, splits=("test", "train"))[1]
    assert all("images, expected" in line or ".mat: found" in line for line in found)  # counts and sums differ
    files = load_dataset(name, root=tmp_path, partial=True)
    assert files.decodes and set(files.labels.tolist()) == set(range(len(manifest.annotated)))
    pack_partial(name, tmp_path)
    packed = load_dataset(name, root=tmp_path, partial=True)
    assert not packed.decodes and packed.ids == files.ids and torch.equal(packed.labels, files.labels)
    assert packed.layout == files.layout == "files"
    some = np.linspace(0, len(files) - 1, 20).astype(int)
    assert np.array_equal(packed.read(some), files.read(some))
    cb = load_dataset(name, root=tmp_path, protocol="cb", partial=True)
    assert cb.classnames == list(manifest.protocols["cb"].classnames) and cb.ids == files.ids
    assert data.state(manifest, tmp_path)["packed"] == ["test"]


@pytest.mark.parametrize(("layout", "build_shards"), [("parquet", build_parquet), ("wds", build_wds)])
def test_which_source_was_read_is_said(layout, build_shards, whole, capsys, tmp_path):
    """Files go before shards, and a packed copy, which says what it is of, before both: the ids are others."""
    eurosat = get_manifest("EuroSAT")
    build_shards(tmp_path / layout / "EuroSAT", eurosat.annotated, list(range(10)))
    shards = load_dataset("EuroSAT", root=tmp_path, partial=True)
    assert data.verify(eurosat, tmp_path)[0] == {"test": layout}
    assert data.state(eurosat, tmp_path)["layout"] == layout == shards.layout
    pack_partial("EuroSAT", tmp_path)
    build("EuroSAT", tmp_path, eurosat.annotated, per_class=1)
    assert zsar(capsys, "verify", "EuroSAT", "--root", tmp_path) == "EuroSAT (files): whole\n"
    packed = load_dataset("EuroSAT", root=tmp_path, partial=True)
    assert packed.layout == layout and packed.ids == shards.ids
    line = next(line for line in zsar(capsys, "list", "--root", tmp_path).splitlines() if "EuroSAT" in line)
    assert line.split()[-3:] == [f"{layout},", "packed", "present"]
    shutil.rmtree(tmp_path / "packed")
    files = load_dataset("EuroSAT", root=tmp_path, partial=True)
    assert files.layout == "files" and set(files.ids).isdisjoint(shards.ids)


def test_splits_of_different_layouts_are_told_apart():
    assert data._read_as({"test": "files", "train": "files"}) == " (files)" and data._read_as({}) == ""
    assert data._read_as({"test": "files", "train": "wds"}) == " (test files, train wds)"


def test_a_packed_copy_of_fewer_images_is_said(whole, capsys, tmp_path):
    build("EuroSAT", tmp_path, get_manifest("EuroSAT").annotated, per_class=1)
    pack_partial("EuroSAT", tmp_path)
    build("EuroSAT", tmp_path, get_manifest("EuroSAT").annotated, per_class=2, seed=1)
    assert "has 10 images, the 30 of its files are there: pack it again" in \
        data.state(get_manifest("EuroSAT"), tmp_path)["why"]


def test_what_is_not_whole_is_not_packed(root, capsys):
    assert "found 10 images, expected 10,000" in zsar(capsys, "pack", "CIFAR10", "--root", root, status=2)


def test_a_packed_copy_of_too_few_images_is_to_be_deleted(root, capsys, tmp_path):
    shutil.copytree(root, tmp_path / "root")
    pack_partial("CIFAR10", tmp_path / "root")
    with pytest.raises(DatasetError, match="found 10 images, expected 10,000, packed in .*: delete that folder"):
        load_dataset("CIFAR10", root=tmp_path / "root")


def test_one_that_cannot_be_packed_or_shown_does_not_stop_the_others(root, whole, monkeypatch, capsys, tmp_path):
    monkeypatch.setattr(sixteen, "expected_images", lambda *which: 10)
    for task, what, more in (("pack", "packed", []), ("show", "shown", ["--out", str(tmp_path)])):
        assert cli.main(["data", task, "Food101", "EuroSAT", "--root", str(root), *more]) == 2
        captured = capsys.readouterr()
        assert "EuroSAT" in captured.out and "Food101: there is no food-101/" in captured.out
        assert f"1 of 2 datasets cannot be {what}: Food101; the lines above say why" in captured.err
    shutil.rmtree(root / "packed")


def test_show_writes_a_sheet(root, capsys, tmp_path):
    out = zsar(capsys, "show", "OxfordPets", "--root", root, "--out", tmp_path / "sheets")
    image = Image.open(tmp_path / "sheets" / "OxfordPets.png")
    assert "24 of 37 images" in out and image.width > 500
    assert "a photo of a abyssinian, a type of pet." in image.text["Description"].lower()


def test_fetch_leaves_what_is_there(root, whole, capsys, monkeypatch):
    monkeypatch.setattr(data, "fetch", lambda *args, **how: pytest.fail("fetched"))
    assert zsar(capsys, "fetch", "EuroSAT", "--root", root) == "EuroSAT: present, nothing to do\n"


def test_fetch_takes_the_next_source_and_says_why(tmp_path, capsys, monkeypatch):
    tried = []

    def fetch(source, root, **how):
        tried.append(source.kind)
        if source.kind == "archive":
            raise DatasetError("the host is gone")
        build("CIFAR10", root, get_manifest("CIFAR10").annotated, per_class=1)
        return ""

    monkeypatch.setattr(data, "fetch", fetch)
    out = zsar(capsys, "fetch", "CIFAR10", "--root", tmp_path)
    assert tried == ["archive", "parquet"]
    assert out == "CIFAR10: archive: the host is gone\nCIFAR10: partial, 10 images\n"


def test_the_split_that_is_asked_for_is_fetched(tmp_path, capsys, monkeypatch):
    asked, images = [], {("CIFAR10", "test"): 10, ("CIFAR10", "train"): 10, ("EuroSAT", "test"): 10}
    monkeypatch.setattr(data, "expected_images", lambda manifest, split: images.get((manifest.name, split)))

    def fetch(source, root, name, split, **how):
        asked.append((name, split, source.kind))
        for part in ("test", "train") if split == "all" else (split,):
            build_parquet(root / "parquet" / name, get_manifest(name).annotated, list(range(10)), part=part)
        return ""

    monkeypatch.setattr(data, "fetch", fetch)
    assert zsar(capsys, "fetch", "CIFAR10", "--root", tmp_path) == "CIFAR10: present, 10 images\n"
    message = str(pytest.raises(DatasetError, load_dataset, "CIFAR10", "train", tmp_path).value)
    assert f"'data fetch CIFAR10 --root {tmp_path} --split train' gets the rest" in message
    assert zsar(capsys, "fetch", "CIFAR10", "EuroSAT", "--root", tmp_path, "--split", "train") == (
        "CIFAR10 train: present, 10 images\nEuroSAT: it has no train split, nothing to fetch\n")
    out = zsar(capsys, "fetch", "CIFAR10", "EuroSAT", "--root", tmp_path, "--split", "all")
    assert out == "CIFAR10: present, nothing to do\nEuroSAT: present, 10 images\n"
    assert asked == [("CIFAR10", "test", "archive"), ("CIFAR10", "train", "parquet"), ("EuroSAT", "all", "archive")]


def test_the_nine_of_the_profile_colab_are_fetched_by_one_word(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(data, "_fetch_one", lambda manifest, args: [manifest.name])
    assert zsar(capsys, "fetch", "colab", "DTD", "SUN397", "--root", tmp_path).split() == [*FREE, "SUN397"]


def test_one_that_cannot_be_fetched_does_not_stop_the_others(tmp_path, capsys, monkeypatch):
    def fetch(source, root, name, **how):
        if name != "DTD":
            raise DatasetError(f"the {source.kind} of {name} is gone")
        build("DTD", root, get_manifest("DTD").annotated, per_class=1)
        return ""

    monkeypatch.setattr(data, "fetch", fetch)
    assert cli.main(["data", "fetch", "CIFAR10", "DTD", "EuroSAT", "--root", str(tmp_path)]) == 2
    captured = capsys.readouterr()
    assert "DTD: partial, 47 images" in captured.out
    assert "CIFAR10: archive: the archive of CIFAR10 is gone; parquet: the parquet of CIFAR10 is gone" in captured.out
    assert "2 of 3 datasets cannot be fetched: CIFAR10, EuroSAT" in captured.err


def test_a_dead_first_source_leaves_the_way_to_the_second(tmp_path, monkeypatch):
    """The real download: what it leaves behind is no dataset, so that shards are looked for."""
    monkeypatch.setattr(fetching, "PAUSE", 0)
    pets = get_manifest("OxfordPets")
    files = {name: {"address": "http://127.0.0.1:9/gone.tar.gz"} for name in pets.sources[0].files}
    with pytest.raises(DatasetError, match="cannot download"):
        fetching.fetch(Source("archive", "", None, files, (), verified=False), tmp_path, name="OxfordPets",
                       agreed=lambda size: True)
    assert list((tmp_path / "oxford-iiit-pet").iterdir())
    for left in ("images.tar.gz.part", "images.tar.gz.part.json", "images.tar.gz.mismatch", "annotations.tar.gz"):
        (tmp_path / "oxford-iiit-pet" / left).write_bytes(b"")
    assert data.state(pets, tmp_path)["state"] == "missing"
    build_parquet(tmp_path / "parquet" / "OxfordPets", pets.annotated, list(range(37)))
    assert len(load_dataset("OxfordPets", root=tmp_path, partial=True)) == 37
    (tmp_path / "oxford-iiit-pet" / "images").mkdir()  # begun: not passed over in silence
    with pytest.raises(DatasetError, match="test.txt is missing"):
        load_dataset("OxfordPets", root=tmp_path, partial=True)


def test_nothing_is_fetched_in_offline_mode(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(data, "fetch", lambda *what, **how: pytest.fail("fetched"))
    message = zsar(capsys, "fetch", "CIFAR10", "ImageNet", "--root", tmp_path, status=2)
    assert "HF_HUB_OFFLINE is set, nothing is fetched" in message and list(tmp_path.iterdir()) == []


def test_what_is_fetched_by_hand_says_how(tmp_path, capsys):
    out = zsar(capsys, "fetch", "ImageNet", "--root", tmp_path)
    assert "ImageNet has to be fetched by hand" in out and "ILSVRC2012_img_val.tar" in out


def test_without_a_terminal_no_large_download_begins(monkeypatch):
    monkeypatch.setattr("sys.stdin.isatty", lambda: False, raising=False)
    assert data._ask("SUN397", 39 * 10**9) is False


@pytest.mark.parametrize(("words", "message"), [
    (["verify", "CIFAR"], "unknown dataset 'CIFAR': did you mean"), (["fetch"], "required: NAME"), ([], "required"),
    (["pack", "CIFAR10", "--split", "val"], "unknown split 'val': expected one of test, train"),
    (["verify", "CIFAR10", "--workers", "-1"], "--workers -1: expected a whole number of at least 0"),
    (["vrify", "CIFAR10"], "invalid choice: 'vrify'"),
    (["pack", "photos"], "unknown dataset 'photos': expected ./photos if that folder or file is meant")])
def test_bad_input(words, message, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "photos").mkdir()
    assert message in zsar(capsys, *words, *(["--root", tmp_path] if len(words) > 1 else []), status=2)


def test_sheets_show_different_classes(root):
    dataset = load_dataset("EuroSAT", root=root, partial=True)
    assert len(np.unique(dataset.labels)) == 10
    assert data.sheet(dataset).get_label().startswith("10 pictures in a grid")


def test_images_of_ones_own_are_verified_and_shown(capsys, tmp_path):
    for i, name in enumerate(("cat", "dog")):
        (tmp_path / "mine" / name).mkdir(parents=True)
        Image.new("RGB", (30, 40), (90 * i, 0, 0)).save(tmp_path / "mine" / name / "1.png")
    place = str(tmp_path / "mine")
    assert zsar(capsys, "verify", place) == f"{place}: whole\n"
    assert "2 of 2 images" in zsar(capsys, "show", place, "--out", tmp_path) and (tmp_path / "mine.png").is_file()
    (tmp_path / "mine" / "cat" / "2.png").write_text("no image")
    assert "mend or delete what the lines above name" in zsar(capsys, "verify", place, status=2)
    said = zsar(capsys, "pack", place, "--root", tmp_path, status=2)
    assert "cannot read the image cat/2.png" in said and "fetch it again" not in said
    assert said.endswith("remove or mend that file, then pack again\n")
    assert "is a place of your own: there is nothing to fetch" in zsar(capsys, "fetch", place, status=2)


def test_places_of_one_name_have_sheets_of_their_own(capsys, tmp_path):
    places = [f"{tmp_path}/{owner}/photos" for owner in "ab"]
    for place in places:
        for name in ("cat", "dog"):
            (Path(place) / name).mkdir(parents=True)
            Image.new("RGB", (30, 40)).save(Path(place) / name / "1.png")
    out = zsar(capsys, "show", *places, "--out", tmp_path / "sheets")
    written = [line.split(": ")[0] for line in out.splitlines()]
    assert len(set(written)) == 2 and {str(path) for path in (tmp_path / "sheets").iterdir()} == set(written)
    assert all(re.fullmatch("photos-[0-9a-f]{12}.png", Path(path).name) for path in written)


def test_images_of_ones_own_are_packed(capsys, tmp_path):
    for split in ("train", "test"):
        for number, name in enumerate(("cat", "dog")):
            (tmp_path / "mine" / split / name).mkdir(parents=True)
            Image.new("RGB", (30, 40), (90 * number, 0, 0)).save(tmp_path / "mine" / split / name / "1.png")
    place, root = f"{tmp_path}/mine/", tmp_path / "root"
    for split in ("train", "test"):
        out = zsar(capsys, "pack", place, "--root", root, "--split", split)
        assert out.startswith(f"{root}/packed/own-mine-") and f"-{split}: 0.00 GB" in out
        files, packed = load_dataset(place, split, tmp_path / "none"), load_dataset(place, split, root)
        assert files.decodes and not packed.decodes and packed.layout == "own" and packed.ids == files.ids
        assert all(map(torch.equal, packed.stack(), files.stack()))
    (tmp_path / "mine" / "test" / "cat" / "2.png").write_text("no image")
    assert "mend or delete" in zsar(capsys, "verify", place, "--root", root, status=2)  # the files, not the copy
