import copy
import warnings

import numpy as np
import open_clip
import pytest
import torch
import torch.nn.functional as F
from open_clip.transform import PreprocessCfg, image_transform_v2
from PIL import Image
from safetensors.torch import load_file, save_file

from zsar import checkpoints
from zsar.clip import (
    Clip,
    ZeroShotClassifier,
    check_classnames,
    check_images,
    check_templates,
    load_clip,
    normalize_classname,
)
from zsar.errors import CheckpointError, ClassNamesError, PixelRangeError, UnknownNameError, VocabularyError


def test_features_are_unit_vectors_of_the_frozen_model(tiny_clip, images):
    features, texts = tiny_clip.encode_image(images), tiny_clip.encode_text(["a cat", "a dog", "this is a red car"])
    assert features.shape == (8, 16) and texts.shape == (3, 16) and features.dtype == torch.float32
    assert torch.allclose(features.norm(dim=1), torch.ones(8)) and torch.allclose(texts.norm(dim=1), torch.ones(3))
    assert not tiny_clip.training and not any(p.requires_grad for p in tiny_clip.parameters())
    assert not texts.requires_grad


def test_at_the_models_size_nothing_is_resized(tiny_clip, images):
    expected = F.normalize(tiny_clip.model.encode_image((images - tiny_clip.mean) / tiny_clip.std), dim=-1)
    assert torch.equal(tiny_clip.encode_image(images), expected)


@pytest.mark.parametrize("size", [(40, 60), (60, 40), (16, 33), (12, 10)])
def test_preprocessing_is_that_of_open_clip(tiny_clip, size):
    """CLIP resizes 8-bit pictures with rounding, along one side and then the other: two half grey levels and a little,
    divided by the smallest std, is the tolerance."""
    generator = torch.Generator().manual_seed(0)
    smooth = F.interpolate(torch.rand(1, 3, 5, 5, generator=generator), size, mode="bilinear")
    picture = Image.fromarray((smooth[0].permute(1, 2, 0) * 255).byte().numpy())
    theirs = image_transform_v2(PreprocessCfg(size=16), is_train=False)(picture)[None]
    ours = tiny_clip.preprocess(torch.from_numpy(np.array(picture)).permute(2, 0, 1)[None].float() / 255)
    assert ours.shape == theirs.shape == (1, 3, 16, 16)
    assert (ours - theirs).abs().max() < 1.3 / 255 / 0.26


def test_the_gradient_reaches_the_pixels_through_the_resize(tiny_clip):
    images = torch.rand(2, 3, 24, 24, requires_grad=True)
    gradient, = torch.autograd.grad(tiny_clip.encode_image(images).sum(), images)
    assert gradient.abs().sum(dim=(1, 2, 3)).min() > 0


def test_logits_are_scaled_cosines(tiny_clip, classifier, images):
    texts = tiny_clip.encode_text([f"This is a photo of a {name}." for name in classifier.classnames])
    expected = tiny_clip.logit_scale * F.cosine_similarity(tiny_clip.encode_image(images)[:, None], texts[None], dim=-1)
    assert torch.allclose(classifier(images), expected, atol=1e-5)
    assert torch.equal(classifier(images), classifier.logits(images))


def test_ensembles_are_averaged_and_renormalised(tiny_clip):
    templates = ["a photo of a {}", "the drawing of the {}", "a {}"]
    ensemble = ZeroShotClassifier(tiny_clip, ["cat", "dog"], templates).text_features
    each = torch.stack([ZeroShotClassifier(tiny_clip, ["cat", "dog"], [template]).text_features
                        for template in templates])
    assert torch.allclose(ensemble, F.normalize(each.mean(0), dim=-1), atol=1e-6)
    assert torch.allclose(ensemble.norm(dim=1), torch.ones(2))


def test_the_text_is_encoded_once(tiny_clip, images, monkeypatch):
    calls, encode = [], tiny_clip.model.encode_text
    monkeypatch.setattr(tiny_clip.model, "encode_text", lambda tokens: calls.append(len(tokens)) or encode(tokens))
    classifier = ZeroShotClassifier(tiny_clip, ["cat", "dog"], ["a {}", "the {}"])
    classifier(images), classifier(images)
    assert calls == [4]


def test_the_digest_knows_every_weight(tiny_clip):
    other = copy.deepcopy(tiny_clip)
    assert other.digest == tiny_clip.digest and len(other.digest) == 64
    other.model.visual.conv1.weight.data[0, 0, 0, 0] += 1e-3
    assert other.digest != tiny_clip.digest


# class names and templates

def test_class_text_is_normalised_as_in_the_paper():
    assert normalize_classname("  Go-Kart_red/BLUE ") == "go kart red blue"
    assert check_classnames(["T-Rex", "sea_lion"]) == ["t rex", "sea lion"]


@pytest.mark.parametrize(("names", "message"), [
    ([], "no class names"), ([" ", ""], "no class names"), (["cat"], "only one class name"),
    (["cat", " ", "dog"], "class name 2 of 3 is blank"), (["go-kart", "dog", "Go Kart"], "duplicate .*'go kart'"),
    ("cat,dog", "single string")])
def test_bad_class_names(names, message):
    with pytest.raises(ClassNamesError, match=message):
        check_classnames(names)


@pytest.mark.parametrize("templates", [[], "a {}", ["a photo"], ["{} and {}"]])
def test_bad_templates(templates):
    with pytest.raises(ClassNamesError, match="template"):
        check_templates(templates)


def test_a_word_that_the_model_lacks(tiny_clip):
    with pytest.raises(VocabularyError, match="'cart'.*nearest: .*car"):
        ZeroShotClassifier(tiny_clip, ["cart", "dog"])


# images

GOOD = torch.full((2, 3, 8, 8), 0.5)


@pytest.mark.parametrize(("images", "message"), [
    (np.zeros((1, 3, 8, 8)), "expected a torch tensor, found ndarray"),
    (GOOD[0], r"images\[None\]"), (torch.rand(8, 8, 3), r"permute\(2, 0, 1\)\[None\]"),
    (torch.rand(2, 8, 8, 3), r"permute\(0, 3, 1, 2\)"), (torch.rand(2, 1, 8, 8), "three colour channels"),
    (GOOD[:0], "none empty"), ((GOOD * 255).byte(), r"images.float\(\) / 255"), (GOOD.double(), r"images.float\(\)"),
    (GOOD * 255, "divide by 255"), ((GOOD - 0.9) / 0.25, "normalised by mistake"), (GOOD + 0.51, "clamp"),
    (GOOD - 0.51, "clamp"), (GOOD * torch.nan, "NaN"), (GOOD / 0, "inf")])
def test_bad_images(images, message, classifier, tiny_clip):
    for entry in (check_images, classifier, tiny_clip.encode_image):
        with pytest.raises(PixelRangeError, match=message):
            entry(images)


def test_a_single_nan_is_found():
    images = GOOD.clone()
    images[1, 2, 3, 4] = torch.nan
    with pytest.raises(PixelRangeError, match="NaN"):
        check_images(images)


def test_the_edges_of_the_range_are_fine():
    check_images(torch.stack([torch.zeros(3, 8, 8), torch.ones(3, 8, 8)]))


# loading

def test_the_drawn_clip_loads_once(drawn_weights):
    clip = load_clip("drawn", pretrained=drawn_weights, device="cpu")
    assert clip is load_clip("drawn", pretrained=str(drawn_weights), device="cpu")
    assert clip.digest == load_clip("drawn", pretrained="random", device="cpu").digest
    assert clip.encode_image(torch.rand(2, 3, 30, 40)).shape == clip.encode_text(["a cat", "a dog"]).shape


def test_a_file_that_changed_is_read_again(drawn_weights, tmp_path):
    path, state = tmp_path / "mine.safetensors", load_file(drawn_weights)
    save_file(state, path)
    first = load_clip("drawn", pretrained=path, device="cpu").digest
    save_file({name: value + 1e-3 for name, value in state.items()}, path)
    assert load_clip("drawn", pretrained=path, device="cpu").digest != first


def test_a_torch_file_and_half_precision_load_too(drawn_weights, tmp_path):
    state = {f"module.{name}": value.half() for name, value in load_file(drawn_weights).items()}
    torch.save({"epoch": 3, "state_dict": state}, tmp_path / "half.pt")
    clip = load_clip("drawn", pretrained=tmp_path / "half.pt", device="cpu")
    assert clip.model.visual.conv1.weight.dtype == torch.float32


def test_unknown_model():
    with pytest.raises(UnknownNameError, match="'ViT-B-33'.*ViT-B-32"):
        load_clip("ViT-B-33", pretrained="openai")


def test_weights_are_never_random_by_accident():
    with pytest.raises(CheckpointError, match="needs weights.*openai.*'random'"):
        load_clip("ViT-B-32-quickgelu")


def test_missing_weights_are_named(tmp_path):
    for name in ("drawn", "ViT-B-32"):
        with pytest.raises(CheckpointError, match="missing weights file .*none.safetensors"):
            load_clip(name, pretrained=tmp_path / "none.safetensors")


def test_unknown_tag():
    with pytest.raises(CheckpointError, match="no weights 'opneai'.*openai"):
        load_clip("ViT-B-32-quickgelu", pretrained="opneai")


class Bomb:
    def __reduce__(self):
        return (pytest.fail, ("something was unpickled",))


def test_truncated_and_foreign_files(drawn_weights, tmp_path):
    whole = drawn_weights.read_bytes()
    torch.save(load_file(drawn_weights), tmp_path / "whole.pt")
    contents = {"short.safetensors": whole[:len(whole) // 2], "text.safetensors": b"not weights at all",
                "empty.pt": b"", "short.pt": (tmp_path / "whole.pt").read_bytes()[:5000], "text.pt": b"hello\n" * 100}
    for name, content in contents.items():
        (tmp_path / name).write_bytes(content)
    torch.save({"a": Bomb()}, tmp_path / "bomb.pt")
    torch.save([1, 2], tmp_path / "list.pt")
    for path in (*contents, "bomb.pt", "list.pt"):
        with pytest.raises(CheckpointError, match=path) as caught, warnings.catch_warnings(action="ignore"):
            load_clip("drawn", pretrained=tmp_path / path)
        assert "\n" not in str(caught.value)


def test_another_architecture_is_told(tiny_clip, tmp_path):
    save_file(tiny_clip.model.state_dict(), tmp_path / "tiny.safetensors")
    with pytest.raises(CheckpointError, match="another architecture than 'drawn'.*missing.*of another shape"):
        load_clip("drawn", pretrained=tmp_path / "tiny.safetensors")


def test_weights_with_nan_are_told(drawn_weights, tmp_path):
    state = load_file(drawn_weights)
    state["text_projection"][0, 0] = torch.nan
    save_file(state, tmp_path / "nan.safetensors")
    with pytest.raises(CheckpointError, match="NaN or infinite weights .text_projection"):
        load_clip("drawn", pretrained=tmp_path / "nan.safetensors")


@pytest.fixture
def small_openai(monkeypatch, tiny_clip, tiny_config):
    """ViT-B-32 and its quick sibling at the size of the tiny CLIP."""
    for name, quick in (("ViT-B-32", False), ("ViT-B-32-quickgelu", True)):
        monkeypatch.setitem(open_clip.factory._MODEL_CONFIGS, name, {**tiny_config, "quick_gelu": quick})
    return tiny_clip.model.state_dict()


def test_quickgelu_mismatch_by_tag():
    with pytest.raises(CheckpointError, match="QuickGELU mismatch.*'ViT-B-32-quickgelu'"):
        load_clip("ViT-B-32", pretrained="openai")
    with pytest.raises(CheckpointError, match="QuickGELU mismatch.*'ViT-B-32'"):
        load_clip("ViT-B-32-quickgelu", pretrained="laion2b_s34b_b79k")


def test_quickgelu_mismatch_by_file(small_openai, tmp_path):
    by_name, by_content = tmp_path / "openai.safetensors", tmp_path / "vit.pt"
    save_file(small_openai, by_name)
    torch.save(small_openai | {"context_length": torch.tensor(12)}, by_content)
    for path in (by_name, by_content):
        with pytest.raises(CheckpointError, match="QuickGELU mismatch.*'ViT-B-32-quickgelu'"):
            load_clip("ViT-B-32", pretrained=path, device="cpu")
        quick = load_clip("ViT-B-32-quickgelu", pretrained=path, device="cpu")
        assert any("QuickGELU" in type(module).__name__ for module in quick.modules())


def test_a_download_that_fails_says_what_to_fetch(monkeypatch, tmp_path):
    def offline(config):
        raise FileNotFoundError("no network\nmore lines")

    monkeypatch.setattr(checkpoints, "download_pretrained", offline)
    monkeypatch.setattr(checkpoints.huggingface_hub, "try_to_load_from_cache", lambda *of: None)
    with pytest.raises(CheckpointError, match="'openai' of 'ViT-B-32-quickgelu'.*huggingface.co/timm/") as caught:
        checkpoints.weights_source("ViT-B-32-quickgelu", "openai")
    assert "\n" not in str(caught.value)


def test_published_weights_in_the_local_cache_need_no_network(monkeypatch, small_openai, tmp_path):
    path = tmp_path / "open_clip_model.safetensors"
    save_file(small_openai, path)
    monkeypatch.setattr(checkpoints.huggingface_hub, "try_to_load_from_cache", lambda *of: str(path))
    clip = load_clip("ViT-B-32-quickgelu", pretrained="openai", device="cpu")
    assert isinstance(clip, Clip) and torch.equal(clip.model.state_dict()["text_projection"],
                                                  small_openai["text_projection"])
