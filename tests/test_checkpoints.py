"""Weights of every layout that people publish: genuine files made from small models with random weights."""

import copy
import io
import json
import shutil
import zipfile
from collections import OrderedDict

import huggingface_hub
import numpy as np
import open_clip
import pytest
import torch
import torch.nn.functional as F
from open_clip.model import set_model_preprocess_cfg
from open_clip.push_to_hf_hub import save_for_hf
from safetensors.torch import save_file

from zsar import checkpoints
from zsar import clip as clip_module
from zsar.checkpoints import read_tensors
from zsar.clip import load_clip
from zsar.errors import CheckpointError, UnknownNameError

QUICK = "ViT-B-32-quickgelu"
CONFIG = {"embed_dim": 16, "quick_gelu": True,
          "vision_cfg": {"image_size": 16, "patch_size": 8, "width": 32, "head_width": 16, "layers": 2},
          "text_cfg": {"context_length": 20, "vocab_size": 49408, "width": 16, "heads": 2, "layers": 1}}
TEXTS = ["a cat", "This is a photo of a dog."]
OPENAI_REPOSITORY = "timm/vit_base_patch32_clip_224.openai"
FARE_REPOSITORY = "chs20/fare2-clip"


def random_model(seed: int, **changes) -> open_clip.CLIP:
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return open_clip.CLIP(**CONFIG | changes).eval().requires_grad_(False)


@pytest.fixture(scope="module")
def openai():
    """The model that stands for OpenAI's: text tower and logit scale come from it."""
    return random_model(1)


@pytest.fixture(scope="module")
def robust():
    """The model whose image tower somebody trained; its text tower must not be seen again."""
    return random_model(2)


@pytest.fixture
def cache(tmp_path, monkeypatch):
    """An empty Hugging Face cache on a machine without network."""
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    clip_module._load.cache_clear()
    yield tmp_path / "cache"
    clip_module._load.cache_clear()


@pytest.fixture
def small(cache, monkeypatch, openai):
    """ViT-B-32 at a small size, quick and not, with the weights of the tag openai in the cache."""
    for name, quick in (("ViT-B-32", False), (QUICK, True)):
        monkeypatch.setitem(open_clip.factory._MODEL_CONFIGS, name, CONFIG | {"quick_gelu": quick})
    save_file(openai.state_dict(), into_cache(cache, OPENAI_REPOSITORY) / "open_clip_model.safetensors")


def into_cache(cache, repository):
    """The folder in which huggingface_hub keeps the files of a repository."""
    folder = cache / f"models--{repository.replace('/', '--')}"
    (folder / "refs").mkdir(parents=True)
    (folder / "refs" / "main").write_text("0" * 40)
    (folder / "snapshots" / ("0" * 40)).mkdir(parents=True)
    return folder / "snapshots" / ("0" * 40)


def save_tecoa(path, tower, prompt=(1, 0, 32), pads=()):
    """What the finetuning of Mao et al. saves: best accuracy and learning rate are numbers of numpy."""
    parameter = torch.nn.Parameter(torch.ones(3))
    optimizer = torch.optim.SGD([parameter], lr=1.0, momentum=0.9)
    parameter.sum().backward()
    optimizer.step()
    optimizer.param_groups[0]["lr"] = 0.5 * (1 + np.cos(np.pi / 3)) * 1e-5
    state = {"epoch": 10, "state_dict": OrderedDict(pads), "add_prompter": {"module.prompt": torch.randn(prompt)},
             "best_acc1": np.mean([31.5, 40.25]), "optimizer": optimizer.state_dict()}
    torch.save(state | ({"vision_encoder_state_dict": tower} if tower else {}), path)
    return path


def as_of_numpy_1(path):
    """The same torch file with numpy's numbers named as numpy 1 named them."""
    old, new = zipfile.ZipFile(io.BytesIO(path.read_bytes())), zipfile.ZipFile(path, "w")
    for item in old.infolist():
        content = old.read(item)
        if item.filename.endswith("data.pkl"):
            assert b"numpy._core.multiarray" in content
            content = content.replace(b"numpy._core.multiarray", b"numpy.core.multiarray")
        new.writestr(item.filename, content)
    new.close()


def check(clip, images, tower, rest):
    """The pictures' features are those of ``tower``, bit for bit; text and scale are those of ``rest``."""
    with torch.no_grad():
        expected = F.normalize(tower.encode_image((images - clip.mean) / clip.std), dim=-1)
        tokens = F.pad(open_clip.tokenize(TEXTS, 12), (0, 8))
        assert torch.equal(clip.encode_text(TEXTS), F.normalize(rest.encode_text(tokens), dim=-1))
    assert torch.allclose(clip.encode_image(images), expected, atol=2e-6, rtol=0)  # the last block sums otherwise
    assert clip.logit_scale == rest.logit_scale.exp().item()
    assert {value.dtype for value in clip.model.state_dict().values()} == {torch.float32}


# image towers

@pytest.mark.parametrize("numpy_1", [False, True])
@pytest.mark.parametrize("prefix", ["", "module."])
def test_tecoa_of_the_authors(numpy_1, prefix, small, robust, openai, images, tmp_path):
    tower = {prefix + name: value for name, value in robust.visual.state_dict().items()}
    path = save_tecoa(tmp_path / "model_best.pth.tar", tower)
    if numpy_1:
        as_of_numpy_1(path)
    check(load_clip(QUICK, pretrained=path, device="cpu"), images, robust, openai)


def test_half_precision_becomes_single(small, robust, openai, images, tmp_path):
    rounded = copy.deepcopy(robust).half()
    path = save_tecoa(tmp_path / "half.pth.tar", rounded.visual.state_dict())
    check(load_clip(QUICK, pretrained=path, device="cpu"), images, rounded.float(), openai)


@pytest.mark.parametrize("layout", ["bare", "safetensors", "nested", "visual"])
def test_fare_of_robustvlm(layout, small, robust, openai, images, tmp_path):
    tower, path = robust.visual.state_dict(), tmp_path / "fare_eps_2.pt"
    if layout == "safetensors":
        path = path.with_suffix(".safetensors")
        save_file(tower, path)
    else:
        torch.save({"bare": tower, "nested": {"vision_encoder_state_dict": tower},
                    "visual": {f"visual.{name}": value for name, value in tower.items()}}[layout], path)
    check(load_clip(QUICK, pretrained=path, device="cpu"), images, robust, openai)


def test_a_tower_on_weights_that_are_named(small, robust, openai, images, tmp_path):
    other = random_model(3)
    torch.save(other.state_dict(), tmp_path / "other.pt")
    torch.save(robust.visual.state_dict(), tmp_path / "a+b.pt")
    for base, rest in (("openai", openai), (tmp_path / "other.pt", other)):
        clip = load_clip(QUICK, pretrained=f"{base}+{tmp_path / 'a+b.pt'}", device="cpu")
        check(clip, images, robust, rest)
    check(load_clip(QUICK, pretrained=tmp_path / "a+b.pt", device="cpu"), images, robust, openai)


def test_a_tower_that_changed_is_read_again(small, robust, tmp_path):
    path = tmp_path / "tower.pt"
    torch.save(robust.visual.state_dict(), path)
    first = load_clip(QUICK, pretrained=f"openai+{path}", device="cpu").digest
    assert first == load_clip(QUICK, pretrained=path, device="cpu").digest
    torch.save(random_model(3).visual.state_dict(), path)
    assert load_clip(QUICK, pretrained=f"openai+{path}", device="cpu").digest != first


def test_a_tower_of_the_drawn_clip(drawn_weights, tmp_path):
    drawn = load_clip("drawn", pretrained=drawn_weights, device="cpu").model
    torch.save({name: value + 1e-3 for name, value in drawn.visual.state_dict().items()}, tmp_path / "tower.pt")
    clip = load_clip("drawn", pretrained=f"{drawn_weights}+{tmp_path / 'tower.pt'}", device="cpu")
    assert torch.equal(clip.model.text_projection, drawn.text_projection)
    assert torch.equal(clip.model.visual.proj, drawn.visual.proj + 1e-3)


def test_a_tower_of_openai_needs_quickgelu(small, robust, tmp_path):
    path = save_tecoa(tmp_path / "tecoa.pth.tar", robust.visual.state_dict())
    for pretrained in (path, f"openai+{path}"):
        with pytest.raises(CheckpointError, match="QuickGELU mismatch.*'ViT-B-32-quickgelu'"):
            load_clip("ViT-B-32", pretrained=pretrained, device="cpu")


def test_a_tower_whose_rest_is_unknown(robust, tmp_path):
    torch.save(robust.visual.state_dict(), tmp_path / "tower.pt")
    with pytest.raises(CheckpointError, match="image tower only.*'ViT-B-32-256'.*TAG.FILE.*datacomp"):
        load_clip("ViT-B-32-256", pretrained=tmp_path / "tower.pt", device="cpu")


def test_a_whole_clip_is_no_tower(small, robust, tmp_path):
    torch.save(robust.state_dict(), tmp_path / "whole.pt")
    with pytest.raises(CheckpointError, match="whole.pt holds more than an image tower: give it alone"):
        load_clip(QUICK, pretrained=f"openai+{tmp_path / 'whole.pt'}", device="cpu")
    check_text = load_clip(QUICK, pretrained=tmp_path / "whole.pt", device="cpu").model.text_projection
    assert torch.equal(check_text, robust.text_projection)


def test_names_and_shapes_are_those_of_openais_vit_b_32():
    """As in the package clip of OpenAI, whose model.visual.state_dict() TeCoA's files hold."""
    names = {"class_embedding": (768,), "positional_embedding": (50, 768), "proj": (768, 512),
             "conv1.weight": (768, 3, 32, 32)}
    names |= {f"ln_{place}.{kind}": (768,) for place in ("pre", "post") for kind in ("weight", "bias")}
    block = {"attn.in_proj_weight": (2304, 768), "attn.in_proj_bias": (2304,), "attn.out_proj.weight": (768, 768),
             "attn.out_proj.bias": (768,), "ln_1.weight": (768,), "ln_1.bias": (768,), "ln_2.weight": (768,),
             "ln_2.bias": (768,), "mlp.c_fc.weight": (3072, 768), "mlp.c_fc.bias": (3072,),
             "mlp.c_proj.weight": (768, 3072), "mlp.c_proj.bias": (768,)}
    names |= {f"transformer.resblocks.{i}.{name}": shape for i in range(12) for name, shape in block.items()}
    with torch.device("meta"):
        tower = open_clip.CLIP(**open_clip.get_model_config(QUICK)).visual
    assert {name: tuple(value.shape) for name, value in tower.state_dict().items()} == names


# what is refused

@pytest.mark.parametrize("tower", [False, True])
def test_visual_prompts_are_told(tower, small, robust, tmp_path):
    pads = {"module.pad_up": torch.randn(1, 3, 2, 16), "module.pad_left": torch.randn(1, 3, 12, 2)}
    path = save_tecoa(tmp_path / "vp.pth.tar", robust.visual.state_dict() if tower else None, (1, 5, 32), pads)
    with pytest.raises(CheckpointError, match=r"vp.pth.tar is a checkpoint of visual prompts \(pad_left \[1, 3, 12, 2\]"
                                              r", pad_up .*, prompt \[1, 5, 32\]\).*give it as --adapted"):
        load_clip(QUICK, pretrained=path, device="cpu")


def test_a_tower_of_another_architecture(small, tmp_path):
    wider = random_model(1, vision_cfg=CONFIG["vision_cfg"] | {"layers": 3, "image_size": 24})
    path = save_tecoa(tmp_path / "wide.pth.tar", wider.visual.state_dict())
    with pytest.raises(CheckpointError, match="wide.pth.tar holds another architecture than the image tower of "
                                              ".*0 tensors missing, 12 unknown, 1 of another shape .positional_emb"):
        load_clip(QUICK, pretrained=path, device="cpu")


def test_a_tower_with_a_missing_key_or_nan(small, robust, tmp_path):
    tower = {name: value.clone() for name, value in robust.visual.state_dict().items()}
    tower["proj"][0, 0] = torch.nan
    torch.save(tower, tmp_path / "nan.pt")
    del tower["proj"]
    torch.save(tower, tmp_path / "short.pt")
    for file, message in (("nan.pt", "NaN or infinite weights .proj"), ("short.pt", "1 tensors missing.*e.g. proj")):
        with pytest.raises(CheckpointError, match=message):
            load_clip(QUICK, pretrained=tmp_path / file, device="cpu")


class Bomb:
    def __reduce__(self):
        return (pytest.fail, ("something was unpickled",))


def test_nothing_but_tensors_and_numbers_is_unpickled(robust, tmp_path):
    path = tmp_path / "bomb.pth.tar"
    torch.save({"vision_encoder_state_dict": robust.visual.state_dict(), "best_acc1": Bomb()}, path)
    with pytest.raises(CheckpointError, match="nothing was executed"):
        read_tensors(path)


@pytest.mark.parametrize("kind", ["truncated", "empty", "no tensors"])
def test_broken_files(kind, robust, tmp_path):
    path = save_tecoa(tmp_path / "tecoa.pth.tar", robust.visual.state_dict())
    content = path.read_bytes()
    if kind == "no tensors":
        torch.save({"vision_encoder_state_dict": {}, "epoch": 3}, path)
    else:
        path.write_bytes(content[:len(content) // 2] if kind == "truncated" else b"")
    with pytest.raises(CheckpointError, match="tecoa.pth.tar") as caught:
        read_tensors(path)
    assert "\n" not in str(caught.value)


@pytest.mark.filterwarnings("ignore")
def test_a_program_of_torchscript_is_not_run(tmp_path):
    torch.jit.script(torch.nn.Linear(2, 2)).save(str(tmp_path / "ViT-B-32.pt"))
    with pytest.raises(CheckpointError, match=r"TorchScript.*not run.*convert it once.*state_dict"):
        read_tensors(tmp_path / "ViT-B-32.pt")


def test_a_folder_is_no_file_of_weights(tmp_path):
    with pytest.raises(CheckpointError, match="is a folder: give it as model"):
        load_clip(QUICK, pretrained=tmp_path, device="cpu")


# older files of open_clip

def test_an_old_file_of_a_class_that_changed(images, tmp_path):
    """Text tower without a prefix, logit scale with a dimension: as files were before CustomTextCLIP."""
    model = random_model(2)
    state = model.state_dict() | {"logit_scale": model.logit_scale.detach()[None]}
    folder = save_folder(tmp_path / "old", model, CONFIG | {"custom_text": True})
    torch.save(state, folder / "open_clip_pytorch_model.bin")
    check(load_clip(str(folder), device="cpu"), images, model, model)


# folders and repositories

class NoTokenizer:
    """save_for_hf wants something to save; CLIP's own tokenizer needs no file."""

    def save_pretrained(self, folder):
        pass


def save_folder(folder, model, config=CONFIG, preprocess=(), **options):
    """What open_clip uploads to the hub, written by open_clip."""
    set_model_preprocess_cfg(model, {"mean": (0.5, 0.5, 0.5), "std": (0.25, 0.25, 0.25), **dict(preprocess)})
    save_for_hf(model, NoTokenizer(), config, folder, **{"safe_serialization": False} | options)
    return folder


@pytest.mark.parametrize("safe", [True, False])
@pytest.mark.parametrize("spelling", ["{}", "local-dir:{}"])
def test_a_folder_of_open_clip(safe, spelling, robust, images, tmp_path):
    folder = save_folder(tmp_path / "clip", robust, safe_serialization=safe)
    clip = load_clip(spelling.format(folder), device="cpu")
    check(clip, images, robust, robust)
    assert clip.mean.flatten().tolist() == [0.5] * 3 and clip.std.flatten().tolist() == [0.25] * 3
    assert any("QuickGELU" in type(module).__name__ for module in clip.modules())
    assert clip is load_clip(f"local-dir:{folder}", device="cpu")


def test_a_folder_below_the_working_folder(robust, images, tmp_path, monkeypatch):
    save_folder(tmp_path / "clip", robust)
    monkeypatch.chdir(tmp_path)
    check(load_clip("clip", device="cpu"), images, robust, robust)


def test_a_folder_that_squashes(robust, tmp_path):
    folder = save_folder(tmp_path / "clip", robust, preprocess={"resize_mode": "squash", "interpolation": "bilinear"})
    clip = load_clip(str(folder), device="cpu")
    assert clip.squash and clip.interpolation.value == "bilinear"


@pytest.mark.parametrize("preprocess", [{"mean": (0.5, 0.5)}, {"std": "one"}, {"interpolation": "cubic"}])
def test_a_folder_whose_preprocessing_makes_no_sense(preprocess, robust, tmp_path):
    folder = save_folder(tmp_path / "clip", robust, preprocess=preprocess)
    with pytest.raises(CheckpointError, match="cannot use the preprocess_cfg of .*three channels"):
        load_clip(str(folder), device="cpu")


def test_a_folder_with_another_tower(robust, openai, images, tmp_path):
    folder = save_folder(tmp_path / "clip", openai)
    torch.save(robust.visual.state_dict(), tmp_path / "tower.pt")
    check(load_clip(str(folder), pretrained=tmp_path / "tower.pt", device="cpu"), images, robust, openai)


def test_a_folder_that_changed_is_read_again(robust, openai, images, tmp_path):
    check(load_clip(str(save_folder(tmp_path / "clip", openai)), device="cpu"), images, openai, openai)
    check(load_clip(str(save_folder(tmp_path / "clip", robust)), device="cpu"), images, robust, robust)


def save_transformers(folder, model, **changes):
    """What CLIPModel.save_pretrained writes: names and configuration of transformers, query, key and value apart."""
    state, tensors = model.state_dict(), {}
    for theirs, ours in (("vision_model", "visual."), ("text_model", "")):
        for layer in range(len(model.visual.transformer.resblocks if ours else model.transformer.resblocks)):
            block, place = f"{ours}transformer.resblocks.{layer}.", f"{theirs}.encoder.layers.{layer}."
            for kind in ("weight", "bias"):
                parts = state[f"{block}attn.in_proj_{kind}"].chunk(3)
                tensors |= {f"{place}self_attn.{part}_proj.{kind}": value.clone()
                            for part, value in zip("qkv", parts, strict=True)}
                for own, other in (("attn.out_proj", "self_attn.out_proj"), ("ln_1", "layer_norm1"),
                                   ("ln_2", "layer_norm2"), ("mlp.c_fc", "mlp.fc1"), ("mlp.c_proj", "mlp.fc2")):
                    tensors[f"{place}{other}.{kind}"] = state[f"{block}{own}.{kind}"]
        embeddings = f"{theirs}.embeddings."
        tensors[f"{embeddings}position_embedding.weight"] = state[f"{ours}positional_embedding"]
        tensors[f"{embeddings}position_ids"] = torch.arange(len(state[f"{ours}positional_embedding"]))[None]
    tensors["vision_model.embeddings.class_embedding"] = state["visual.class_embedding"]
    tensors["vision_model.embeddings.patch_embedding.weight"] = state["visual.conv1.weight"]
    tensors["text_model.embeddings.token_embedding.weight"] = state["token_embedding.weight"]
    for kind in ("weight", "bias"):
        for other, own in (("vision_model.pre_layrnorm", "visual.ln_pre"), ("text_model.final_layer_norm", "ln_final"),
                           ("vision_model.post_layernorm", "visual.ln_post")):
            tensors[f"{other}.{kind}"] = state[f"{own}.{kind}"]
    tensors["visual_projection.weight"] = state["visual.proj"].T.contiguous()
    tensors["text_projection.weight"] = state["text_projection"].T.contiguous()
    tensors["logit_scale"] = state["logit_scale"]
    folder.mkdir()
    save_file(tensors, folder / "model.safetensors")
    vision = {"hidden_act": "quick_gelu", "hidden_size": 32, "image_size": 16, "intermediate_size": 128,
              "layer_norm_eps": 1e-05, "num_attention_heads": 2, "num_hidden_layers": 2, "patch_size": 8}
    text = {"hidden_act": "quick_gelu", "hidden_size": 16, "intermediate_size": 64, "max_position_embeddings": 20,
            "num_attention_heads": 2, "num_hidden_layers": 1, "vocab_size": 49408}
    config = {"model_type": "clip", "projection_dim": 16, "text_config": text, "vision_config": vision | changes}
    (folder / "config.json").write_text(json.dumps(config))
    return folder


def test_a_folder_of_transformers(robust, images, tmp_path):
    folder = save_transformers(tmp_path / "clip", robust)
    check(load_clip(str(folder), device="cpu"), images, robust, robust)
    (folder / "preprocessor_config.json").write_text('{"image_mean": [0.5, 0.5, 0.5], "image_std": [0.2, 0.2, 0.2]}')
    assert load_clip(str(folder), device="cpu").std.max() == 0.2


def test_a_file_of_transformers(small, robust, images, tmp_path):
    folder = save_transformers(tmp_path / "clip", robust)
    clip = load_clip(QUICK, pretrained=folder / "model.safetensors", device="cpu")
    check(clip, images, robust, robust)


@pytest.mark.parametrize(("changes", "message"), [
    ({"hidden_act": "gelu"}, "hidden_act is 'gelu' and 'quick_gelu'"),
    ({"num_hidden_layers": 3}, "clip/model.safetensors holds another architecture.*12 tensors missing")])
def test_folders_of_transformers_that_do_not_fit(changes, message, robust, tmp_path):
    with pytest.raises(CheckpointError, match=message):
        load_clip(str(save_transformers(tmp_path / "clip", robust, **changes)), device="cpu")


@pytest.mark.parametrize(("files", "message"), [
    ({}, "no CLIP in .*none of open_clip_config.json, config.json; expected a folder with open_clip_config.json and"),
    ({"open_clip_config.json": json.dumps({"model_cfg": CONFIG})}, "none of open_clip_model.safetensors, .*model.bin"),
    ({"open_clip_config.json": "{"}, "cannot read the configuration of a CLIP from .*open_clip_config.json"),
    ({"open_clip_config.json": "[1]"}, "cannot read the configuration"),
    ({"open_clip_config.json": json.dumps(CONFIG)}, "cannot read the configuration.*KeyError.*model_cfg"),
    ({"open_clip_config.json": json.dumps({"model_cfg": CONFIG, "preprocess_cfg": {"resize_mode": "longest"}})},
     "'longest' is neither shortest nor squash"),
    ({"open_clip_config.json": json.dumps({"model_cfg": {**CONFIG, "tower": 3}})}, "cannot build.*tower"),
    ({"open_clip_config.json": json.dumps({"model_cfg": {**CONFIG, "text_cfg": {"vocab_size": 99}}})},
     "cannot build.*vocab_size 99 and no hf_tokenizer_name"),
    ({"config.json": '{"model_type": "siglip"}'}, "model_type is 'siglip', not 'clip'.*transformers' CLIPModel"),
    ({"config.json": '{"model_type": "clip"}'}, "cannot read the configuration.*vision_config")])
def test_folders_that_hold_no_clip(files, message, tmp_path):
    for name, content in files.items():
        (tmp_path / name).write_text(content)
    if "cannot build" in message:  # found only when the weights have been read
        save_file({"logit_scale": torch.zeros(())}, tmp_path / "model.safetensors")
    with pytest.raises(CheckpointError, match=message) as caught:
        load_clip(str(tmp_path), device="cpu")
    assert "\n" not in str(caught.value)


def test_folders_that_are_not_there(tmp_path):
    for name in (str(tmp_path / "none"), "./none", f"local-dir:{tmp_path / 'none'}"):
        with pytest.raises(CheckpointError, match="no CLIP in .*none.* it is no folder"):
            load_clip(name, device="cpu")
    with pytest.raises(UnknownNameError, match="ViT-B-32"):
        load_clip("ViT-B/32", pretrained="openai", device="cpu")


# offline

def test_a_repository_in_the_cache_is_used_without_asking(cache, robust, images, tmp_path, monkeypatch):
    monkeypatch.setattr(checkpoints, "download_pretrained_from_hf", pytest.fail)
    save_folder(tmp_path / "clip", robust)
    shutil.copytree(tmp_path / "clip", into_cache(cache, FARE_REPOSITORY), dirs_exist_ok=True)
    check(load_clip(f"hf-hub:{FARE_REPOSITORY}", device="cpu"), images, robust, robust)


def test_a_repository_that_is_not_there(cache):
    with pytest.raises(CheckpointError, match="are not on this machine.*HF_HUB_OFFLINE is set") as caught:
        load_clip(f"hf-hub:{FARE_REPOSITORY}", device="cpu")
    for part in ("hf-hub:chs20/fare2-clip", "fetch open_clip_config.json and open_clip_model.safetensors of",
                 "chs20/fare2-clip into a folder and give it as model (--model)",
                 f"copy models--chs20--fare2-clip from another machine's cache into {cache}"):
        assert part in str(caught.value)


@pytest.mark.parametrize("name", ["hf-hub:", "hf-hub:a/b/c", "local-dir:"])
def test_repositories_without_a_name(name, cache, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(CheckpointError):
        load_clip(name, device="cpu")


def test_a_tag_in_the_cache_is_used_without_asking(small, openai, images, monkeypatch):
    monkeypatch.setattr(checkpoints, "download_pretrained", pytest.fail)
    check(load_clip(QUICK, pretrained="openai", device="cpu"), images, openai, openai)


def test_a_tag_that_is_not_there(cache):
    with pytest.raises(CheckpointError, match="are not on this machine.*HF_HUB_OFFLINE is set") as caught:
        load_clip(QUICK, pretrained="openai", device="cpu")
    for part in ("the weights 'openai' of 'ViT-B-32-quickgelu'", "fetch open_clip_model.safetensors of ",
                 f"{OPENAI_REPOSITORY} and give its path as pretrained (--pretrained)",
                 f"copy models--timm--vit_base_patch32_clip_224.openai from another machine's cache into {cache}"):
        assert part in str(caught.value)


def test_the_rest_of_a_tower_that_is_not_there(cache, robust, tmp_path):
    torch.save(robust.visual.state_dict(), tmp_path / "fare.pt")
    with pytest.raises(CheckpointError, match="fare.pt holds an image tower only, and for the rest, as in FILE.fare.pt,"
                                              " the weights 'openai' of 'ViT-B-32-quickgelu' are not on this machine"):
        load_clip(QUICK, pretrained=tmp_path / "fare.pt", device="cpu")


# every model of open_clip

def test_captioners_are_clips_too(images, monkeypatch):
    vision = CONFIG["vision_cfg"] | {"attentional_pool": True, "attn_pooler_heads": 2, "output_tokens": True}
    text = CONFIG["text_cfg"] | {"embed_cls": True, "output_tokens": True}
    config = {"embed_dim": 16, "custom_text": True, "vision_cfg": vision, "text_cfg": text,
              "multimodal_cfg": {"context_length": 20, "vocab_size": 49408, "width": 16, "heads": 2, "layers": 1}}
    monkeypatch.setitem(open_clip.factory._MODEL_CONFIGS, "coca_ViT-B-32", config)
    clip_module._load.cache_clear()
    clip = load_clip("coca_ViT-B-32", pretrained="random", device="cpu")
    with torch.no_grad():
        expected = clip.model((images - clip.mean) / clip.std, clip.tokenizer(TEXTS * 4))["image_features"]
    assert torch.allclose(clip.encode_image(images), expected, atol=2e-6, rtol=0)  # the last block sums otherwise
    assert clip.embed(images).norm(dim=1).sub(1).abs().min() > 1e-3
    assert clip.encode_text(TEXTS).shape == (2, 16)
    clip_module._load.cache_clear()


def test_a_text_tower_of_transformers_says_what_it_needs(monkeypatch, cache):
    config = CONFIG | {"text_cfg": {"hf_model_name": "roberta-base", "hf_tokenizer_name": "roberta-base"}}
    monkeypatch.setitem(open_clip.factory._MODEL_CONFIGS, "roberta-ViT-B-32", config)
    monkeypatch.setattr(clip_module, "find_spec", lambda package: None)
    with pytest.raises(CheckpointError, match="'roberta-ViT-B-32' needs the package transformers: pip install"):
        load_clip("roberta-ViT-B-32", pretrained="random", device="cpu")
