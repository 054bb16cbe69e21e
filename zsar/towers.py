"""The image tower without the work that nobody looks at."""

from open_clip.transformer import ResidualAttentionBlock, VisionTransformer
from torch import Tensor, nn


class ClassTokenBlock(ResidualAttentionBlock):
    """A last block that computes its class token alone: all tokens are attended to, one of them attends.

    CLIP's embedding is made of that token, and open_clip computes the others to throw them away: a fifth of a tower of
    four blocks, a fourteenth of one of twelve. Up to the rounding of sums the token is the same.
    """

    def forward(self, q_x: Tensor, k_x: Tensor | None = None, v_x: Tensor | None = None,
                attn_mask: Tensor | None = None) -> Tensor:
        """Tokens [B, L, W] to the class token [B, 1, W]."""
        tokens = self.ln_1(q_x)
        x = q_x[:, :1] + self.ls_1(self.attention(q_x=tokens[:, :1], k_x=tokens, v_x=tokens, attn_mask=attn_mask))
        return x + self.ls_2(self.mlp(self.ln_2(x)))


def last_block(tower: nn.Module) -> nn.Module | None:
    """The last block of a tower whose embedding is its class token, as open_clip builds it for CLIP; None of others."""
    plain = type(tower) is VisionTransformer and tower.attn_pool is None and tower.pool_type == "tok" and \
        not tower.output_tokens and tower.transformer.batch_first
    block = tower.transformer.resblocks[-1] if plain else None
    return block if type(block) in (ResidualAttentionBlock, ClassTokenBlock) else None


def only_class_token(tower: nn.Module, only: bool = True) -> None:
    """Let the last block compute the class token alone, in place; ``only`` False: all tokens again.

    Weights and their names stay. A tower of another kind is left as it is.
    """
    if block := last_block(tower):
        block.__class__ = ClassTokenBlock if only else ResidualAttentionBlock
