"""Pad and token prompts: where they act, on which towers, how many numbers they are, and what they refuse."""

import copy
from functools import partial
from types import SimpleNamespace

import numpy as np
import open_clip
import open_clip.timm_model
import pytest
import timm
import torch

from zsar.clip import Clip, load_clip
from zsar.errors import CheckpointError, PromptError
from zsar.methods import load_adapted, make_student, trainable
from zsar.prompts import PadPrompt, TokenPrompt, attach, token_places
from zsar.recipes import Recipe

TEXT = {"context_length": 4, "vocab_size": 8, "width": 16, "heads": 1, "layers": 1}
VIT = {"image_size": 32, "patch_size": 8, "width": 32, "head_width": 16, "layers": 2}
#: Towers of open_clip's own that no name of its list has, but that its configurations can say.
UNNAMED = {"sine positions": {"pos_embed_type": "sin_cos_2d"}, "attentional pool": {"attentional_pool": True},
           "parallel pools": {"attentional_pool": "parallel"}, "cascaded pools": {"attentional_pool": "cascade"},
           "pool of the patches": {"pool_type": "avg"}, "custom blocks": {"qk_norm": True, "scale_heads": True}}


def plain_towers() -> dict[str, dict]:
    """The vision transformers among open_clip's configurations, one of each kind, made small."""
    found: dict[str, tuple[str, dict]] = {}
    for name in open_clip.list_models():
        config = open_clip.get_model_config(name)
        vision, trunk = config["vision_cfg"], config["vision_cfg"].get("timm_model_name", "")
        if {"multimodal_cfg", "hf_model_name"} & {*config, *config["text_cfg"]}:
            continue
        if isinstance(vision.get("layers"), int) and not trunk:
            found.setdefault(str(sorted(vision.keys() - VIT.keys())), (name, vision | VIT))
        elif trunk.startswith(("vit_", "vitamin_small", "eva")) and "relpos" not in trunk:
            found.setdefault(trunk.rsplit("_", 1)[0], (name, vision))
    return dict(found.values()) | {name: VIT | change for name, change in UNNAMED.items()}


TOWERS = plain_towers()


def shrunk(monkeypatch, name: str, vision: dict) -> Clip:
    """A CLIP with the image tower ``vision``, of few layers and little width, and random weights."""
    trunk, width = vision.get("timm_model_name", ""), 32
    small = {"depth": 1}
    if "mci" in trunk:
        width = 768  # its stem has this width and no other
    elif trunk and "vitamin" not in trunk:
        width = 48
        small = {"depth": 2, "embed_dim": width, "num_heads": 2}
    monkeypatch.setattr(open_clip.timm_model, "timm",
                        SimpleNamespace(create_model=partial(timm.create_model, **small)))
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = open_clip.CLIP(embed_dim=width, vision_cfg=vision, text_cfg=TEXT)
    return Clip(model, lambda texts: torch.zeros(len(texts), 4, dtype=torch.int64), name=name)


def pictures(clip: Clip, n: int = 2) -> torch.Tensor:
    return torch.rand(n, 3, clip.image_size, clip.image_size, generator=torch.Generator().manual_seed(3))


def loud(prompt: torch.nn.Module) -> torch.nn.Module:
    """The prompt with numbers that no model can overlook."""
    with torch.no_grad():
        for value in prompt.parameters():
            value.copy_(torch.randn(value.shape, generator=torch.Generator().manual_seed(5)))
    return prompt


def tower_by_hand(tower: torch.nn.Module, images: torch.Tensor, tokens: torch.Tensor) -> torch.Tensor:
    """What open_clip's VisionTransformer computes, with tokens behind the picture's, and off before the pooling."""
    batch = len(images)
    x = tower.conv1(images).flatten(2).transpose(1, 2)
    x = torch.cat([tower.class_embedding.expand(batch, 1, -1), x], dim=1) + tower.positional_embedding
    x = tower.ln_pre(torch.cat([x, tokens.expand(batch, -1, -1)], dim=1))
    for block in tower.transformer.resblocks:
        x = block(x)
    x = x[:, :1 + tower.grid_size[0] * tower.grid_size[1]]
    if tower.attn_pool is not None:
        pooled = tower._pool(x)[0]
    elif tower.pool_type == "tok":
        pooled = tower.ln_post(x[:, 0])
    elif tower.final_ln_after_pool:
        pooled = tower.ln_post(x[:, 1:].mean(1))
    else:
        pooled = tower.ln_post(x)[:, 1:].mean(1)
    return pooled @ tower.proj


def trunk_by_hand(tower: torch.nn.Module, images: torch.Tensor, tokens: torch.Tensor) -> torch.Tensor:
    """The same for timm's VisionTransformer; for its Eva with the tokens in front, among those without a position."""
    trunk, embedded = tower.trunk, tower.trunk._pos_embed(tower.trunk.patch_embed(images))
    tokens = tokens.expand(len(images), -1, -1)
    if isinstance(embedded, tuple):
        embedded, rope = embedded
        for block in trunk.blocks:
            block.attn.num_prefix_tokens += tokens.shape[1]
        x = trunk.norm_pre(torch.cat([tokens, embedded], dim=1))
        for block in trunk.blocks:
            x = block(x, rope=rope)
            block.attn.num_prefix_tokens -= tokens.shape[1]
        x = x[:, tokens.shape[1]:]
    else:
        x = trunk.blocks(trunk.norm_pre(torch.cat([embedded, tokens], dim=1)))[:, :embedded.shape[1]]
    return tower.head(trunk.forward_head(trunk.norm(x)))


# how many numbers

@pytest.fixture(scope="module")
def vit_b_32() -> Clip:
    return load_clip("ViT-B-32-quickgelu", pretrained="random", device="cpu")


def count(parameters) -> int:
    return sum(value.numel() for value in parameters)


def test_parameter_counts_are_the_papers(vit_b_32):
    assert count(vit_b_32.model.parameters()) == 151_277_313
    assert count(vit_b_32.model.visual.parameters()) == 87_849_216
    assert count(PadPrompt(40, 224).parameters()) == 88_320
    assert count(TokenPrompt(200, 768).parameters()) == 153_600


@pytest.mark.parametrize(("method", "expected"), [
    ("pad", 88_320), ("token", 153_600), ("pad+token", 241_920), ("blocks-1", 7_087_872), ("blocks-2", 14_175_744),
    ("finetune", 87_849_216), ("finetune+pad+token", 87_849_216 + 241_920)])
def test_trainable_numbers_of_vit_b_32(vit_b_32, method, expected):
    student = make_student(vit_b_32, method, pad=40, tokens=200)
    assert count(trainable(student).values()) == expected
    assert not trainable(vit_b_32)


def test_drawn_sizes_are_in_the_papers_proportion():
    recipe, clip = Recipe(), load_clip("drawn", device="cpu")
    patches = clip.model.visual.positional_embedding.shape[0] - 1
    assert recipe.pad == round(40 / 224 * clip.image_size) == 9
    assert recipe.tokens == 4 * patches == 144
    student = make_student(clip, "pad+token", pad=recipe.pad, tokens=recipe.tokens)
    width = clip.model.visual.class_embedding.numel()
    assert count(trainable(student).values()) == 3 * 4 * 9 * (clip.image_size - 9) + 144 * width


@pytest.mark.parametrize(("pad", "size"), [(1, 2), (1, 7), (3, 7), (9, 48), (8, 16)])
def test_pad_prompt_is_a_frame(pad, size):
    frame = loud(PadPrompt(pad, size)).frame()
    inside = torch.zeros(size, size, dtype=torch.bool)
    inside[pad:size - pad, pad:size - pad] = True
    assert frame.shape == (3, size, size)
    assert frame[:, inside].eq(0).all()
    assert frame[:, ~inside].ne(0).all()
    assert count(PadPrompt(pad, size).parameters()) == 12 * pad * (size - pad)


# what they compute

@pytest.mark.parametrize("size", [16, 12, 40])
def test_pad_is_added_to_the_normalised_image_of_the_models_size(tiny_clip, size):
    student = make_student(tiny_clip, "pad", pad=3)
    prompt = loud(student.model.prompts["pad"])
    images = torch.rand(2, 3, size, size + 4, generator=torch.Generator().manual_seed(0))
    by_hand = tiny_clip.model.visual(tiny_clip.preprocess(images) + prompt.frame())
    assert torch.equal(student.embed(images), by_hand)
    assert not torch.allclose(by_hand, tiny_clip.embed(images))


def test_a_fresh_pad_prompt_changes_no_bit(tiny_clip, images):
    student = make_student(tiny_clip, "pad", pad=8)
    with torch.no_grad():  # torch computes attention otherwise, and differently in the last bit, where it keeps a graph
        assert torch.equal(student.embed(images), tiny_clip.embed(images))


@pytest.mark.parametrize("name", TOWERS)
def test_tokens_join_before_the_first_norm_and_leave_before_the_pooling(monkeypatch, name):
    clip = shrunk(monkeypatch, name, TOWERS[name])
    images, (_, blocks, width) = pictures(clip), token_places(clip)
    tokens = loud(TokenPrompt(5, width))
    by_hand = trunk_by_hand if hasattr(clip.model.visual, "trunk") else tower_by_hand
    lengths = []
    blocks[0].register_forward_pre_hook(lambda block, inputs: lengths.append(inputs[0].shape[1]))
    with torch.no_grad():
        plain = clip.embed(images)
        assert torch.allclose(by_hand(clip.model.visual, clip.preprocess(images), tokens.tokens[:0]), plain, atol=1e-5)
        expected = by_hand(clip.model.visual, clip.preprocess(images), tokens.tokens)
        lengths.clear()
        found = attach(clip, tokens).embed(images)
        blocks[-1].register_forward_hook(lambda block, inputs, output: lengths.append(output.shape[1]))
        clip.embed(images)
    spread = (expected - plain).abs().max()
    assert lengths[0] - lengths[-1] == 5
    assert spread > 0
    assert (found - expected).abs().max() < 1e-2 * spread + 1e-7


@pytest.mark.parametrize("name", ["ViT-B-16", "ViT-B-16-SigLIP", "EVA02-B-16", "PE-Core-B-16"])
def test_every_method_on_towers_of_other_families(monkeypatch, name):
    vision = open_clip.get_model_config(name)["vision_cfg"]
    clip = shrunk(monkeypatch, name, vision if "timm_model_name" in vision else vision | VIT)
    for method in ("finetune+pad+token", "blocks-1+pad+token"):
        student = make_student(clip, method, pad=3, tokens=2)
        student.embed(pictures(clip)).square().sum().backward()
        names = [name for name, value in trainable(student.model).items() if value.grad is None]
        assert not names, f"{method}: no gradient for {names}"
    blocks = [value for name, value in trainable(student.model).items() if not name.startswith("prompts.")]
    assert count(blocks) == count(token_places(clip)[1][-1].parameters())


def test_tokens_work_with_gradient_checkpointing(tiny_clip, images):
    student = make_student(tiny_clip, "token", tokens=3)
    expected = student.embed(images)
    student.model.visual.set_grad_checkpointing()
    student.train()
    assert torch.equal(student.embed(images), expected)


def test_prompts_keep_the_precision_of_the_tower(tiny_clip, images):
    student = make_student(tiny_clip, "pad+token", pad=3, tokens=4)
    with torch.autocast("cpu", torch.bfloat16):
        half = student.embed(images)
    half.sum().backward()
    assert half.dtype == torch.float32
    assert all(value.grad.dtype == torch.float32 for value in trainable(student).values())
    assert torch.nn.functional.cosine_similarity(half, student.embed(images)).min() > 0.999


def test_tokens_begin_apart_and_by_their_seed():
    tokens = TokenPrompt(50, 64, seed=1).tokens
    assert torch.equal(tokens, TokenPrompt(50, 64, seed=1).tokens)
    assert not torch.allclose(tokens, TokenPrompt(50, 64, seed=2).tokens)
    assert tokens.std().item() == pytest.approx(1, rel=0.05)
    assert torch.pdist(tokens).min() > 4


# prompts of the released code

def save_authors(path, *, pad=3, size=16, tokens=5, width=32, **change):
    """A file as ``visual_prompt.py`` of Mao et al. writes it, its prompters wrapped by DataParallel."""
    shapes = {"pad_up": (pad, size), "pad_down": (pad, size), "pad_left": (size - 2 * pad, pad),
              "pad_right": (size - 2 * pad, pad)}
    generator = torch.Generator().manual_seed(7)
    sides = {name: torch.randn(1, 3, *shape, generator=generator) for name, shape in shapes.items()}
    state = {"epoch": 2, "state_dict": {f"module.{name}": value for name, value in sides.items()},
             "add_prompter": {"module.prompt": torch.randn(1, tokens, width, generator=generator)},
             "best_acc1": np.mean([31.5, 40.25]), "optimizer": {"state": {}, "param_groups": [{"lr": np.float64(40)}]}}
    torch.save(state | change, path)
    return sides, state["add_prompter"]["module.prompt"][0]


@pytest.mark.parametrize("pad", [1, 3, 8])
def test_prompts_of_mao_et_al_are_the_same_function(tiny_clip, images, tmp_path, pad):
    sides, tokens = save_authors(tmp_path / "model_best.pth.tar", pad=pad)
    frame, inside = torch.zeros(3, 16, 16), slice(pad, 16 - pad)
    frame[:, :pad], frame[:, 16 - pad:] = sides["pad_up"][0], sides["pad_down"][0]
    frame[:, inside, :pad], frame[:, inside, 16 - pad:] = sides["pad_left"][0], sides["pad_right"][0]
    before, clip = tiny_clip.digest, load_adapted(tmp_path / "model_best.pth.tar", tiny_clip)
    assert torch.equal(clip.model.prompts["pad"].frame(), frame)
    with torch.no_grad():
        by_hand = tower_by_hand(tiny_clip.model.visual, tiny_clip.preprocess(images) + frame, tokens)
        assert torch.allclose(clip.embed(images), by_hand, atol=1e-6)
        assert not torch.allclose(tiny_clip.embed(images), by_hand, atol=1e-2)
    assert clip.name == "tiny, pad+token" and not trainable(clip) and tiny_clip.digest == before


@pytest.mark.parametrize(("sizes", "kinds"), [({"tokens": 0}, ["pad"]), ({"pad": 0}, ["token"]),
                                              ({"state_dict": {}}, ["token"])])
def test_one_kind_of_prompt_of_mao_et_al(tiny_clip, tmp_path, sizes, kinds):
    save_authors(tmp_path / "one.pth.tar", **sizes)
    clip = load_adapted(tmp_path / "one.pth.tar", tiny_clip)
    assert list(clip.model.prompts) == kinds and clip.name == f"tiny, {kinds[0]}"


@pytest.mark.parametrize(("change", "error", "message"), [
    ({"size": 24}, PromptError, "for images of 24 pixels: tiny sees 16"),
    ({"width": 64}, PromptError, "width 64: the tokens of tiny have 32"),
    ({"state_dict": {"module.patch": torch.ones(1, 3, 4, 4)}}, PromptError, r"patch \[1, 3, 4, 4\].*expected pad_up"),
    ({"state_dict": {"module.pad_up": torch.ones(1, 3, 4, 16)}}, PromptError, r"pad_up \[1, 3, 4, 16\].*expected"),
    ({"add_prompter": {"module.prompt": torch.ones(4)}}, PromptError, r"prompt \[4\].*expected"),
    ({"add_prompter": {"prompt": torch.ones(1, 4, 32), "pos_embedding": torch.ones(1, 4, 1)}}, PromptError, "pos_emb"),
    ({"add_prompter": {"prompt": torch.full((1, 4, 32), torch.nan)}}, CheckpointError, "NaN or infinite prompts"),
    ({"vision_encoder_state_dict": {}}, CheckpointError, "weights are given as pretrained"),
    ({"pad": 0, "tokens": 0}, CheckpointError, "no checkpoint of visual prompts alone")])
def test_other_prompts_are_refused(tiny_clip, tmp_path, change, error, message):
    save_authors(tmp_path / "other.pth.tar", **change)
    with pytest.raises(error, match=message) as caught:
        load_adapted(tmp_path / "other.pth.tar", tiny_clip)
    assert "\n" not in str(caught.value)


# gradients and copies

def test_gradients_reach_both_prompts_and_nothing_else(tiny_clip, images):
    student = make_student(tiny_clip, "pad+token", pad=3, tokens=4)
    student.embed(images).sum().backward()
    with_gradient = {name for name, value in student.named_parameters() if value.grad is not None}
    assert with_gradient == {"model.prompts.pad.values", "model.prompts.token.tokens"}
    assert all(value.grad.abs().sum() > 0 for value in trainable(student).values())


@pytest.mark.parametrize("kind", ["pad", "token"])
def test_an_attack_goes_through_the_prompt(tiny_clip, images, kind):
    student = make_student(tiny_clip, kind, pad=3, tokens=4).requires_grad_(False)
    prompt = loud(student.model.prompts[kind])

    def gradient(embed) -> torch.Tensor:
        inputs = images.clone().requires_grad_()
        return torch.autograd.grad(embed(inputs).square().sum(), inputs)[0]

    def by_hand(inputs: torch.Tensor) -> torch.Tensor:
        inputs, tokens = tiny_clip.preprocess(inputs), torch.zeros(0, 32)
        return tower_by_hand(tiny_clip.model.visual, *((inputs + prompt.frame(), tokens) if kind == "pad" else
                                                       (inputs, prompt.tokens)))

    assert torch.allclose(gradient(student.embed), gradient(by_hand), atol=1e-5)
    assert not torch.allclose(gradient(student.embed), gradient(tiny_clip.embed), atol=1e-3)


@pytest.mark.parametrize("kind", ["pad", "token"])
def test_the_hooks_of_a_copy_belong_to_the_copy(tiny_clip, images, kind):
    student = make_student(tiny_clip, "pad+token", pad=3, tokens=4).requires_grad_(False)
    before, digest = student.embed(images), student.digest
    other = copy.deepcopy(student)
    assert torch.equal(other.embed(images), before)
    loud(other.model.prompts[kind])
    assert not torch.allclose(other.embed(images), before, atol=1e-3)
    assert torch.equal(student.embed(images), before)
    assert student.digest == digest != other.digest


# what is refused

@pytest.mark.parametrize(("pad", "size"), [(0, 16), (-1, 16), (9, 16), (16, 16), (2.5, 16), (300, 224)])
def test_a_frame_that_does_not_fit_is_refused(pad, size):
    with pytest.raises(PromptError, match=f"{pad} pixels on an image of {size}: expected a whole number from 1 to"):
        PadPrompt(pad, size)


@pytest.mark.parametrize("n", [0, -3])
def test_no_tokens_are_refused(n):
    with pytest.raises(PromptError, match=f"{n} tokens: expected a whole number of at least 1"):
        TokenPrompt(n, 32)


def test_tokens_without_numbers_are_refused():
    with pytest.raises(PromptError, match="0 numbers a token"):
        TokenPrompt(4, 0)


@pytest.mark.parametrize(("prompts", "message"), [
    ([PadPrompt(3, 24)], "for images of 24 pixels: tiny sees 16"),
    ([TokenPrompt(2, 64)], "width 64: the tokens of tiny have 32"),
    ([PadPrompt(3, 16), PadPrompt(2, 16)], "has a pad prompt already"),
    ([PadPrompt(3, 16), TokenPrompt(2, 33)], "width 33"),
    ([TokenPrompt(2, 32), TokenPrompt(2, 32)], "has a token prompt already")])
def test_a_prompt_that_does_not_fit_leaves_the_clip_as_it_was(tiny_clip, images, prompts, message):
    clip = copy.deepcopy(tiny_clip)
    with pytest.raises(PromptError, match=message) as caught:
        attach(clip, *map(loud, prompts))
    assert "\n" not in str(caught.value)
    assert clip.digest == tiny_clip.digest
    assert torch.equal(clip.embed(images), tiny_clip.embed(images))


def test_a_second_prompt_of_a_kind_is_refused_and_of_the_other_kind_joins(tiny_clip, images):
    clip = make_student(tiny_clip, "pad", pad=3)
    with pytest.raises(PromptError, match="has a pad prompt already: start from a fresh copy"):
        attach(clip, PadPrompt(3, 16))
    attach(clip, TokenPrompt(2, 32))
    both = make_student(tiny_clip, "pad+token", pad=3, tokens=2)
    assert torch.equal(clip.embed(images), both.embed(images))
    assert clip.digest == both.digest


@pytest.fixture(scope="module")
def resnet() -> Clip:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = open_clip.CLIP(embed_dim=16, text_cfg=TEXT, vision_cfg={
            "image_size": 32, "layers": [1, 1, 1, 1], "width": 8, "patch_size": None})
    return Clip(model, lambda texts: torch.zeros(len(texts), 4, dtype=torch.int64), name="RN-tiny")


@pytest.mark.parametrize("method", ["token", "pad+token", "blocks-1"])
def test_a_resnet_refuses_tokens_and_blocks_in_one_clear_line(resnet, method):
    with pytest.raises(PromptError, match="RN-tiny has an image tower of kind ModifiedResNet: tokens and blocks-k need "
                       ".*; pad and finetune work with any tower") as caught:
        make_student(resnet, method, pad=3, tokens=2)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("method", ["pad", "finetune", "finetune+pad"])
def test_a_resnet_takes_a_pad_prompt_and_finetuning(resnet, method):
    student = make_student(resnet, method, pad=3)
    images = pictures(student)
    assert torch.equal(student.embed(images), resnet.embed(images))
    student.embed(images).square().sum().backward()
    assert all(value.grad is not None for value in trainable(student).values())
    if "pad" in method:
        frame = loud(student.model.prompts["pad"]).frame()
        assert torch.allclose(student.embed(images), resnet.model.visual(resnet.preprocess(images) + frame))
