"""What runs on an NVIDIA device in one kernel of Triton: attention over few tokens, an attack's start and its step.

torch launches a kernel for every operation, and each reads and writes all of memory's numbers anew; compiled attention
is made for sequences many times as long as an image's. Both come to what ``zsar.attention`` and ``zsar.attacks.balls``
compute: attention up to rounding, the others bit for bit.
"""

import warnings
from functools import lru_cache

import torch
from torch import Tensor

from zsar.errors import first_line

try:
    import triton
    import triton.language as tl
    from torch.library import triton_op, wrap_triton
except ImportError:  # torch without CUDA
    triton = None

#: Tokens of an image whose scores are held in one piece; a longer sequence is torch's to cut up.
BLOCK = 64
HALVES = (torch.float16, torch.bfloat16)


def usable(device: torch.device) -> bool:
    """Whether ``signed_step`` and ``uniform`` can be built and run on a device; if not, that is said once."""
    return _is_current(device) and _runs(device, None)


@torch.compiler.assume_constant_result
def can_attend(device: torch.device, kind: torch.dtype, length: int, side: int) -> bool:
    """Whether ``attention`` takes these: few tokens in half precision, heads of a side that fits its products."""
    return _is_current(device) and kind in HALVES and length <= BLOCK and side in (16, 32, 64, 128) and \
        _runs(device, kind)


def _is_current(device: torch.device) -> bool:
    """Whether Triton would launch on it: on the current device it does, whatever its arguments are on."""
    return device.type == "cuda" and device.index == torch.cuda.current_device()


@lru_cache
def _runs(device: torch.device, kind: torch.dtype | None) -> bool:
    """Try a step and a start, or attention in a precision, there and back, before anything depends on them."""
    if triton is None:
        return False
    try:
        _attend_once(device, kind) if kind else _step_once(device)
    except Exception as error:  # whatever the compiler and the tools behind it raise
        warnings.warn(f"Triton's kernels do not work on {device}, going on without them: {first_line(error, 120)}",
                      stacklevel=2)
        return False
    return True


def _step_once(device: torch.device) -> None:
    image = torch.zeros(1, 3, 2, 2, device=device)
    signed_step(image, image, image, 0.0, 0.0)
    uniform(torch.zeros(1, dtype=torch.int64, device=device), image)


def _attend_once(device: torch.device, kind: torch.dtype) -> None:
    packed = torch.zeros(1, 2, 3 * 16, device=device, dtype=kind)
    attention_back(packed, attention(packed, 1), 1)


if triton:
    @triton.jit
    def _scores(packed, row, width, length, SIDE: tl.constexpr, BLOCK: tl.constexpr):
        """Queries, keys and values of one head [BLOCK, SIDE], and the weights [BLOCK, BLOCK] of the keys."""
        tokens, within = tl.arange(0, BLOCK), tl.arange(0, SIDE)
        places = row + tokens[:, None] * 3 * width + within[None, :]
        there = tokens[:, None] < length
        queries = tl.load(packed + places, mask=there, other=0.0)
        keys = tl.load(packed + places + width, mask=there, other=0.0)
        values = tl.load(packed + places + 2 * width, mask=there, other=0.0)
        scores = tl.dot(queries, tl.trans(keys)) * SIDE ** -0.5
        scores = tl.where(tokens[None, :] < length, scores, float("-inf"))
        weights = tl.exp(scores - tl.max(scores, 1)[:, None])
        return queries, keys, values, weights / tl.sum(weights, 1)[:, None]

    @triton.jit
    def _attention(packed, out, length, heads, SIDE: tl.constexpr, BLOCK: tl.constexpr):
        """One head of one image: ``packed`` [B, length, 3, heads, SIDE] to ``out`` [B, length, heads, SIDE]."""
        image, head, width = tl.program_id(0) // heads, tl.program_id(0) % heads, heads * SIDE
        row = image.to(tl.int64) * length * 3 * width + head * SIDE
        _, _, values, weights = _scores(packed, row, width, length, SIDE, BLOCK)
        gathered = tl.dot(weights.to(values.dtype), values)
        tokens, within = tl.arange(0, BLOCK)[:, None], tl.arange(0, SIDE)[None, :]
        places = image.to(tl.int64) * length * width + head * SIDE + tokens * width + within
        tl.store(out + places, gathered.to(values.dtype), mask=tokens < length)

    @triton.jit
    def _attention_back(packed, gradient, out, length, heads, SIDE: tl.constexpr, BLOCK: tl.constexpr):
        """The gradient at ``packed`` of one head of one image; its weights are computed anew."""
        image, head, width = tl.program_id(0) // heads, tl.program_id(0) % heads, heads * SIDE
        row = image.to(tl.int64) * length * 3 * width + head * SIDE
        queries, keys, values, weights = _scores(packed, row, width, length, SIDE, BLOCK)
        tokens, within = tl.arange(0, BLOCK)[:, None], tl.arange(0, SIDE)[None, :]
        there = tokens < length
        places = image.to(tl.int64) * length * width + head * SIDE + tokens * width + within
        given = tl.load(gradient + places, mask=there, other=0.0)
        to_values = tl.dot(tl.trans(weights.to(given.dtype)), given)
        to_weights = tl.dot(given, tl.trans(values))
        to_scores = weights * (to_weights - tl.sum(weights * to_weights, 1)[:, None]) * SIDE ** -0.5
        to_scores = to_scores.to(given.dtype)
        places = row + tokens * 3 * width + within
        tl.store(out + places, tl.dot(to_scores, keys).to(given.dtype), mask=there)
        tl.store(out + places + width, tl.dot(tl.trans(to_scores), queries).to(given.dtype), mask=there)
        tl.store(out + places + 2 * width, to_values.to(given.dtype), mask=there)

    @triton.jit
    def _signed_step(points, clean, gradient, out, alpha, eps, numbers, SIZE: tl.constexpr):
        """SIZE numbers of: points + alpha sign(gradient), projected onto the ball around ``clean`` and [0, 1]."""
        places = tl.program_id(0).to(tl.int64) * SIZE + tl.arange(0, SIZE)
        there = places < numbers
        slope = tl.load(gradient + places, mask=there, other=0.0)
        centre = tl.load(clean + places, mask=there, other=0.0)
        sign = (slope > 0).to(tl.float32) - (slope < 0).to(tl.float32) + 0 * slope  # NaN stays NaN
        moved = tl.load(points + places, mask=there, other=0.0) + alpha * sign
        change = tl.clamp(moved - centre, -eps, eps, propagate_nan=tl.PropagateNan.ALL)
        inside = tl.clamp(centre + change, 0.0, 1.0, propagate_nan=tl.PropagateNan.ALL)
        tl.store(out + places, inside, mask=there)

    @triton.jit
    def _uniform(keys, out, each, numbers, SIZE: tl.constexpr):
        """SIZE numbers of splitmix64 at keys[i] + j, the upper 24 bits in [0, 1): element j of image i, of ``each``."""
        places = tl.program_id(0).to(tl.int64) * SIZE + tl.arange(0, SIZE)
        there = places < numbers
        x = tl.load(keys + places // each, mask=there, other=0) + places % each - 0x61C8864680B583EB
        x = (x ^ (x >> 30 & 0x3FFFFFFFF)) * -0x40A7B892E31B1A47
        x = (x ^ (x >> 27 & 0x1FFFFFFFFF)) * -0x6B2FB644ECCEEE15
        x = x ^ (x >> 31 & 0x1FFFFFFFF)
        tl.store(out + places, (x >> 40 & 0xFFFFFF).to(tl.float32) * 5.9604644775390625e-8, mask=there)  # 2 ** -24

    @triton_op("zsar::attention", mutates_args={})
    def attention(packed: Tensor, heads: int) -> Tensor:
        """Self-attention of at most ``BLOCK`` tokens: [B, L, 3W] to [B, L, W], in float16 or bfloat16."""
        packed = packed.contiguous()
        batch, length, width = packed.shape[0], packed.shape[1], packed.shape[2] // 3
        out = packed.new_empty(batch, length, width)
        wrap_triton(_attention)[(batch * heads,)](packed, out, length, heads, SIDE=width // heads, BLOCK=BLOCK)
        return out

    @triton_op("zsar::attention_back", mutates_args={})
    def attention_back(packed: Tensor, gradient: Tensor, heads: int) -> Tensor:
        """The gradient at ``packed`` [B, L, 3W] from that at what ``attention`` returned, [B, L, W]."""
        packed, gradient = packed.contiguous(), gradient.contiguous()
        out = torch.empty_like(packed)
        wrap_triton(_attention_back)[(len(packed) * heads,)](packed, gradient, out, packed.shape[1], heads,
                                                             SIDE=gradient.shape[2] // heads, BLOCK=BLOCK)
        return out

    def _keep(ctx, inputs: tuple, output: Tensor) -> None:
        packed, ctx.heads = inputs
        ctx.save_for_backward(packed)

    def _back(ctx, gradient: Tensor) -> tuple[Tensor, None]:
        return attention_back(*ctx.saved_tensors, gradient, ctx.heads), None

    attention.register_autograd(_back, setup_context=_keep)


def signed_step(points: Tensor, clean: Tensor, gradient: Tensor, alpha: float, eps: float) -> Tensor:
    """``project(points + alpha direction(gradient))`` in L_inf, float32 images [B, 3, H, W], in one pass."""
    points, clean, gradient = points.contiguous(), clean.contiguous(), gradient.contiguous()
    out, size = torch.empty_like(points), 1024
    _signed_step[(triton.cdiv(points.numel(), size),)](points, clean, gradient, out, alpha, eps, points.numel(),
                                                       SIZE=size)
    return out


def uniform(keys: Tensor, like: Tensor) -> Tensor:
    """float32 in [0, 1) shaped as ``like`` [B, ...]: a hash of keys[i] + j, that of ``zsar.attacks.balls.uniform``."""
    out, size = torch.empty(like.shape, device=like.device), 1024
    _uniform[(triton.cdiv(out.numel(), size),)](keys.contiguous(), out, like[0].numel(), out.numel(), SIZE=size)
    return out
