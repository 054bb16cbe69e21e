"""What of a CLIP an adaptation changes, points between two towers, and adapted weights in a file."""

import copy
import errno
import json
from pathlib import Path

import open_clip
import pytest
import torch
from safetensors.torch import load_file, save_file

from zsar.clip import Clip
from zsar.errors import AdaptationError, CheckpointError, OutputError, PromptError, UnknownNameError
from zsar.losses import Adv
from zsar.methods import METHODS, interpolate, load_adapted, make_student, parts, prompt_sizes, save_adapted, trainable

SIZES = {"pad": 3, "tokens": 4}


@pytest.fixture(params=METHODS)
def method(request) -> str:
    return request.param


def moved(clip: Clip, seed: int = 0, size: float = 0.05) -> Clip:
    """The CLIP, its trainable parameters a little elsewhere, as after a training."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for value in trainable(clip).values():
            value.mul_(0.9).add_(size * torch.randn(value.shape, generator=generator))
    return clip


def one_line(caught: pytest.ExceptionInfo) -> str:
    assert "\n" not in str(caught.value)
    return str(caught.value)


@torch.no_grad()
def embed(clip: Clip, images: torch.Tensor) -> torch.Tensor:
    return clip.embed(images)


# the names

@pytest.mark.parametrize(("name", "expected"), [
    ("finetune", ["finetune"]), ("blocks-12", ["blocks-12"]), ("finetune+pad+token", ["finetune", "pad", "token"]),
    ("blocks-1+token", ["blocks-1", "token"])])
def test_parts(name, expected):
    assert parts(name) == expected


def test_every_listed_method_has_parts(method):
    assert "+".join(parts(method)) == method


@pytest.mark.parametrize(("name", "nearest"), [
    ("finetunes", "finetune"), ("blocks", "blocks-1"), ("block-2", "blocks-2"), ("pad-token", "pad+token"),
    ("tokens", "token"), ("Finetune", "finetune"), ("blocks-1.5", "blocks-1"), ("blocks--1", "blocks-1"),
    ("blocks-01", "blocks-1"), ("blocks-00", "blocks-1"), ("pad+", "pad"), ("finetune+padding", "finetune+pad")])
def test_an_unknown_method_is_told_the_nearest(name, nearest):
    with pytest.raises(UnknownNameError, match="unknown method") as caught:
        parts(name)
    assert nearest in one_line(caught).split("did you mean ")[1].rstrip("?").split(", ")


@pytest.mark.parametrize("name", ["", " ", "pad token"])
def test_no_method_is_unknown(name):
    with pytest.raises(UnknownNameError):
        parts(name)


@pytest.mark.parametrize("name", ["pad+pad", "finetune+finetune", "finetune+blocks-1", "blocks-1+blocks-2",
                                  "blocks-2+blocks-2", "token+pad", "pad+finetune"])
def test_a_method_has_one_spelling(name):
    with pytest.raises(AdaptationError, match="finetune or blocks-k but not both, then pad, then token, each at most "
                       "once") as caught:
        parts(name)
    assert repr(name) in one_line(caught)


@pytest.mark.parametrize("name", ["blocks-0", "blocks-0+pad"])
def test_blocks_0_trains_nothing(name):
    with pytest.raises(AdaptationError, match="'blocks-0' trains nothing: expected blocks-1"):
        parts(name)


@pytest.mark.parametrize("k", [3, 99])
def test_more_blocks_than_there_are(tiny_clip, k):
    with pytest.raises(AdaptationError, match=f"'blocks-{k}': tiny has 2 blocks") as caught:
        make_student(tiny_clip, f"blocks-{k}")
    one_line(caught)


@pytest.mark.parametrize(("method", "missing"), [("pad", "pad"), ("token", "tokens"), ("pad+token", "pad")])
def test_a_prompt_needs_its_size(tiny_clip, method, missing):
    with pytest.raises(PromptError, match=f"{missing} = None: this method's prompt needs a size"):
        make_student(tiny_clip, method)


# what is trained

EXPECTED = {"finetune": ("visual.",), "blocks-1": ("visual.transformer.resblocks.1.",),
            "blocks-2": ("visual.transformer.resblocks.",), "pad": ("prompts.pad.",), "token": ("prompts.token.",)}


def test_exactly_what_the_method_names_is_trainable(tiny_clip, method):
    student = make_student(tiny_clip, method, **SIZES)
    expected = tuple(prefix for part in parts(method) for prefix in EXPECTED[part])
    assert {name for name, _ in student.model.named_parameters() if name.startswith(expected)} == \
        trainable(student.model).keys()
    assert prompt_sizes(student) == {key: SIZES[key] for part, key in (("pad", "pad"), ("token", "tokens"))
                                     if part in parts(method)}


def test_gradients_reach_what_is_trained_and_nothing_else(tiny_clip, method, images):
    student = make_student(tiny_clip, method, **SIZES)
    student.embed(images).square().sum().backward()
    reached = {name for name, value in student.model.named_parameters() if value.grad is not None}
    assert reached == trainable(student.model).keys()
    assert all(value.grad.abs().sum() > 0 for value in trainable(student).values())
    assert not [name for name, value in tiny_clip.named_parameters() if value.grad is not None]


def test_the_original_stays_as_it_is(tiny_clip, method, images):
    digest, features = tiny_clip.digest, embed(tiny_clip, images)
    student = make_student(tiny_clip, method, **SIZES)
    assert tiny_clip.digest == digest
    moved(student)
    assert not torch.allclose(embed(student, images), features, atol=1e-4)
    assert tiny_clip.digest == digest != student.digest
    assert torch.equal(embed(tiny_clip, images), features)
    assert tiny_clip.name == "tiny"
    assert not trainable(tiny_clip)


def test_the_text_tower_is_shared_and_the_image_tower_is_not(tiny_clip, method):
    student = make_student(tiny_clip, method, **SIZES)
    shared = {id(value) for value in tiny_clip.model.parameters()} & {id(value) for value in student.model.parameters()}
    tower = {id(value) for value in tiny_clip.model.visual.parameters()}
    assert shared == {id(value) for value in tiny_clip.model.parameters()} - tower
    assert torch.equal(student.encode_text(["a cat"]), tiny_clip.encode_text(["a cat"]))


def test_a_student_begins_as_the_original_but_for_random_tokens(tiny_clip, method, images):
    student = make_student(tiny_clip, method, **SIZES)
    assert torch.equal(embed(student, images), embed(tiny_clip, images)) == ("token" not in parts(method))
    assert student.name == f"tiny, {method}"


def test_the_seed_decides_the_tokens(tiny_clip):
    digests = [make_student(tiny_clip, "token", tokens=4, seed=seed).digest for seed in (0, 0, 1)]
    assert digests[0] == digests[1] != digests[2]


def test_a_student_of_a_student(tiny_clip, images):
    first = moved(make_student(tiny_clip, "pad", pad=3)).requires_grad_(False)
    digest = first.digest
    second = moved(make_student(first, "finetune+token", tokens=4))
    assert prompt_sizes(second) == SIZES
    assert first.digest == digest
    assert not [name for name in trainable(second.model) if name.startswith("prompts.pad")]
    with pytest.raises(PromptError, match="has a pad prompt already"):
        make_student(first, "pad", pad=3)


# points between

@pytest.fixture
def finetuned(tiny_clip) -> Clip:
    return moved(make_student(tiny_clip, "finetune")).requires_grad_(False)


def test_interpolation_ends_at_its_ends_bit_for_bit(tiny_clip, finetuned, images):
    assert interpolate(tiny_clip, finetuned, 0).digest == tiny_clip.digest
    assert interpolate(tiny_clip, finetuned, 1).digest == finetuned.digest
    assert torch.equal(embed(interpolate(tiny_clip, finetuned, 1), images), embed(finetuned, images))


@pytest.mark.parametrize("weight", [0.25, 0.5, 0.9])
def test_interpolation_is_linear_in_the_weights(tiny_clip, finetuned, weight):
    before = tiny_clip.digest, finetuned.digest
    between = interpolate(tiny_clip, finetuned, weight)
    ours, theirs, found = (clip.model.state_dict() for clip in (tiny_clip, finetuned, between))
    assert all(torch.allclose(found[name], (1 - weight) * ours[name] + weight * theirs[name], atol=1e-6)
               for name in ours)
    assert not trainable(between)
    assert (tiny_clip.digest, finetuned.digest) == before
    assert f"{weight:g}" in between.name
    assert finetuned.name in between.name


def test_interpolation_refuses_prompts_and_other_towers(tiny_clip, finetuned, tiny_config):
    prompted = make_student(tiny_clip, "finetune+pad", pad=3)
    wider = copy.deepcopy(tiny_config)
    wider["vision_cfg"]["layers"] = 3
    other = Clip(open_clip.CLIP(**wider), tiny_clip.tokenizer, name="other")
    for original, adapted in ((tiny_clip, prompted), (prompted, finetuned), (prompted, prompted), (other, finetuned)):
        with pytest.raises(AdaptationError, match="cannot interpolate .* of one form, without prompts") as caught:
            interpolate(original, adapted, 0.5)
        one_line(caught)


# files

def test_saved_and_loaded_weights_are_the_same_bits(tiny_clip, method, images, tmp_path):
    student = moved(make_student(tiny_clip, method, **SIZES, seed=3))
    names = trainable(student.model).keys()
    save_adapted(tmp_path / "a.safetensors", student, tiny_clip, method, note="kept")
    loaded = load_adapted(tmp_path / "a.safetensors", tiny_clip)
    assert load_file(tmp_path / "a.safetensors").keys() == names
    assert torch.equal(embed(loaded, images), embed(student, images))
    assert loaded.digest == student.digest
    assert loaded.name == student.name
    assert not trainable(loaded)


@pytest.mark.parametrize("weight", [-.1, 1.5, float("nan")])
def test_only_points_between_are_taken(weight, tiny_clip, finetuned):
    with pytest.raises(AdaptationError, match=f"weight = {weight}: expected a number from 0"):
        interpolate(tiny_clip, finetuned, weight)


def test_frozen_and_interpolated_weights_can_be_saved(tiny_clip, finetuned, tmp_path):
    between = interpolate(tiny_clip, finetuned, 0.5)
    for clip in (finetuned, between):
        save_adapted(tmp_path / "a.safetensors", clip, tiny_clip, "finetune")
        assert load_adapted(tmp_path / "a.safetensors", tiny_clip).digest == clip.digest


def test_a_full_disk_leaves_the_older_weights(tiny_clip, finetuned, tmp_path, monkeypatch):
    path = tmp_path / "a.safetensors"
    save_adapted(path, finetuned, tiny_clip, "finetune")

    def full(path, content):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(Path, "write_bytes", full)
    with pytest.raises(OutputError, match="No space left on device") as caught:
        save_adapted(path, tiny_clip, tiny_clip, "finetune")
    one_line(caught)
    assert load_adapted(path, tiny_clip).digest == finetuned.digest


@pytest.fixture
def saved(tiny_clip, tmp_path):
    path = tmp_path / "adapted.safetensors"
    save_adapted(path, moved(make_student(tiny_clip, "pad+token", **SIZES)), tiny_clip, "pad+token")
    return path


def refused(path, original) -> str:
    with pytest.raises(CheckpointError) as caught:
        load_adapted(path, original)
    assert path.name in str(caught.value)
    return one_line(caught)


@pytest.mark.parametrize("share", [0, 0.001, 0.3, 0.999])
def test_a_truncated_file_is_refused(saved, tiny_clip, share):
    saved.write_bytes(saved.read_bytes()[:int(share * saved.stat().st_size)])
    assert "missing, truncated, or not safetensors" in refused(saved, tiny_clip)


def test_missing_and_foreign_files_are_refused(tmp_path, tiny_clip):
    assert "missing, truncated" in refused(tmp_path / "none.safetensors", tiny_clip)
    (tmp_path / "text.safetensors").write_text("these are no weights at all")
    assert "not safetensors" in refused(tmp_path / "text.safetensors", tiny_clip)
    assert "is a folder: expected a file, such as its adapted.safetensors" in refused(tmp_path, tiny_clip)
    for metadata in (None, {"zsar": "[1]"}, {"zsar": '{"method": "pad"}'}):
        save_file({"weight": torch.zeros(2)}, tmp_path / "foreign.safetensors", metadata)
        assert "was not written by zsar adapt" in refused(tmp_path / "foreign.safetensors", tiny_clip)
    save_file({"weight": torch.zeros(2)}, tmp_path / "broken.safetensors", {"zsar": "{"})
    refused(tmp_path / "broken.safetensors", tiny_clip)


def test_weights_of_another_original_are_refused(saved, tiny_clip, finetuned):
    message = refused(saved, finetuned)
    assert tiny_clip.digest[:12] in message
    assert finetuned.digest[:12] in message


@pytest.mark.parametrize("change", [
    lambda tensors: tensors.pop("prompts.pad.values"), lambda tensors: tensors.update(more=torch.zeros(1)),
    lambda tensors: tensors.update({"prompts.token.tokens": torch.zeros(5, 32)})])
def test_tensors_that_do_not_match_are_refused(saved, tiny_clip, change):
    with open(saved, "rb") as file:
        header = json.loads(file.read(int.from_bytes(file.read(8), "little")))["__metadata__"]
    tensors = load_file(saved)
    change(tensors)
    save_file(tensors, saved, header)
    assert "another architecture: 1 tensors differ" in refused(saved, tiny_clip)


def test_trainable_names_the_parameters_of_any_module(tiny_clip):
    assert trainable(Adv(tiny_clip, torch.eye(3, 16))).keys() == {"weight", "bias"}
