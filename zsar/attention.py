"""Self-attention of the few tokens of an image, from and into the layout that the matrix products beside it have."""

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable

from zsar import kernels


def self_attention(packed: Tensor, heads: int) -> Tensor:
    """Queries, keys and values [B, L, 3W] side by side to what each token has gathered, [B, L, W].

    That of ``nn.MultiheadAttention`` between its two projections (no mask, no dropout), up to the rounding of sums, but
    without its copies: of packed values, and of a gradient whose layout makes one product into many small ones.
    """
    if packed.shape[1] <= kernels.BLOCK and packed.device.type == "cpu":
        return _Short.apply(packed, heads)
    if kernels.can_attend(packed.device, packed.dtype, packed.shape[1], packed.shape[2] // (3 * heads)):
        return kernels.attention(packed, heads)
    queries, keys, values = packed.unflatten(2, (3, heads, -1)).permute(2, 0, 3, 1, 4)
    return F.scaled_dot_product_attention(queries, keys, values).transpose(1, 2).flatten(2)


class _Short(torch.autograd.Function):
    """Three batched products each way, with nothing moved but what they need: on a CPU faster than torch's own."""

    @staticmethod
    def forward(ctx, packed: Tensor, heads: int) -> Tensor:
        batch, length, _ = packed.shape
        queries, keys, values = packed.unflatten(2, (3, heads, -1)).permute(2, 0, 3, 1, 4).flatten(1, 2).contiguous()
        weights = (queries @ keys.mT).mul_(queries.shape[2] ** -0.5).softmax(2)
        ctx.save_for_backward(queries, keys, values, weights)
        ctx.heads = heads
        return (weights @ values).view(batch, heads, length, -1).transpose(1, 2).flatten(2)

    @staticmethod
    @once_differentiable
    def backward(ctx, gradient: Tensor) -> tuple[Tensor, None]:
        queries, keys, values, weights = ctx.saved_tensors
        batch, length, _ = gradient.shape
        gradient = gradient.unflatten(2, (ctx.heads, -1)).transpose(1, 2).flatten(0, 1)
        to_weights = gradient @ values.mT
        to_scores = weights * (to_weights - (weights * to_weights).sum(2, keepdim=True)) * queries.shape[2] ** -0.5
        packed = torch.stack([to_scores @ keys, to_scores.mT @ queries, weights.mT @ gradient])
        return packed.view(3, batch, ctx.heads, length, -1).permute(1, 3, 0, 2, 4).flatten(2), None
