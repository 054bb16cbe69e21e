"""The image tower as open_clip builds it, without the work that nobody looks at and the copies that nobody needs."""

import torch.nn.functional as F
from open_clip.transformer import ResidualAttentionBlock, VisionTransformer
from torch import Tensor, nn

from zsar.attention import self_attention


class PatchProduct(nn.Conv2d):
    """The embedding of patches, a convolution whose stride is its kernel, as the one matrix product that it is.

    A convolution's way back to the pixels is slow where there are few channels, and an attack goes it at every step.
    """

    def forward(self, pixels: Tensor) -> Tensor:
        """[B, C, H, W], H and W multiples of the patch's side p, to [B, width, H / p, W / p]."""
        side = self.kernel_size[0]
        patches = pixels.unflatten(3, (-1, side)).unflatten(2, (-1, side)).permute(0, 2, 4, 1, 3, 5)
        return F.linear(patches.flatten(3), self.weight.flatten(1)).permute(0, 3, 1, 2)


def is_bare(attention: nn.Module) -> bool:
    """Whether an attention is torch's own, and nothing hangs on it that would have to be called."""
    return type(attention) is nn.MultiheadAttention and not attention._forward_hooks and \
        not attention._forward_pre_hooks


class PackedBlock(ResidualAttentionBlock):
    """A block whose attention takes queries, keys and values from one product as they lie there.

    Not where somebody listens to ``attn``, or has put another in its place.
    """

    def attention(self, q_x: Tensor, k_x: Tensor | None = None, v_x: Tensor | None = None,
                  attn_mask: Tensor | None = None) -> Tensor:
        """Tokens [B, L, W] to what each has gathered from all, [B, L, W]."""
        own = self.attn
        if not is_bare(own):
            return super().attention(q_x, k_x, v_x, attn_mask)
        gathered = self_attention(F.linear(q_x, own.in_proj_weight, own.in_proj_bias), own.num_heads)
        return own.out_proj(gathered)


class ClassTokenBlock(ResidualAttentionBlock):
    """A last block that computes its class token alone: all tokens are attended to, one of them attends.

    CLIP's embedding is made of that token, and open_clip computes the others to throw them away: a fifth of a tower of
    four blocks, a fourteenth of one of twelve.
    """

    def forward(self, q_x: Tensor, k_x: Tensor | None = None, v_x: Tensor | None = None,
                attn_mask: Tensor | None = None) -> Tensor:
        """Tokens [B, L, W] to the class token [B, 1, W]."""
        x = q_x[:, :1] + self.ls_1(self.gather(self.ln_1(q_x)))
        return x + self.ls_2(self.mlp(self.ln_2(x)))

    def gather(self, tokens: Tensor) -> Tensor:
        """What the class token gathers: [B, L, W] to [B, 1, W]. Its scores are a sum of products, not a matrix."""
        own, width = self.attn, tokens.shape[2]
        if not is_bare(own):
            return self.attention(q_x=tokens[:, :1], k_x=tokens, v_x=tokens)
        of_query, of_others = ((own.in_proj_weight[rows], own.in_proj_bias[rows])
                               for rows in (slice(width), slice(width, None)))
        query = F.linear(tokens[:, :1], *of_query).unflatten(2, (own.num_heads, -1))  # [B, 1, heads, side]
        keys, values = F.linear(tokens, *of_others).unflatten(2, (2, own.num_heads, -1)).unbind(2)
        scores = (query * keys).sum(3, keepdim=True) * query.shape[3] ** -0.5  # [B, L, heads, 1]
        return own.out_proj((scores.softmax(1) * values).sum(1, keepdim=True).flatten(2))


KINDS = (ResidualAttentionBlock, PackedBlock, ClassTokenBlock)


def is_plain(tower: nn.Module) -> bool:
    """Whether it is the vision transformer of OpenAI's CLIP, whose embedding is its class token."""
    return type(tower) is VisionTransformer and tower.attn_pool is None and tower.pool_type == "tok" and \
        not tower.output_tokens and tower.transformer.batch_first and \
        all(type(block) in KINDS for block in tower.transformer.resblocks) and \
        type(tower.conv1) in (nn.Conv2d, PatchProduct) and len(set(tower.conv1.kernel_size)) == 1 and \
        all(size % side == 0 for size, side in zip(tower.image_size, tower.patch_size, strict=True))


def trim(tower: nn.Module, trimmed: bool = True) -> None:
    """Let a tower compute its embedding the short way, in place; ``trimmed`` False: as open_clip does, again.

    Weights and their names stay, and up to the rounding of sums the embedding does. A tower of another kind is left as
    it is (``is_plain``).
    """
    if is_plain(tower):
        *blocks, last = tower.transformer.resblocks
        tower.conv1.__class__ = PatchProduct if trimmed else nn.Conv2d
        for block in blocks:
            block.__class__ = PackedBlock if trimmed else ResidualAttentionBlock
        last.__class__ = ClassTokenBlock if trimmed else ResidualAttentionBlock
