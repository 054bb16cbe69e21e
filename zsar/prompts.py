"""Visual prompts: a few learned numbers around or beside the picture, while every weight of CLIP stays as it is.

``PadPrompt`` and ``TokenPrompt`` after Mao et al. (2023), section 3.2; padding goes back to Bahng et al. (2022,
"Exploring visual prompts"), tokens to Jia et al. (2022, "Visual prompt tuning"). ``attach`` puts them into a CLIP by
hooks on its image tower, so no installed package is edited and every attack goes through them.
"""

import torch
import torch.nn.functional as F
from open_clip.timm_model import TimmModel
from open_clip.transformer import VisionTransformer
from torch import Tensor, nn

from zsar.clip import Clip
from zsar.errors import PromptError

#: The sides of a pad prompt as the code of Mao et al. calls them.
SIDES = ("pad_up", "pad_down", "pad_left", "pad_right")


class PadPrompt(nn.Module):
    """A learned frame, ``pad`` pixels wide, added to the normalised, model-size image.

    It starts at zero, so that the prompted model begins as the original; the code of Mao et al. starts it at random
    with standard deviation 1, in normalised units. 4 pad (image_size - pad) pixels of three channels:
    88,320 numbers for 40 pixels around 224. Raises PromptError where the frame does not fit into the image.
    """

    kind = "pad"

    def __init__(self, pad: int, image_size: int):
        super().__init__()
        if not isinstance(pad, int) or not 1 <= pad <= image_size // 2:
            raise PromptError(f"pad prompt of {pad} pixels on an image of {image_size}: expected a whole number from "
                              f"1 to {image_size // 2}, for a frame is on both sides")
        self.pad, self.image_size = pad, image_size
        inside = torch.zeros(image_size, image_size, dtype=torch.bool)
        inside[pad:image_size - pad, pad:image_size - pad] = True
        self.register_buffer("places", (~inside).flatten().nonzero().flatten(), persistent=False)
        self.values = nn.Parameter(torch.zeros(3, len(self.places)))

    def frame(self) -> Tensor:
        """The prompt as a picture [3, S, S], zero inside."""
        flat = self.values.new_zeros(3, self.image_size**2).index_copy(1, self.places, self.values)
        return flat.view(3, self.image_size, self.image_size)

    def forward(self, images: Tensor) -> Tensor:
        """Normalised images [B, 3, S, S] -> the same with the frame added."""
        return images + self.frame()

    def check(self, clip: Clip) -> None:
        """Raise PromptError unless the prompt is made for images of the size that ``clip`` sees."""
        if self.image_size != clip.image_size:
            raise PromptError(f"pad prompt for images of {self.image_size} pixels: {clip.name} sees "
                              f"{clip.image_size}")

    def hook(self, clip: Clip) -> None:
        """Put the prompt before the image tower of ``clip``."""
        clip.model.visual.register_forward_pre_hook(self.before_tower)

    def before_tower(self, tower: nn.Module, inputs: tuple) -> tuple:
        """The forward pre-hook of an image tower."""
        return (self(inputs[0]), *inputs[1:])


class TokenPrompt(nn.Module):
    """``n`` learned tokens of the tower's ``width``, appended to the sequence before ``ln_pre``: n x width numbers.

    They start at random with standard deviation 1, as in the code of Mao et al. (``ln_pre`` makes the size of a token
    irrelevant to the tower, but not to the optimizer: one that begins small is turned by a small step). They are taken
    off again behind the last block, so that any pooling sees the picture's own tokens only. Raises PromptError unless
    ``n`` and ``width`` are at least 1.
    """

    kind = "token"

    def __init__(self, n: int, width: int, seed: int = 0):
        super().__init__()
        for size, what in ((n, "tokens"), (width, "numbers a token")):
            if not isinstance(size, int) or size < 1:
                raise PromptError(f"token prompt of {size} {what}: expected a whole number of at least 1")
        generator = torch.Generator().manual_seed(seed)
        self.tokens = nn.Parameter(torch.randn(n, width, generator=generator))

    def forward(self, sequence: Tensor) -> Tensor:
        """[B, L, W] -> [B, L + n, W]."""
        return torch.cat([sequence, self.tokens.to(sequence.dtype).expand(len(sequence), -1, -1)], dim=1)

    def check(self, clip: Clip) -> None:
        """Raise PromptError unless the tower of ``clip`` is a vision transformer of the tokens' width."""
        width = token_places(clip)[2]
        if self.tokens.shape[1] != width:
            raise PromptError(f"token prompt of width {self.tokens.shape[1]}: the tokens of {clip.name} have {width}")

    def hook(self, clip: Clip) -> None:
        """Put the prompt before the first norm of the tower of ``clip``, and take it off behind the last block."""
        norm, blocks, _ = token_places(clip)
        norm.register_forward_pre_hook(self.before_norm)
        for block in blocks:
            block.register_forward_pre_hook(self.before_block, with_kwargs=True)
        blocks[-1].register_forward_hook(self.after_blocks)

    def before_norm(self, norm: nn.Module, inputs: tuple) -> tuple:
        """The forward pre-hook of the norm before the first block."""
        return (self(inputs[0]), *inputs[1:])

    def before_block(self, block: nn.Module, inputs: tuple, kwargs: dict) -> tuple[tuple, dict]:
        """The forward pre-hook of a block: rotary positions, where it has any (sines, cosines), do not turn tokens."""
        if (rope := kwargs.get("rope")) is not None:
            sine, cosine = (F.pad(part, (0, 0, 0, len(self.tokens)), value=value)
                            for value, part in enumerate(rope.chunk(2, dim=-1)))
            kwargs = kwargs | {"rope": torch.cat([sine, cosine], dim=-1)}
        return inputs, kwargs

    def after_blocks(self, block: nn.Module, inputs: tuple, output: Tensor) -> Tensor:
        """The forward hook of the last block: the picture's own tokens [B, L, W], or its class token alone."""
        return output if output.shape[1] == 1 else output[:, :-len(self.tokens)]


def from_authors(tensors: dict[str, Tensor]) -> list[PadPrompt | TokenPrompt]:
    """Prompts as the released code of Mao et al. keeps them (``models/prompters.py``): the same function of a picture.

    ``pad_up`` and ``pad_down`` [1, 3, p, S], ``pad_left`` and ``pad_right`` [1, 3, S - 2p, p] are the sides of a frame;
    ``prompt`` [1, n, width] are tokens, which that code appends too, at positions that it leaves at zero. Raises
    PromptError for other shapes, and for its other prompts, such as a patch.
    """
    shapes = {name: tuple(value.shape) for name, value in tensors.items()}
    pad, size = (0, 0, *shapes.get("pad_up", ()))[-2:]
    tokens, width = (0, 0, *shapes.get("prompt", ()))[-2:]
    frame = dict(zip(SIDES, 2 * [(1, 3, pad, size)] + 2 * [(1, 3, size - 2 * pad, pad)], strict=True))
    row = {"prompt": (1, tokens, width)}
    if shapes not in (frame | row, frame, row):
        found = ", ".join(f"{name} {list(shape)}" for name, shape in sorted(shapes.items()))
        raise PromptError(f"visual prompts {found}: expected pad_up and pad_down [1, 3, p, S], pad_left and pad_right "
                          "[1, 3, S - 2p, p], prompt [1, n, width], or one of the two kinds alone")
    prompts = []
    if pad:
        up, down, left, right = (tensors[side][0] for side in SIDES)
        middle = torch.cat([left, left.new_zeros(3, size - 2 * pad, size - 2 * pad), right], dim=2)
        prompts.append(PadPrompt(pad, size))
        prompts[-1].values.data = torch.cat([up, middle, down], dim=1).flatten(1)[:, prompts[-1].places]
    if tokens:
        prompts.append(TokenPrompt(tokens, width))
        prompts[-1].tokens.data = tensors["prompt"][0]
    return prompts


def attach(clip: Clip, *prompts: PadPrompt | TokenPrompt) -> Clip:
    """Put prompts into the image tower of ``clip``, in place; they become part of its weights and its digest.

    Raises PromptError for a second prompt of a kind, a pad prompt made for another image size, a token prompt of
    another width, and tokens for a tower that is no vision transformer; ``clip`` is then as it was.
    """
    attached = dict(getattr(clip.model, "prompts", {}))
    for prompt in prompts:
        if prompt.kind in attached:
            raise PromptError(f"this CLIP has a {prompt.kind} prompt already: start from a fresh copy")
        prompt.check(clip)
        attached[prompt.kind] = prompt
    for prompt in prompts:
        prompt.to(clip.device).hook(clip)
    clip.model.prompts = nn.ModuleDict(attached)
    return clip


def token_places(clip: Clip) -> tuple[nn.Module, nn.Sequential | nn.ModuleList, int]:
    """Norm before the blocks, the blocks, and their width, for the vision transformers of open_clip and timm.

    Those of timm are ``VisionTransformer`` (SigLIP, ViTamin) and ``Eva`` (EVA, PE). Raises PromptError for every
    other tower, such as a ResNet.
    """
    tower = clip.model.visual
    if isinstance(tower, VisionTransformer):
        return tower.ln_pre, tower.transformer.resblocks, tower.conv1.out_channels
    if isinstance(tower, TimmModel) and type(tower.trunk).__name__ in ("VisionTransformer", "Eva"):
        return tower.trunk.norm_pre, tower.trunk.blocks, tower.trunk.embed_dim
    inner = tower.trunk if isinstance(tower, TimmModel) else tower
    raise PromptError(f"{clip.name} has an image tower of kind {type(inner).__name__}: tokens and blocks-k need "
                      "VisionTransformer or Eva, as in ViT-B-32-quickgelu; pad and finetune work with any tower")
