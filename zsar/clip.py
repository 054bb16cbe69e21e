"""CLIP as a function of pixels in [0, 1]: resize and normalisation live inside the model, and so does the attack."""

import hashlib
import os
from collections.abc import Callable, Sequence
from functools import lru_cache
from importlib.util import find_spec
from pathlib import Path

import open_clip
import torch
import torch.nn.functional as F
from open_clip.constants import OPENAI_DATASET_MEAN, OPENAI_DATASET_STD
from torch import Tensor, nn
from torchvision.transforms import InterpolationMode
from torchvision.transforms.functional import center_crop, resize

from zsar.checkpoints import (
    is_repository,
    load_weights,
    read_architecture,
    read_weights,
    split_pretrained,
)
from zsar.errors import CheckpointError, ClassNamesError, PixelRangeError, UnknownNameError, first_line, unknown_name
from zsar.paths import data_path
from zsar.tokenizer import WordTokenizer
from zsar.towers import trim

TEMPLATES = ("This is a photo of a {}.",)


class Clip(nn.Module):
    """A frozen CLIP in eval mode.

    ``model`` is an open_clip model, ``tokenizer`` maps a list of N texts to int64 [N, L], ``preprocess`` may hold
    open_clip's ``mean``, ``std``, ``interpolation`` and ``resize_mode``.
    """

    def __init__(self, model: nn.Module, tokenizer: Callable[[list[str]], Tensor], *, name: str,
                 preprocess: dict | None = None):
        super().__init__()
        preprocess = preprocess or {}
        self.model = model.eval().requires_grad_(False)
        self.tokenizer, self.name = tokenizer, name
        size = model.visual.image_size
        self.image_size: int = size[0] if isinstance(size, (tuple, list)) else size
        self.interpolation = InterpolationMode(preprocess.get("interpolation", "bicubic"))
        self.squash = preprocess.get("resize_mode") == "squash"
        for buffer, default in (("mean", OPENAI_DATASET_MEAN), ("std", OPENAI_DATASET_STD)):
            value = torch.tensor(preprocess.get(buffer, default)).view(3, 1, 1)
            self.register_buffer(buffer, value, persistent=False)
        self.eval()

    @property
    def device(self) -> torch.device:
        return self.mean.device

    @property
    def logit_scale(self) -> float:
        """The factor s of the logits s cos(image, text): 100 for OpenAI's CLIP."""
        return self.model.logit_scale.exp().item()

    @property
    def digest(self) -> str:
        """sha256 over names, types, shapes and values of all weights: one number a set of weights, on any device."""
        digest = hashlib.sha256()
        for name, value in sorted(self.model.state_dict().items()):
            digest.update(f"{name} {value.dtype} {tuple(value.shape)}".encode())
            digest.update(value.detach().cpu().contiguous().view(-1).view(torch.uint8).numpy())
        return digest.hexdigest()

    def preprocess(self, images: Tensor) -> Tensor:
        """[B, 3, H, W] in [0, 1] -> normalised [B, 3, S, S]: shorter side to S, centre crop, as CLIP does.

        Differentiable, and not clamped after the resize. The bicubic kernel is the antialiased one of CLIP's own
        preprocessing; enlarging with the plain one would let a perturbation overshoot more.
        """
        return self.normalize(self.resize(images))

    def resize(self, images: Tensor) -> Tensor:
        """The first half of ``preprocess``: [B, 3, H, W] to [B, 3, S, S], still in [0, 1] (nearly: not clamped)."""
        images, size = images.to(self.device), self.image_size
        if images.shape[-2:] != (size, size):
            images = resize(images, [size, size] if self.squash else [size], self.interpolation, antialias=True)
            images = center_crop(images, [size, size])
        return images

    def normalize(self, images: Tensor) -> Tensor:
        """The second half of ``preprocess``: the mean and the spread of colours that the tower was trained with."""
        return (images - self.mean) / self.std

    def embed(self, images: Tensor) -> Tensor:
        """[B, 3, H, W] in [0, 1] -> the image tower's own output [B, D], float32, not yet of unit length; unchecked."""
        return self.tower(self.preprocess(images)).float()

    def tower(self, pixels: Tensor) -> Tensor:
        """What ``preprocess`` returns -> the image tower's own output [B, D], in the precision of its weights."""
        return self.model.encode_image(pixels, normalize=False)  # CoCa would by default

    def features(self, images: Tensor) -> Tensor:
        """``encode_image`` without its checks, for loops whose images were checked on entry."""
        return F.normalize(self.embed(images), dim=-1)

    def encode_image(self, images: Tensor) -> Tensor:
        """float32 [B, 3, H, W] in [0, 1] -> unit features [B, D]. Raises PixelRangeError."""
        check_images(images)
        return self.features(images)

    @torch.no_grad()
    def encode_text(self, texts: Sequence[str]) -> Tensor:
        """N texts -> unit features [N, D]. Raises VocabularyError where the tokenizer's vocabulary is closed."""
        tokens = self.tokenizer(list(texts)).to(self.device)
        return torch.cat([F.normalize(self.model.encode_text(part), dim=-1) for part in tokens.split(256)])


class ZeroShotClassifier(nn.Module):
    """Logits = logit_scale x cosine between an image and each class, a class being the mean of its prompts.

    The text is encoded once, here. With several templates a class is the renormalised mean of the unit features of
    its prompts (Radford et al. 2021, section 3.1.4). verbatim: the names are the texts of a protocol, to be used as
    they stand, even where two classes share one (the first of them wins); else they are normalised, and must differ.
    Raises ClassNamesError, VocabularyError.
    """

    def __init__(self, clip: Clip, classnames: Sequence[str], templates: Sequence[str] = TEMPLATES,
                 verbatim: bool = False):
        super().__init__()
        self.clip, self.templates = clip, check_templates(templates)
        self.classnames = check_classnames(classnames, verbatim)
        prompts = [template.replace("{}", name) for name in self.classnames for template in self.templates]
        if not verbatim:
            check_tokens(clip.tokenizer(prompts[::len(self.templates)]), self.classnames)
        prompts = clip.encode_text(prompts).view(len(self.classnames), len(self.templates), -1)
        self.register_buffer("text_features", F.normalize(prompts.mean(1), dim=-1))  # [K, D]
        self.logit_scale = clip.logit_scale
        self.eval()

    def logits(self, images: Tensor) -> Tensor:
        """``forward`` without its checks (which would make an accelerator wait at each step of an attack)."""
        return self.of_features(self.clip.features(images))

    def of_features(self, features: Tensor) -> Tensor:
        """The logits [B, K] of unit features [B, D]."""
        return self.logit_scale * features @ self.text_features.T

    def forward(self, images: Tensor) -> Tensor:
        """float32 [B, 3, H, W] in [0, 1] -> logits [B, K]. Raises PixelRangeError."""
        check_images(images)
        return self.logits(images)


def normalize_classname(name: str) -> str:
    """The paper's class text: lower-case, ``_``, ``-`` and ``/`` become spaces.

    >>> normalize_classname(" Go-Kart ")
    'go kart'
    """
    return " ".join(name.lower().translate(str.maketrans("_-/", "   ")).split())


def check_classnames(classnames: Sequence[str], verbatim: bool = False) -> list[str]:
    """The normalised names. Raises ClassNamesError unless there are at least two, all different and none blank.

    verbatim: the names as they are, which may be equal.
    """
    if isinstance(classnames, str):
        raise ClassNamesError(f"class names: expected a list of names, found the single string {classnames!r}")
    names = list(classnames) if verbatim else [normalize_classname(name) for name in classnames]
    if not any(names):
        raise ClassNamesError("no class names: expected at least two, such as cat,dog")
    if blank := [i for i, name in enumerate(names, start=1) if not name]:
        raise ClassNamesError(f"class name {blank[0]} of {len(names)} is blank: remove it, or write its name")
    if len(names) == 1:
        raise ClassNamesError(f"only one class name ({names[0]!r}): expected at least two to choose between")
    if not verbatim and (twice := sorted({name for name in names if names.count(name) > 1})):
        raise ClassNamesError(f"duplicate class name {twice[0]!r} (case and _ - / do not count): "
                              "remove it, or tell the two apart")
    return names


def check_tokens(tokens: Tensor, classnames: Sequence[str]) -> None:
    """Raise ClassNamesError where two classes are the same text to the model: tokens int64 [K, L]."""
    rows: dict[tuple[int, ...], str] = {}
    for row, name in zip(tokens.tolist(), classnames, strict=True):
        if (other := rows.setdefault(tuple(row), name)) != name:
            raise ClassNamesError(f"the class names {other!r} and {name!r} are the same to this model: reword one")


def check_templates(templates: Sequence[str]) -> list[str]:
    """The templates as a list. Raises ClassNamesError unless each has exactly one ``{}``."""
    if isinstance(templates, str) or not templates:
        raise ClassNamesError(f"templates: expected a list such as {list(TEMPLATES)}, found {templates!r}")
    for template in templates:
        if template.count("{}") != 1:
            raise ClassNamesError(f"template {template!r} has {template.count('{}')} places for the class: "
                                  "expected exactly one {}")
    return list(templates)


def check_images(images: Tensor) -> None:
    """Raise PixelRangeError unless ``images`` is float32 [B, 3, H, W] in [0, 1]; the message says how to mend it."""
    if not isinstance(images, Tensor):
        raise PixelRangeError(f"images: expected a torch tensor, found {type(images).__name__}")
    shape, channels_last = tuple(images.shape), images.ndim >= 3 and images.shape[-1] == 3
    if images.ndim != 4 or images.shape[1] != 3 or 0 in shape:
        mend = {(3, False): "add the batch dimension: images[None]",
                (3, True): "put channels first and add the batch dimension: images.permute(2, 0, 1)[None]",
                (4, True): "put channels first: images.permute(0, 3, 1, 2)"}.get((images.ndim, channels_last),
                                                                                 "three colour channels, none empty")
        if images.ndim == 3 and images.shape[0] == 3:
            mend = "add the batch dimension: images[None]"
        raise PixelRangeError(f"images of shape {shape}: expected [B, 3, H, W]; {mend}")
    if images.dtype != torch.float32:
        mend = "images.float() / 255" if images.dtype == torch.uint8 else "images.float()"
        raise PixelRangeError(f"images of type {images.dtype}: expected torch.float32 in [0, 1]; use {mend}")
    low, high = torch.stack(torch.aminmax(images.detach())).tolist()
    if not (low >= 0 and high <= 1):
        raise PixelRangeError(f"pixels: expected values in [0, 1], {_describe_range(low, high)}")


def _describe_range(low: float, high: float) -> str:
    if low != low:
        return "found NaN"
    found = f"found {low:.3g} to {high:.3g}; "
    if low >= 0 and 2 < high <= 255:
        return found + "these look like grey levels: divide by 255"
    if low < -0.5 and high < 4:
        return found + "these look normalised by mistake: pass plain pixels, the model normalises them itself"
    return found + "clamp them: images.clamp(0, 1)"


def load_clip(name: str = "drawn", *, pretrained: str | Path | None = None,
              device: str | torch.device | None = None) -> Clip:
    """A frozen CLIP; the same arguments give the same object again (copy it with ``copy.deepcopy`` to train it).

    ``name``: ``drawn``; a model of ``open_clip.list_models()``; a folder in the layout of the Hugging Face hub, written
    by open_clip or by transformers' CLIPModel; or ``hf-hub:OWNER/NAME``. ``device``: by default ``$ZSAR_DEVICE``, else
    a CUDA device where there is one.

    ``pretrained``: a tag of ``open_clip.list_pretrained()``; a file of weights (safetensors or torch); or ``"random"``
    (for tests and timing). All but the models of open_clip bring their own weights. A file of an image tower alone, as
    those of TeCoA (``vision_encoder_state_dict``) and FARE, is put into OpenAI's weights of the model, and the name
    must be one with QuickGELU then; ``"TAG+FILE"`` and ``"FILE+FILE"`` put it into others. Which activation a folder's
    weights want stands in its configuration; a file does not say it, but for those recognised as OpenAI's. What is
    read offline, and from where: ``zsar.checkpoints``.

    Raises UnknownNameError for a model or device that is not there, and CheckpointError for weights that are
    missing, truncated, foreign, of another architecture or of another activation (a QuickGELU mismatch).
    """
    device = pick_device(device)
    if name == "drawn" and str(pretrained) in open_clip.list_pretrained_tags_by_model("ViT-B-32"):
        raise CheckpointError(f"the drawn CLIP has no weights {pretrained!r}: it brings its own; leave pretrained out, "
                              "or choose a model of open_clip")
    if name == "drawn":
        pretrained = pretrained or data_path("drawn", "drawn-clip.safetensors")
    name = _full_name(name)
    if pretrained is None and not is_repository(name):
        tags = ", ".join(open_clip.list_pretrained_tags_by_model(name)) or "none published"
        raise CheckpointError(f"model {name!r} needs weights: pretrained = a tag ({tags}), a file of weights, "
                              "or 'random' to do without")
    pretrained = None if pretrained is None else str(pretrained)
    try:
        places = [name.removeprefix("local-dir:"), *(split_pretrained(pretrained) if pretrained else ())]
        stamp = tuple(_stamp(Path(place)) for place in places if place)
    except OSError as error:  # a name too long, a folder that may not be read
        raise CheckpointError(f"cannot read the weights file {pretrained or name} ({error.strerror})") from error
    return _load(name, pretrained, stamp, device)


def _full_name(name: str) -> str:
    """A name that says whether it is a model or a folder. Raises UnknownNameError, CheckpointError."""
    known = ["drawn", *sorted(set(open_clip.list_models()) - {"drawn-clip"})]
    if name in known or is_repository(name):
        return name
    if os.path.isdir(name):
        return f"local-dir:{name}"
    if os.sep in name and name.replace("/", "-") not in known:
        raise CheckpointError(f"no CLIP in {name}: it is no folder; expected one in the layout of the Hugging Face "
                              "hub, or the name of a model")
    raise unknown_name("model", name, known)


def _stamp(path: Path) -> tuple:
    """Time and size of a file, or of the files of a folder, so that what changed is loaded again."""
    files = sorted(path.iterdir()) if path.is_dir() else [path]
    return tuple((file.name, file.stat().st_mtime_ns, file.stat().st_size) for file in files if file.is_file())


def pick_device(name: str | torch.device | None) -> torch.device:
    """The device of that name; by default ``$ZSAR_DEVICE``, else an accelerator where there is one.

    Raises UnknownNameError for one that is not on this machine.
    """
    name = name or os.environ.get("ZSAR_DEVICE") or ("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
        torch.zeros(1, device=device).cpu()
    except (RuntimeError, AssertionError, NotImplementedError) as error:  # unknown, or not of this machine
        raise UnknownNameError(f"device {str(name)!r} is not on this machine: expected cpu"
                               + (" or cuda" if torch.cuda.is_available() else "")) from error
    if device.index is not None and device.type == "cuda":
        torch.cuda.set_device(device)  # the current one is where kernels of Triton run
    if device.type == "cuda":  # float32 means float32: by default torch rounds a convolution's products to 10 bits
        torch.backends.cudnn.allow_tf32 = False
    return device


@lru_cache(maxsize=8)
def _load(name: str, pretrained: str | None, stamp: tuple, device: torch.device) -> Clip:
    """``load_clip`` with its arguments resolved; ``stamp`` makes files that changed load again."""
    config, own = ({}, {}) if name == "drawn" else read_architecture(name)
    weights, preprocess = [], {}
    if pretrained != "random":  # before the architecture is built, which takes seconds
        weights, preprocess = read_weights(name, pretrained)
    model, tokenizer = _build_drawn() if name == "drawn" else _build(name, config)
    for part in weights:
        load_weights(model, name, part)
    trim(model.visual)
    try:
        clip = Clip(model, tokenizer, name=name, preprocess=own | preprocess)
    except (TypeError, ValueError, RuntimeError) as error:
        raise CheckpointError(f"cannot use the preprocess_cfg of {name!r} ({first_line(error)}): expected mean and std "
                              "of three channels, and an interpolation such as bicubic") from error
    return clip.to(device)


def _build(name: str, config: dict) -> tuple[nn.Module, Callable[[list[str]], Tensor]]:
    """The architecture that ``config`` describes, and the tokenizer that belongs to it."""
    text = config["text_cfg"]
    foreign_text = bool(text.get("hf_model_name") or text.get("hf_tokenizer_name"))
    if foreign_text and find_spec("transformers") is None:
        raise CheckpointError(f"the text side of {name!r} needs the package transformers: pip install transformers, "
                              "then connect once to fetch its tokenizer")
    try:
        if not is_repository(name) or foreign_text:
            return _random_model(config), open_clip.get_tokenizer(name)
        tokenizer = open_clip.SimpleTokenizer(context_length=text.get("context_length", 77),
                                              **text.get("tokenizer_kwargs") or {})
        if text.get("vocab_size", tokenizer.vocab_size) < tokenizer.vocab_size:
            raise ValueError(f"vocab_size {text['vocab_size']} and no hf_tokenizer_name")
        return _random_model(config), tokenizer
    except Exception as error:  # a foreign configuration, or a tokenizer of the hub that is not there
        mend = "connect once to fetch its tokenizer" if foreign_text else "expected a configuration of open_clip"
        raise CheckpointError(f"cannot build {name!r} ({first_line(error)}): {mend}") from error


def _random_model(config: dict) -> nn.Module:
    """The open_clip model that ``config`` describes, with the same random weights each time."""
    vision, text, custom = config["vision_cfg"], config["text_cfg"], config.pop("custom_text", False)
    if "timm_model_name" in vision:
        vision["timm_model_pretrained"] = False  # it would be fetched, only to be overwritten
    if "hf_model_name" in text:
        text["hf_model_pretrained"], custom = False, True
    model_class = open_clip.CoCa if "multimodal_cfg" in config else open_clip.CustomTextCLIP if custom else \
        open_clip.CLIP
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return model_class(**config)


def _build_drawn() -> tuple[nn.Module, WordTokenizer]:
    open_clip.add_model_config(data_path("drawn", "drawn-clip.json"))
    text = open_clip.get_model_config("drawn-clip")["text_cfg"]
    tokenizer = WordTokenizer.from_file(data_path("drawn", "vocabulary.txt"), text["context_length"])
    if tokenizer.vocab_size != text["vocab_size"]:
        raise CheckpointError(f"the drawn CLIP's vocabulary has {tokenizer.vocab_size} ids, its configuration "
                              f"{text['vocab_size']}: the files in {data_path('drawn')} do not belong together")
    return _random_model(open_clip.get_model_config("drawn-clip")), tokenizer
