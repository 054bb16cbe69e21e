"""The same classifier at another speed: its gradients in lower precision or compiled, its answers as they were."""

import copy
import warnings
from collections.abc import Callable
from functools import lru_cache, partial

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from zsar import kernels
from zsar.clip import Clip, ZeroShotClassifier
from zsar.errors import PrecisionError, first_line, unknown_name

#: What gradients are computed in: float32, or bfloat16 in the image tower, with images, perturbation, text and logits
#: in float32. Half precision (fp16) is not offered: gradients of pixels vanish in it. Nor is TF32: what has it has
#: bfloat16 too, at twice the pace.
PRECISIONS = ("fp32", "bf16")


class FastClassifier(nn.Module):
    """A zero-shot classifier that an attack climbs faster, and that answers as ``exact`` does.

    ``logits`` come from the tower in lower precision or compiled: an attack takes its gradients from them. Whether an
    image is fooled is for ``exact``, the classifier as it was, to say: ``zsar.attacks`` asks it wherever it counts.
    In bf16 its weights are those of now: make another one when ``exact`` has changed.
    Raises UnknownNameError, and PrecisionError for a precision that the device lacks.
    """

    def __init__(self, exact: ZeroShotClassifier, precision: str = "fp32", compiled: bool = False):
        super().__init__()
        check_precision(precision, exact.clip.device)
        self.exact, self.precision, self.classnames = exact, precision, exact.classnames
        clip = exact.clip
        if precision == "bf16":
            kernels.can_attend(clip.device, torch.bfloat16, 1, 64)  # tried out before anything is compiled
            clip = in_half(clip)
        self._embed = compiled_embedding(clip) if compiled else partial(embedding, clip)
        self.eval()

    def logits(self, images: Tensor) -> Tensor:
        """Images float32 [B, 3, H, W] in [0, 1] to logits float32 [B, K]."""
        with torch.autocast(self.exact.clip.device.type, torch.bfloat16, enabled=self.precision == "bf16"):
            embeddings = self._embed(self.exact.clip.resize(images))
        return self.exact.of_features(F.normalize(embeddings.float(), dim=-1))

    def forward(self, images: Tensor) -> Tensor:
        """``logits``, so that any attack takes it for a model."""
        return self.logits(images)


def fast(classifier: ZeroShotClassifier, precision: str = "fp32",
         compiled: bool = False) -> ZeroShotClassifier | FastClassifier:
    """The classifier itself where nothing about it is to change, else a ``FastClassifier`` of it."""
    plain = precision == "fp32" and not compiled
    return classifier if plain else FastClassifier(classifier, precision, compiled)


def check_precision(precision: str, device: torch.device) -> None:
    """Raise UnknownNameError or PrecisionError unless gradients can be computed in ``precision`` on ``device``."""
    if precision not in PRECISIONS:
        raise unknown_name("precision", str(precision), PRECISIONS)
    if precision == "bf16" and device.type == "cuda" and not torch.cuda.is_bf16_supported(including_emulation=False):
        raise PrecisionError(f"precision bf16: {torch.cuda.get_device_name(device)} has no bfloat16, which NVIDIA's "
                             "have from 2020 on; use fp32")
    if precision == "bf16" and device.type == "cpu" and not cpu_has_bf16():
        warnings.warn("precision bf16: this processor has no instructions for it, and fp32 is many times faster",
                      stacklevel=1)  # one place, so that it is said once


@torch.no_grad()
def in_half(clip: Clip) -> Clip:
    """A copy whose matrix products hold their weights in bfloat16, so that autocast need not cast them each time.

    It has the weights that ``clip`` has now, and is the same object as long as ``clip`` is, for it may be compiled.
    """
    found = _half(clip, clip.device)
    for kind in ("parameters", "buffers"):
        for own, exact in zip(getattr(found, kind)(), getattr(clip, kind)(), strict=True):
            if own is not exact:
                own.copy_(exact)
    return found


@lru_cache(maxsize=1)
def _half(clip: Clip, device: torch.device) -> Clip:
    text = (value for name, value in clip.model.named_parameters() if not name.startswith("visual."))
    found = copy.deepcopy(clip, {id(part): part for part in (clip.tokenizer, *text)})  # which both share
    for part in found.model.visual.modules():
        if isinstance(part, (nn.Linear, nn.Conv2d, nn.MultiheadAttention)):
            part.bfloat16()
    return found


def embedding(clip: Clip, resized: Tensor) -> Tensor:
    """The image tower's own output [B, D] for images in [0, 1] of its size."""
    return clip.tower(clip.normalize(resized))


@lru_cache(maxsize=1)
def compiled_embedding(clip: Clip) -> Callable[[Tensor], Tensor]:
    """``embedding`` compiled, once for all datasets: behind the resize every micro-batch has one shape."""
    return _Compiled(partial(embedding, clip))


def cpu_has_bf16() -> bool:
    """Whether this processor has instructions for bfloat16, as far as torch says."""
    return torch.backends.mkldnn.is_available() and torch.ops.mkldnn._is_mkldnn_bf16_supported()


class _Compiled:
    """A function of images compiled at its first call, forward and back, for shapes that do not change.

    Where the machine cannot compile, it says so once and goes on without.
    """

    def __init__(self, run: Callable[[Tensor], Tensor]):
        self.plain, self.run, self.tried = run, torch.compile(run, dynamic=False), False

    def __call__(self, images: Tensor) -> Tensor:
        if not self.tried:
            self.tried = True
            try:  # there and back, so that what fails fails here
                with torch.enable_grad():
                    points = images.detach().clone().requires_grad_()
                    torch.autograd.grad(self.run(points).sum(), points)
            except Exception as error:  # whatever the compiler and the tools behind it raise
                if isinstance(error, torch.OutOfMemoryError):
                    raise
                warnings.warn(f"torch.compile does not work here, going on without it: {first_line(error, 120)}",
                              stacklevel=2)
                self.run = self.plain
        return self.run(images)
