"""What of a CLIP an adaptation may change: its whole image tower, its last blocks, or prompts beside it.

One spelling everywhere: ``finetune``, ``blocks-2``, ``pad``, ``token``, ``pad+token``, ``finetune+pad+token``.
"""

import copy
import json
import re
import zipfile
from pathlib import Path

import safetensors
import safetensors.torch
import torch
from torch import Tensor, nn

from zsar.checkpoints import read_prompts
from zsar.clip import Clip
from zsar.errors import AdaptationError, CheckpointError, PromptError, unknown_name
from zsar.outputs import write_atomically
from zsar.prompts import PadPrompt, TokenPrompt, attach, from_authors, token_places

METHODS = ("finetune", "blocks-1", "blocks-2", "pad", "token", "pad+token", "finetune+pad", "finetune+token",
           "finetune+pad+token")


def parts(method: str) -> list[str]:
    """``finetune+pad`` as its parts. Raises UnknownNameError with the nearest methods, AdaptationError for blocks-0."""
    chosen = method.split("+")
    if not all(re.fullmatch(r"finetune|pad|token|blocks-(0|[1-9][0-9]*)", part) for part in chosen):
        raise unknown_name("method", method, METHODS)
    places = [{"pad": 1, "token": 2}.get(part, 0) for part in chosen]
    if places != sorted(set(places)):
        raise AdaptationError(f"method {method!r}: expected finetune or blocks-k but not both, then pad, then token, "
                              "each at most once")
    if "blocks-0" in chosen:
        raise AdaptationError("method 'blocks-0' trains nothing: expected blocks-1 (the last block) or more")
    return chosen


def make_student(original: Clip, method: str, *, pad: int | None = None, tokens: int | None = None,
                 seed: int = 0) -> Clip:
    """A copy of ``original`` in which exactly what ``method`` names is trainable.

    ``pad`` is the width of the frame in pixels of the model-size image, ``tokens`` their number. ``finetune`` is the
    whole image tower with its projection; ``blocks-k`` the last k residual blocks and nothing else. The frozen text
    tower is shared with ``original``, not copied. Raises UnknownNameError, AdaptationError, PromptError.
    """
    chosen, student = parts(method), _copy(original)
    for part in chosen:
        if part == "pad":
            attach(student, PadPrompt(_size(pad, "pad"), student.image_size))
        elif part == "token":
            attach(student, TokenPrompt(_size(tokens, "tokens"), token_places(student)[2], seed))
        else:
            trained = student.model.visual if part == "finetune" else _last_blocks(student, int(part[7:]))
            trained.requires_grad_(True)
    student.name = f"{original.name}, {method}"
    return student


def _copy(original: Clip) -> Clip:
    """A copy with an image tower of its own."""
    model = original.model
    tower = {id(value) for value in model.visual.parameters()}
    return copy.deepcopy(original, {id(value): value for value in model.parameters() if id(value) not in tower})


def _size(value: int | None, name: str) -> int:
    if value is None:
        raise PromptError(f"{name} = None: this method's prompt needs a size, such as that of the recipe")
    return value


def _last_blocks(clip: Clip, k: int) -> nn.Module:
    _, blocks, _ = token_places(clip)
    if k > len(blocks):
        raise AdaptationError(f"method 'blocks-{k}': {clip.name} has {len(blocks)} blocks, expected blocks-1 to "
                              f"blocks-{len(blocks)}")
    return blocks[-k:]


def trainable(module: nn.Module) -> dict[str, nn.Parameter]:
    """The parameters of ``module`` that an adaptation changes, by name."""
    return {name: value for name, value in module.named_parameters() if value.requires_grad}


def interpolate(original: Clip, adapted: Clip, weight: float) -> Clip:
    """A CLIP whose image tower is (1 - weight) original + weight adapted: 0 is the original, 1 the adapted one.

    Wortsman et al. (2022, "Robust fine-tuning of zero-shot models"); used by Mao et al. (2023). Raises
    AdaptationError where the two towers differ in form, as with prompts, which no point between them has, and for a
    weight outside 0 to 1.
    """
    if not (isinstance(weight, (int, float)) and 0 <= weight <= 1):
        raise AdaptationError(f"weight = {weight}: expected a number from 0 (the original) to 1 (the adapted one)")
    ours, theirs = original.model.visual.state_dict(), adapted.model.visual.state_dict()
    if prompt_sizes(original) or prompt_sizes(adapted) or \
            {k: v.shape for k, v in ours.items()} != {k: v.shape for k, v in theirs.items()}:
        raise AdaptationError(f"cannot interpolate {original.name} and {adapted.name}: expected image towers of one "
                              "form, without prompts")
    between = make_student(original, "finetune").requires_grad_(False)
    between.model.visual.load_state_dict({name: torch.lerp(ours[name], theirs[name], weight)
                                          if ours[name].is_floating_point() else ours[name] for name in ours})
    between.name = f"{weight:g} x ({adapted.name})"
    return between


def save_adapted(path: Path, student: Clip, original: Clip, method: str, *, half: bool = False, **about) -> None:
    """Write what ``method`` changed as safetensors, atomically; ``about`` goes into its header as JSON.

    half: rounded to float16, for half the bytes; what is read back is another model then, by its digest too.
    ``student`` may be frozen, and a point of ``interpolate`` too (``finetune``). Raises OutputError, and leaves an
    older file whole.
    """
    header = {"method": method, "original": original.digest, **prompt_sizes(student), **about}
    names, values = trainable(make_student(original, method, **prompt_sizes(student)).model), student.model.state_dict()
    tensors = {name: values[name].half() if half else values[name] for name in names}
    tensors = {name: value.cpu().contiguous() for name, value in tensors.items()}
    write_atomically(path, safetensors.torch.save(tensors, {"zsar": json.dumps(header)}))


def prompt_sizes(clip: Clip) -> dict[str, int]:
    """``pad`` in pixels and the number of ``tokens`` of the prompts attached to ``clip``, where there are any."""
    prompts = getattr(clip.model, "prompts", None) or {}
    sizes = {"pad": prompts["pad"].pad} if "pad" in prompts else {}
    return sizes | ({"tokens": len(prompts["token"].tokens)} if "token" in prompts else {})


def adapted_header(path: str | Path) -> dict | None:
    """What ``save_adapted`` wrote about the weights in a file; None for a file of another kind, or none."""
    try:
        with safetensors.safe_open(path, "pt") as file:
            return json.loads((file.metadata() or {}).get("zsar", "null"))
    except (OSError, safetensors.SafetensorError, ValueError):
        return None


def load_adapted(path: str | Path, original: Clip) -> Clip:
    """The CLIP that ``save_adapted`` wrote, frozen: ``original`` with the adapted weights and prompts.

    Or ``original`` with the prompts of a checkpoint that ``visual_prompt.py`` of Mao et al. wrote; which CLIP they were
    trained for it does not say (OpenAI's ViT-B/32 in that code). Raises CheckpointError for a file that is missing,
    foreign or truncated, and for another original as far as it is known, PromptError for prompts that do not fit.
    """
    if Path(path).is_dir():
        raise CheckpointError(f"{path} is a folder: expected a file, such as its adapted.safetensors")
    if zipfile.is_zipfile(path):  # what torch.save writes
        prompts = from_authors(read_prompts(Path(path)))
        student = attach(_copy(original), *prompts)
        student.name = f"{original.name}, {'+'.join(prompt.kind for prompt in prompts)}"
        return student.requires_grad_(False)
    try:
        with safetensors.safe_open(path, "pt") as file:
            header = json.loads((file.metadata() or {}).get("zsar", "null"))
            tensors: dict[str, Tensor] = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except (OSError, safetensors.SafetensorError, ValueError) as error:
        raise CheckpointError(f"cannot read the adapted CLIP {path}: missing, truncated, or not safetensors "
                              f"({error})") from error
    if not isinstance(header, dict) or not {"method", "original"} <= header.keys():
        raise CheckpointError(f"{path} was not written by zsar adapt: expected its adapted.safetensors")
    if header["original"] != original.digest:
        raise CheckpointError(f"{path} adapts another CLIP ({header['original'][:12]}) than {original.name} "
                              f"({original.digest[:12]}): choose the model and weights that it was adapted from")
    student = make_student(original, header["method"], pad=header.get("pad"), tokens=header.get("tokens"))
    if broken := [name for name, value in tensors.items() if not value.isfinite().all()]:
        raise CheckpointError(f"{path} holds NaN or infinite weights ({broken[0]}): its training diverged")
    fill(student.model, tensors, path)
    return student.requires_grad_(False)


def fill(module: nn.Module, tensors: dict[str, Tensor], path: str | Path) -> None:
    """Put ``tensors`` into the trainable parameters of ``module``, which they must match by name and shape.

    Raises CheckpointError where they do not.
    """
    own = trainable(module)
    differing = own.keys() ^ tensors.keys() or {name for name in own if own[name].shape != tensors[name].shape}
    if differing:
        raise CheckpointError(f"{path} holds another architecture: {len(differing)} tensors differ, e.g. "
                              f"{sorted(differing)[0]}")
    with torch.no_grad():
        for name, value in own.items():
            value.copy_(tensors[name])
