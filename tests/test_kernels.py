"""The kernels, run by Triton's interpreter where there is no device: what they compute is what torch does."""

import os
import subprocess
import sys

import pytest
import torch

from zsar import kernels
from zsar.attacks.balls import _splitmix64, project, uniform
from zsar.attacks.engine import ascend, direction
from zsar.attention import self_attention

pytestmark = pytest.mark.skipif(kernels.triton is None, reason="Triton is not here")
DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
EPS, ALPHA = 4 / 255, 1 / 255


INTERPRETED = os.environ.get("TRITON_INTERPRET") == "1"  # Triton looks at it when it is imported
runs = pytest.mark.skipif(DEVICE == "cpu" and not INTERPRETED, reason="run by the test of the interpreter")


@pytest.mark.skipif(DEVICE == "cuda" or INTERPRETED, reason="the kernels run in this process")
def test_the_interpreter_finds_the_kernels_right():
    done = subprocess.run([sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-n", "0", __file__],
                          env=os.environ | {"TRITON_INTERPRET": "1"}, capture_output=True, text=True)
    assert done.returncode == 0 and "6 passed" in done.stdout, done.stdout[-3000:] + done.stderr[-1000:]


@runs
@pytest.mark.parametrize(("length", "heads", "side", "half", "apart"), [
    (50, 3, 64, *((torch.bfloat16, 3e-2) if DEVICE == "cuda" else (torch.float16, 4e-3))),  # bf16 is not interpreted
    (37, 2, 32, torch.float16, 4e-3), (64, 1, 16, torch.float16, 4e-3)])
def test_attention_is_that_of_torch(length, heads, side, half, apart):
    generator = torch.Generator().manual_seed(0)
    packed = torch.randn(2, length, 3 * heads * side, generator=generator).to(DEVICE)
    given = torch.randn(2, length, heads * side, generator=generator).to(DEVICE)
    found = []
    for attend, kind in ((kernels.attention, half), (self_attention, torch.float32)):
        points = packed.to(kind).requires_grad_()
        out = attend(points, heads)
        found.append((out, *torch.autograd.grad(out, points, given.to(kind))))
    for ours, torchs in zip(*found, strict=True):
        assert (ours.float() - torchs).abs().max() < apart * torchs.abs().max()


@runs
def test_a_step_is_that_of_torch_bit_for_bit():
    generator = torch.Generator().manual_seed(1)
    clean, gradient, noise = (torch.randn(3, 3, 19, 23, generator=generator).to(DEVICE) for _ in range(3))
    clean, gradient[0, 0, 0, :4] = clean.sigmoid(), torch.tensor([0., -0., torch.nan, torch.inf])
    points = project(clean + EPS * noise, clean, EPS, "linf")
    ours = kernels.signed_step(points, clean, gradient, ALPHA, EPS)
    torchs = project(points + ALPHA * direction(gradient, "linf"), clean, EPS, "linf")
    assert torch.equal(ours.nan_to_num(-1), torchs.nan_to_num(-1)) and ours.isnan().any()
    assert torch.equal(ascend(points, clean, gradient, EPS, ALPHA, "linf").nan_to_num(-1), torchs.nan_to_num(-1))


@runs
def test_random_numbers_are_those_of_torch_bit_for_bit():
    seeds = torch.tensor([0, -1, 2**63 - 1, 12345], device=DEVICE)
    like = torch.zeros(4, 3, 19, 23, device=DEVICE)
    keys = _splitmix64(_splitmix64(seeds) + 7)
    assert torch.equal(kernels.uniform(keys, like).cpu(), uniform(like.cpu(), seeds.cpu(), 7))


def test_where_they_cannot_be_built_all_goes_on(monkeypatch):
    def fails(*given):
        raise RuntimeError("no compiler\nin sight")

    device = torch.device("cuda", 0)
    monkeypatch.setattr(kernels, "_is_current", lambda asked: asked == device)
    monkeypatch.setattr(kernels, "_step_once", fails)
    monkeypatch.setattr(kernels, "_attend_once", fails)
    kernels._runs.cache_clear()
    try:
        with pytest.warns(UserWarning, match="do not work on cuda:0, going on without them: no compiler$") as said:
            assert not any(kernels.usable(device) for _ in range(3))
        assert len(said) == 1
        with pytest.warns(UserWarning, match="going on without them"):
            assert not kernels.can_attend(device, torch.bfloat16, 50, 64)
        assert not kernels.usable(torch.device("cuda", 1)) and not kernels.can_attend(device, torch.bfloat16, 65, 64)
    finally:
        kernels._runs.cache_clear()
