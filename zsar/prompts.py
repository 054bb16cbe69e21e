"""Visual prompts: a few learned numbers around or beside the picture, while every weight of CLIP stays as it is.

``PadPrompt`` and ``TokenPrompt`` after Mao et al. (2023), section 3.2; padding goes back to Bahng et al. (2022,
"Exploring visual prompts"), tokens to Jia et al. (2022, "Visual prompt tuning"). ``attach`` puts them into a CLIP by
hooks on its image tower, so no installed package is edited and every attack goes through them.
"""

import torch
from open_clip.timm_model import TimmModel
from open_clip.transformer import VisionTransformer
from torch import Tensor, nn

from zsar.clip import Clip
from zsar.errors import PromptError


class PadPrompt(nn.Module):
    """A learned frame, ``pad`` pixels wide, added to the normalised, model-size image.

    It starts at zero: the prompted model begins as the original. 4 pad (image_size - pad) pixels of three channels:
    88,320 numbers for 40 pixels around 224. Raises PromptError where the frame does not fit into the image.
    """

    def __init__(self, pad: int, image_size: int):
        super().__init__()
        if not 1 <= pad <= image_size // 2:
            raise PromptError(f"pad prompt of {pad} pixels on an image of {image_size}: expected 1 to "
                              f"{image_size // 2}, for a frame is on both sides")
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

    def before_tower(self, tower: nn.Module, inputs: tuple) -> tuple:
        """The forward pre-hook of an image tower."""
        return (self(inputs[0]), *inputs[1:])


class TokenPrompt(nn.Module):
    """``n`` learned tokens of the tower's ``width``, appended to the sequence before ``ln_pre``: n x width numbers.

    They start at random, as class tokens do, with standard deviation width^-1/2: equal tokens would get equal
    gradients and stay equal. They are taken off again behind the last block, so that any pooling sees the picture's
    own tokens only. Raises PromptError unless ``n`` is at least 1.
    """

    def __init__(self, n: int, width: int, seed: int = 0):
        super().__init__()
        if n < 1:
            raise PromptError(f"token prompt of {n} tokens: expected at least 1")
        generator = torch.Generator().manual_seed(seed)
        self.tokens = nn.Parameter(width**-0.5 * torch.randn(n, width, generator=generator))

    def forward(self, sequence: Tensor) -> Tensor:
        """[B, L, W] -> [B, L + n, W]."""
        return torch.cat([sequence, self.tokens.to(sequence.dtype).expand(len(sequence), -1, -1)], dim=1)

    def before_norm(self, norm: nn.Module, inputs: tuple) -> tuple:
        """The forward pre-hook of the norm before the first block."""
        return (self(inputs[0]), *inputs[1:])

    def after_blocks(self, blocks: nn.Module, inputs: tuple, output: Tensor) -> Tensor:
        """The forward hook of the blocks: the picture's own tokens [B, L, W]."""
        return output[:, :-len(self.tokens)]


def attach(clip: Clip, *prompts: PadPrompt | TokenPrompt) -> Clip:
    """Put prompts into the image tower of ``clip``, in place; they become part of its weights and its digest.

    Raises PromptError for a second prompt of a kind, a pad prompt made for another image size, a token prompt of
    another width, and tokens for a tower that is no vision transformer.
    """
    tower = clip.model.visual
    attached = getattr(clip.model, "prompts", None) or nn.ModuleDict()
    for prompt in prompts:
        kind = "pad" if isinstance(prompt, PadPrompt) else "token"
        if kind in attached:
            raise PromptError(f"this CLIP has a {kind} prompt already: start from a fresh copy")
        if kind == "pad":
            if prompt.image_size != clip.image_size:
                raise PromptError(f"pad prompt for images of {prompt.image_size} pixels: {clip.name} sees "
                                  f"{clip.image_size}")
            tower.register_forward_pre_hook(prompt.before_tower)
        else:
            norm, blocks, width = token_places(clip)
            if prompt.tokens.shape[1] != width:
                raise PromptError(f"token prompt of width {prompt.tokens.shape[1]}: the tokens of {clip.name} have "
                                  f"{width}")
            norm.register_forward_pre_hook(prompt.before_norm)
            blocks.register_forward_hook(prompt.after_blocks)
        attached[kind] = prompt.to(clip.device)
    clip.model.prompts = attached
    return clip


def token_places(clip: Clip) -> tuple[nn.Module, nn.Module, int]:
    """Norm before the blocks, the blocks, and their width, for open_clip's own ViTs and timm's plain ones.

    Raises PromptError for every other tower.
    """
    tower = clip.model.visual
    if isinstance(tower, VisionTransformer):
        return tower.ln_pre, tower.transformer, tower.conv1.out_channels
    if isinstance(tower, TimmModel) and type(tower.trunk).__name__ == "VisionTransformer":
        return tower.trunk.norm_pre, tower.trunk.blocks, tower.trunk.embed_dim
    inner = tower.trunk if isinstance(tower, TimmModel) else tower
    raise PromptError(f"{clip.name} has an image tower of kind {type(inner).__name__}: tokens need a vision "
                      "transformer; use a pad prompt, or a ViT such as ViT-B-32-quickgelu")
