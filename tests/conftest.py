"""Shared fixtures. One thread, so that parallel test processes do not wait for each other.

Fixtures import what they need: with ``-n`` the process that deals out the tests reads this file first, alone, and torch
would keep all others waiting.
"""

import os

os.environ["OMP_NUM_THREADS"] = "1"  # before torch is imported

import pytest


@pytest.fixture(scope="session")
def tiny_config() -> dict:
    """The configuration of ``tiny_clip``, as open_clip writes it."""
    from made_up import TINY

    return TINY


@pytest.fixture(scope="session")
def tiny_clip():
    """A CLIP with random weights that runs in no time; its logit scale is 14."""
    from made_up import tiny

    return tiny()


@pytest.fixture(scope="session")
def classifier(tiny_clip):
    from zsar.clip import ZeroShotClassifier

    return ZeroShotClassifier(tiny_clip, ["cat", "dog", "car", "frog"])


@pytest.fixture(scope="session")
def drawn_weights(tmp_path_factory):
    """Random weights of the drawn CLIP's architecture in a file: tests do not depend on how well it was trained."""
    from safetensors.torch import save_file

    from zsar.clip import load_clip

    path = tmp_path_factory.mktemp("weights") / "random.safetensors"
    state = load_clip("drawn", pretrained="random", device="cpu").model.state_dict()
    save_file({name: value.clone() for name, value in state.items()}, path)
    return path


@pytest.fixture(scope="session")
def images():
    """Eight smooth random pictures [8, 3, 16, 16]."""
    import torch

    with torch.random.fork_rng():
        torch.manual_seed(1)
        coarse = torch.rand(8, 3, 4, 4)
    return torch.nn.functional.interpolate(coarse, 16, mode="bilinear")


@pytest.fixture(scope="session")
def labels():
    import torch

    return torch.arange(8) % 4
