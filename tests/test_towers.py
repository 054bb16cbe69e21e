"""A trimmed tower: the same embeddings, gradients and training for less."""

import copy

import open_clip
import pytest
import torch
import torch.nn.functional as F

from zsar.attention import self_attention
from zsar.clip import load_clip
from zsar.methods import make_student
from zsar.towers import ClassTokenBlock, PackedBlock, PatchProduct, is_plain, trim


@pytest.fixture(scope="module")
def clip():
    return load_clip("drawn", pretrained="random", device="cpu")


@pytest.fixture(scope="module")
def plain(clip):
    found = copy.deepcopy(clip)
    trim(found.model.visual, False)
    return found


@pytest.fixture(scope="module")
def pictures():
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return torch.rand(6, 3, 48, 48)


def test_only_the_kinds_of_modules_differ(clip, plain):
    kinds = {PatchProduct, PackedBlock, ClassTokenBlock}
    assert kinds <= set(map(type, clip.model.visual.modules()))
    assert not kinds & set(map(type, plain.model.visual.modules()))
    assert clip.digest == plain.digest
    assert kinds <= set(map(type, copy.deepcopy(clip).model.visual.modules()))


def test_the_embeddings_are_those_of_open_clip(clip, plain, pictures):
    assert torch.allclose(clip.embed(pictures), plain.embed(pictures), atol=1e-5)
    whole = plain.model.encode_image(plain.preprocess(pictures), normalize=True)
    assert torch.allclose(clip.encode_image(pictures), whole, atol=1e-6)


def test_the_gradients_are_those_of_open_clip(clip, plain, pictures):
    found = []
    for model in map(copy.deepcopy, (clip, plain)):
        model.requires_grad_(True)
        points = pictures.clone().requires_grad_()
        model.embed(points).square().sum().backward()
        found.append([points.grad, *(weight.grad for weight in model.model.visual.parameters())])
    for ours, theirs in zip(*found, strict=True):
        assert F.cosine_similarity(ours.flatten(), theirs.flatten(), dim=0) > 1 - 1e-5


@pytest.mark.parametrize("method", ["token", "pad+token"])
def test_prompts_reach_the_class_token(method, clip, plain, pictures):
    embeddings = []
    for original in (clip, plain):
        student = make_student(original, method, pad=3, tokens=5)
        with torch.no_grad():
            for weight in student.parameters():
                if weight.requires_grad:
                    weight.fill_(.3)
        embeddings.append(student.embed(pictures))
    assert torch.allclose(*embeddings, atol=1e-5)
    assert not torch.allclose(embeddings[0], clip.embed(pictures), atol=1e-3)


@pytest.mark.parametrize(("name", "kept"), [("ViT-B-32", True), ("RN50", False), ("coca_ViT-B-32", False)])
def test_other_towers_are_left_as_they_are(name, kept):
    config = open_clip.get_model_config(name)["vision_cfg"]
    with torch.device("meta"):
        tower = open_clip.model._build_vision_tower(64, open_clip.model.CLIPVisionCfg(**config))
    trim(tower)
    assert is_plain(tower) == kept
    assert any(isinstance(part, ClassTokenBlock) for part in tower.modules()) == kept


def test_more_tokens_than_a_head_holds_at_once():
    """Those of ViT-B/16 and of larger ones go to torch's own attention."""
    packed = torch.randn(2, 80, 3 * 64, generator=torch.Generator().manual_seed(0))
    for tokens in (packed[:, :64], packed):
        points = tokens.clone().requires_grad_()
        queries, keys, values = points.unflatten(2, (3, 2, 32)).permute(2, 0, 3, 1, 4)
        expected = (queries @ keys.mT / 32**.5).softmax(3) @ values
        found = self_attention(points, 2)
        assert torch.allclose(found, expected.transpose(1, 2).flatten(2), atol=1e-5)
        both = [torch.autograd.grad(out.square().sum(), points, retain_graph=True)[0] for out in (found, expected)]
        assert torch.allclose(*both, atol=1e-5)


def test_whoever_listens_to_attention_is_called(clip, pictures):
    heard, listened = [], copy.deepcopy(clip)
    for block in listened.model.visual.transformer.resblocks:
        block.attn.register_forward_hook(lambda attention, given, found: heard.append(attention))
    assert torch.allclose(listened.embed(pictures), clip.embed(pictures), atol=1e-5)
    assert len(heard) == len(listened.model.visual.transformer.resblocks)
