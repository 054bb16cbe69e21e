"""Reading the weights of a CLIP from a file, a published tag, a Hugging Face repository, or a folder of one.

Offline: files and folders never touch the network (unless a folder asks for a text tower or tokenizer of transformers).
Tags and ``hf-hub:OWNER/NAME`` come from the cache of huggingface_hub (``$HF_HOME/hub``, else
``~/.cache/huggingface/hub``) when they are there, without asking for a newer version; else they are fetched into it,
once. With ``HF_HUB_OFFLINE=1`` nothing is fetched, and the error says which file to put where.

Nothing is unpickled but tensors and plain numbers.
"""

import json
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

import huggingface_hub
import numpy as np
import open_clip
import safetensors.torch
import torch
from huggingface_hub import constants
from open_clip.convert import convert_state_dict
from open_clip.model import convert_to_custom_text_state_dict
from open_clip.pretrained import download_pretrained, download_pretrained_from_hf, get_pretrained_cfg
from torch import Tensor, nn

from zsar import transformers_clip
from zsar.errors import CheckpointError, first_line
from zsar.paths import data_path

# Entries of OpenAI's own state dicts that are no weights. open_clip's checkpoints do not have them.
_OPENAI_EXTRAS = {"input_resolution", "context_length", "vocab_size"}

# Mao et al. saved the best accuracy and the learning rate of TeCoA beside its weights, as numbers of numpy 1 or 2.
_SCALAR = np.float64(0).__reduce__()[0]
_NUMPY_NUMBERS = [np.dtype, type(np.dtype("float64")), (_SCALAR, "numpy.core.multiarray.scalar"),
                  (_SCALAR, "numpy._core.multiarray.scalar")]

CONFIG = "open_clip_config.json"
_OPEN_CLIP_FILES = ("open_clip_model.safetensors", "open_clip_pytorch_model.bin")
_TRANSFORMERS_FILES = ("model.safetensors", "pytorch_model.bin")

class Weights(NamedTuple):
    """The named tensors of one file; ``part`` is the submodule that they fill: ``""`` (all) or ``visual``."""

    part: str
    tensors: dict[str, Tensor]
    path: Path


def is_repository(name: str) -> bool:
    """Whether a model's name is ``hf-hub:OWNER/NAME`` or ``local-dir:FOLDER``, which bring their own weights."""
    return name.startswith(("hf-hub:", "local-dir:"))


def split_pretrained(pretrained: str) -> tuple[str, str | None]:
    """``BASE+TOWER`` -> base and image tower; a file whose own name has a plus stays whole."""
    base, _, tower = pretrained.partition("+")
    return (base, tower) if base and tower and not os.path.exists(pretrained) else (pretrained, None)


def read_weights(name: str, pretrained: str | None) -> tuple[list[Weights], dict]:
    """The weights of model ``name``, to be filled in this order, and the preprocessing of their tag.

    ``pretrained`` is a tag, a file, or ``BASE+TOWER``; None are the model's own weights. The rest of a model whose file
    holds an image tower only comes from OpenAI's weights, or from the model's own. Raises CheckpointError.
    """
    base, tower = split_pretrained(pretrained) if pretrained else (None, None)
    path, preprocess = weights_source(name, base)
    found = read_tensors(path)
    if tower:
        towers = [Weights("visual", read_tensors(Path(tower)), Path(tower))]
        if not is_tower(towers[0].tensors):
            raise CheckpointError(f"{tower} holds more than an image tower: give it alone, without {base}+")
    elif is_tower(found):
        towers, rest = [Weights("visual", found, path)], _rest_of_tower(name, path)
        try:
            path, preprocess = weights_source(name, rest)
        except CheckpointError as error:
            raise CheckpointError(f"{path} holds an image tower only, and for the rest, as in FILE+{path.name}, "
                                  f"{error}") from error
        found = read_tensors(path)
    else:
        towers = []
    return [Weights("", found, path), *towers], preprocess


def is_tower(tensors: dict[str, Tensor]) -> bool:
    """Whether these are the weights of an image tower alone, by the names of open_clip's and timm's towers."""
    return "logit_scale" not in tensors and any(key == "conv1.weight" or key.startswith("trunk.") for key in tensors)


def _rest_of_tower(name: str, path: Path) -> str | None:
    """Where text tower and logit scale come from when a file holds the image tower only."""
    if name == "drawn" or is_repository(name):
        return None
    if name in open_clip.list_pretrained_models_by_tag("openai"):
        return "openai"
    tags = ", ".join(open_clip.list_pretrained_tags_by_model(name)) or "none published"
    raise CheckpointError(f"{path} holds an image tower only, and OpenAI has no weights of {name!r} for the rest: name "
                          f"those it was tuned from, as in TAG+FILE or FILE+FILE (tags: {tags})")


def weights_source(name: str, pretrained: str | Path | None) -> tuple[Path, dict]:
    """The file that holds the weights ``pretrained`` (a tag or a path) of model ``name``, and the tag's preprocessing.

    None: the model's own. Raises CheckpointError for a missing file, an unknown tag, a QuickGELU mismatch and a failed
    download.
    """
    if pretrained is None:
        return _own_weights(name), {}
    if config := get_pretrained_cfg(name, str(pretrained)):
        _check_gelu(name, bool(config.get("quick_gelu")), f"the weights {pretrained!r}")
        return _download(name, str(pretrained), config), config
    if Path(pretrained).exists() or Path(pretrained).suffix or Path(pretrained).parent != Path("."):
        tags = open_clip.list_pretrained_tags_by_model(name)
        return Path(pretrained), get_pretrained_cfg(name, tags[0]) if tags else {}
    sibling = _gelu_sibling(name)
    if get_pretrained_cfg(sibling, str(pretrained)):
        raise CheckpointError(f"QuickGELU mismatch: the weights {pretrained!r} were not trained with the activation of "
                              f"{name}; load them as {sibling!r}")
    tags = ", ".join(open_clip.list_pretrained_tags_by_model(name)) or "none published"
    raise CheckpointError(f"no weights {pretrained!r} for model {name!r}: expected a file, or one of {tags}")


def _gelu_sibling(name: str) -> str:
    """The same architecture with the other activation."""
    return name.removesuffix("-quickgelu") if name.endswith("-quickgelu") else f"{name}-quickgelu"


def _check_gelu(name: str, weights_are_quick: bool, what: str) -> None:
    """open_clip only warns of this, for a file not even that, and the accuracy silently drops (open_clip #771)."""
    model_is_quick = bool((open_clip.get_model_config(name) or {}).get("quick_gelu"))
    if weights_are_quick != model_is_quick:
        raise CheckpointError(f"QuickGELU mismatch: {what} were trained {'with' if weights_are_quick else 'without'} "
                              f"QuickGELU, model {name!r} is built {'with' if model_is_quick else 'without'} it; "
                              f"load them as {_gelu_sibling(name)!r}")


def _download(name: str, tag: str, config: dict) -> Path:
    """Published weights from the local Hugging Face cache, else from the hub."""
    repository, _, filename = config.get("hf_hub", "").rpartition("/")
    files = (filename,) if filename else _OPEN_CLIP_FILES
    mend = f"fetch {files[0]} of https://huggingface.co/{repository} and give its path as pretrained (--pretrained)"
    return _from_hub(f"the weights {tag!r} of {name!r}", repository, files, lambda: download_pretrained(config), mend)


def _from_hub(what: str, repository: str, files: Sequence[str], download: Callable[[], str], mend: str) -> Path:
    """The first of ``files`` in the local Hugging Face cache, else what ``download`` fetches into it."""
    try:
        for file in files:
            cached = huggingface_hub.try_to_load_from_cache(repository, file) if repository else None
            if isinstance(cached, str):
                return Path(cached)
        return Path(download())
    except Exception as error:  # the hub's client raises errors of many libraries; each means: not there
        why = "HF_HUB_OFFLINE is set" if constants.HF_HUB_OFFLINE else first_line(error)
        raise CheckpointError(f"{what} are not on this machine and could not be fetched ({why}): {mend}, or connect "
                              f"once, or copy models--{repository.replace('/', '--')} from another machine's cache "
                              f"into {constants.HF_HUB_CACHE}") from error


def read_architecture(name: str) -> tuple[dict, dict]:
    """open_clip's configuration of the model ``name``, and its preprocessing where it brings one.

    ``hf-hub:OWNER/NAME`` and ``local-dir:FOLDER`` have ``open_clip_config.json``; a folder may have the ``config.json``
    of transformers' CLIPModel instead. Raises CheckpointError.
    """
    if not is_repository(name):
        return open_clip.get_model_config(name), {}
    file = _repository_file(name, (CONFIG, "config.json"))
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
        if file.name == CONFIG:
            config, preprocess = content["model_cfg"], content.get("preprocess_cfg") or {}
        else:
            config, preprocess = transformers_clip.architecture(content), transformers_clip.preprocessing(file.parent)
        if not isinstance(config["vision_cfg"], dict) or not isinstance(config["text_cfg"], dict):
            raise TypeError("vision_cfg or text_cfg is no object")
        if preprocess.get("resize_mode", "shortest") not in ("shortest", "squash"):
            raise ValueError(f"resize_mode {preprocess['resize_mode']!r} is neither shortest nor squash")
    except (OSError, ValueError, LookupError, TypeError, AttributeError) as error:
        raise CheckpointError(f"cannot read the configuration of a CLIP from {file} ({type(error).__name__}: "
                              f"{first_line(error)}): expected {CONFIG} of open_clip, or config.json of transformers' "
                              "CLIPModel") from error
    return config, preprocess


def _own_weights(name: str) -> Path:
    """The weights that the drawn CLIP, a folder or a hub repository brings."""
    if name == "drawn":
        return data_path("drawn", "drawn-clip.safetensors")
    return _repository_file(name, _OPEN_CLIP_FILES + _TRANSFORMERS_FILES)


def _repository_file(name: str, files: Sequence[str]) -> Path:
    """The first of ``files`` that a folder has; of a hub repository, the first that is in the cache or can be had."""
    schema, _, place = name.partition(":")
    if schema == "hf-hub":
        files = [file for file in files if "open_clip" in file]
        wanted = CONFIG if CONFIG in files else None  # None: weights, in either format
        return _from_hub(f"the files of {name}", place, files, lambda: download_pretrained_from_hf(place, wanted),
                         f"fetch {CONFIG} and {_OPEN_CLIP_FILES[0]} of https://huggingface.co/{place} into a folder "
                         "and give it as model (--model)")
    for file in files:
        if Path(place, file).is_file():
            return Path(place, file)
    what = "it is no folder" if not Path(place).is_dir() else f"it has none of {', '.join(files)}"
    raise CheckpointError(f"no CLIP in {place}: {what}; expected a folder with {CONFIG} and {_OPEN_CLIP_FILES[0]}")


def read_tensors(path: Path) -> dict[str, Tensor]:
    """The named tensors of a safetensors file, or of a torch file read with ``weights_only=True``.

    Names are open_clip's, also for a file of transformers; those of an image tower alone have no ``visual.`` before
    them. Raises CheckpointError for a missing, truncated or foreign file, and for one of visual prompts.
    """
    content = _read_file(path)
    _refuse_prompts(content, path)
    for part in ("vision_encoder_state_dict", "state_dict"):  # TeCoA's of Mao et al. has both, the second empty
        if isinstance(content.get(part), dict):
            content = content[part]
            break
    found = {str(key).removeprefix("module."): value for key, value in content.items() if isinstance(value, Tensor)}
    if not found:
        raise CheckpointError(f"no weights in {path}: expected named tensors, or a 'state_dict' of them")
    if transformers_clip.is_named_so(found):
        found = transformers_clip.weights(found)
    if all(key.startswith("visual.") for key in found):
        return {key.removeprefix("visual."): value for key, value in found.items()}
    return found


def _read_file(path: Path) -> dict:
    """What a file holds, checked to be a dictionary of plain values."""
    if path.is_dir():
        raise CheckpointError(f"{path} is a folder: give it as model (--model), or name a file of weights in it")
    if not path.is_file():
        raise CheckpointError(f"missing weights file {path}: expected a .safetensors or torch file of weights")
    try:
        if path.suffix == ".safetensors":
            return safetensors.torch.load_file(path)
        with torch.serialization.safe_globals(_NUMPY_NUMBERS):
            content = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # safetensors, zip, pickle and torch errors: all mean that this is no file of weights
        if "TorchScript" in str(error):
            raise CheckpointError(f"{path} is a TorchScript program, as OpenAI's own downloads are, and is not run; if "
                                  f"you trust it, convert it once: torch.save(torch.jit.load({str(path)!r}, 'cpu')"
                                  ".state_dict(), 'openai.pt')") from error
        raise CheckpointError(f"cannot read weights from {path}: truncated, or not a file of plain tensors "
                              f"({first_line(error, 120)}); nothing was executed, fetch or save it again") from error
    return content if isinstance(content, dict) else {}


def _refuse_prompts(content: dict, path: Path) -> None:
    """Raise CheckpointError for visual prompts saved by Mao et al.'s code; beside TeCoA's weights they are empty."""
    if prompts := sorted(f"{name} {list(value.shape)}" for name, value in _prompts(content).items() if value.numel()):
        raise CheckpointError(f"{path} is a checkpoint of visual prompts ({', '.join(prompts)}): expected one of "
                              "weights; give it as --adapted, on top of the model that they were trained for")


def _prompts(content: dict) -> dict[str, Tensor]:
    """The tensors of both prompters in what the code of Mao et al. saves, by their names; none in other files."""
    parts = [content.get(part) for part in ("state_dict", "add_prompter") if "add_prompter" in content]
    return {str(key).removeprefix("module."): value for part in parts if isinstance(part, dict)
            for key, value in part.items() if isinstance(value, Tensor)}


def read_prompts(path: Path) -> dict[str, Tensor]:
    """The tensors of a checkpoint of Mao et al.'s ``visual_prompt.py``, by their names (``zsar.prompts.from_authors``).

    Raises CheckpointError for a file that is missing, truncated or foreign, and for one of weights.
    """
    content = _read_file(path)
    found = {name: value.float() for name, value in _prompts(content).items()}
    if not any(value.numel() for value in found.values()) or "vision_encoder_state_dict" in content:
        raise CheckpointError(f"{path} is no checkpoint of visual prompts alone: expected what zsar adapt or the "
                              "visual_prompt.py of Mao et al. saves; weights are given as pretrained (--pretrained)")
    if broken := [name for name, value in found.items() if not value.isfinite().all()]:
        raise CheckpointError(f"{path} holds NaN or infinite prompts ({broken[0]}): its training diverged")
    return found


def load_weights(model: nn.Module, name: str, weights: Weights) -> None:
    """Fill ``model``, the architecture called ``name``, or the part of it that ``weights`` names.

    Raises CheckpointError where a name or a shape differs, a weight is not finite, or the file is recognised as
    one of OpenAI's and ``name`` lacks QuickGELU (by OpenAI's extra entries, or "openai" in its name).
    """
    part, found, path = weights
    from_openai = bool(_OPENAI_EXTRAS & found.keys()) or "openai" in path.name.lower()
    if from_openai and name in open_clip.list_pretrained_models_by_tag("openai"):
        _check_gelu(name, True, f"OpenAI's weights in {path}")
    found = {key: value for key, value in found.items() if key not in _OPENAI_EXTRAS}
    model = model.get_submodule(part)
    if not part:
        found = _as_named_now(model, found)
    expected = model.state_dict()
    missing, foreign = sorted(expected.keys() - found.keys()), sorted(found.keys() - expected.keys())
    differing = [key for key in expected if key in found and found[key].shape != expected[key].shape]
    if missing or foreign or differing:
        example = next((f"{key} is {tuple(found[key].shape)}, expected {tuple(expected[key].shape)}"
                        for key in differing), f"e.g. {(missing or foreign or [''])[0]}")
        raise CheckpointError(f"{path} holds another architecture than {'the image tower of ' * bool(part)}{name!r}: "
                              f"{len(missing)} tensors missing, {len(foreign)} unknown, {len(differing)} of another "
                              f"shape ({example})")
    broken = [key for key, value in found.items() if not torch.isfinite(value).all()]
    if broken:
        raise CheckpointError(f"{path} holds NaN or infinite weights ({broken[0]}): its training diverged")
    model.load_state_dict(found)


def _as_named_now(model: nn.Module, found: dict[str, Tensor]) -> dict[str, Tensor]:
    """What open_clip does to published files that are older than its classes, or of Apple."""
    found = convert_state_dict(model, found)
    if not hasattr(model, "positional_embedding"):
        found = convert_to_custom_text_state_dict(found)
    for name in ("logit_scale", "logit_bias"):  # one number, saved with or without a dimension
        if name in found and getattr(model, name, None) is not None and found[name].numel() == 1:
            found[name] = found[name].reshape(getattr(model, name).shape)
    return found
