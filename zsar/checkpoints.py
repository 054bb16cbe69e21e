"""Reading weights of a CLIP from a file or a published tag. Nothing is unpickled."""

from pathlib import Path

import huggingface_hub
import open_clip
import safetensors.torch
import torch
from huggingface_hub.constants import HF_HUB_OFFLINE
from open_clip.pretrained import download_pretrained, get_pretrained_cfg
from torch import Tensor, nn

from zsar.errors import CheckpointError

# Entries of OpenAI's own state dicts that are no weights. open_clip's checkpoints do not have them.
_OPENAI_EXTRAS = {"input_resolution", "context_length", "vocab_size"}


def first_line(error: Exception, limit: int = 200) -> str:
    """What an exception of another library says, cut to one line."""
    return " ".join((str(error).strip().splitlines() or [type(error).__name__])[0].split())[:limit]


def weights_source(name: str, pretrained: str | Path) -> tuple[Path, dict]:
    """The file that holds the weights ``pretrained`` (a tag or a path) of model ``name``, and the tag's preprocessing.

    Raises CheckpointError for a missing file, an unknown tag, a QuickGELU mismatch and a failed download.
    """
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
    for candidate in (filename,) if filename else ("open_clip_model.safetensors", "open_clip_pytorch_model.bin"):
        cached = huggingface_hub.try_to_load_from_cache(repository, candidate) if repository else None
        if isinstance(cached, str):
            return Path(cached)
    try:
        return Path(download_pretrained(config))
    except Exception as error:  # the hub's client raises errors of many libraries; each means: not there
        why = "HF_HUB_OFFLINE is set" if HF_HUB_OFFLINE else first_line(error)
        raise CheckpointError(f"the weights {tag!r} of {name!r} are not on this machine and could not be fetched "
                              f"({why}); connect once to fetch https://huggingface.co/{repository}, "
                              "or give the path of a file of weights") from error


def read_tensors(path: Path) -> dict[str, Tensor]:
    """The named tensors of a safetensors file, or of a torch file read with ``weights_only=True``.

    Raises CheckpointError for a missing, truncated or foreign file.
    """
    if not path.is_file():
        raise CheckpointError(f"missing weights file {path}: expected a .safetensors or torch file of weights")
    try:
        if path.suffix == ".safetensors":
            state = safetensors.torch.load_file(path)
        else:
            state = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # safetensors, zip, pickle and torch errors: all mean that this is no file of weights
        raise CheckpointError(f"cannot read weights from {path}: truncated, or not a file of plain tensors "
                              f"({first_line(error, 120)}); nothing was executed, fetch or save it again") from error
    state = state.get("state_dict", state) if isinstance(state, dict) else {}
    tensors = {str(key).removeprefix("module."): value for key, value in state.items() if isinstance(value, Tensor)}
    if not tensors:
        raise CheckpointError(f"no weights in {path}: expected named tensors, or a 'state_dict' of them")
    return tensors


def load_weights(model: nn.Module, name: str, found: dict[str, Tensor], path: Path) -> None:
    """Fill ``model``, the architecture called ``name``, with the tensors ``found`` in ``path``.

    Raises CheckpointError where a name or a shape differs, a weight is not finite, or the file is recognised as
    one of OpenAI's and ``name`` lacks QuickGELU (by OpenAI's extra entries, or "openai" in its name).
    """
    from_openai = bool(_OPENAI_EXTRAS & found.keys()) or "openai" in path.name.lower()
    if from_openai and name in open_clip.list_pretrained_models_by_tag("openai"):
        _check_gelu(name, True, f"OpenAI's weights in {path}")
    found = {key: value for key, value in found.items() if key not in _OPENAI_EXTRAS}
    expected = model.state_dict()
    missing, foreign = sorted(expected.keys() - found.keys()), sorted(found.keys() - expected.keys())
    differing = [key for key in expected if key in found and found[key].shape != expected[key].shape]
    if missing or foreign or differing:
        example = next((f"{key} is {tuple(found[key].shape)}, expected {tuple(expected[key].shape)}"
                        for key in differing), f"e.g. {(missing or foreign or [''])[0]}")
        raise CheckpointError(f"{path} holds another architecture than {name!r}: {len(missing)} tensors missing, "
                              f"{len(foreign)} unknown, {len(differing)} of another shape ({example})")
    broken = [key for key, value in found.items() if not torch.isfinite(value).all()]
    if broken:
        raise CheckpointError(f"{path} holds NaN or infinite weights ({broken[0]}): its training diverged")
    model.load_state_dict(found)
