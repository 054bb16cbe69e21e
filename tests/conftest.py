"""Shared fixtures. One thread, so that parallel test processes do not wait for each other."""

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")

import pytest
import torch
from made_up import TINY, tiny
from safetensors.torch import save_file

from zsar.clip import Clip, ZeroShotClassifier, load_clip

torch.set_num_threads(1)

@pytest.fixture(scope="session")
def tiny_config() -> dict:
    """The configuration of ``tiny_clip``, as open_clip writes it."""
    return TINY


@pytest.fixture(scope="session")
def tiny_clip() -> Clip:
    """A CLIP with random weights that runs in no time; its logit scale is 14."""
    return tiny()


@pytest.fixture(scope="session")
def classifier(tiny_clip) -> ZeroShotClassifier:
    return ZeroShotClassifier(tiny_clip, ["cat", "dog", "car", "frog"])


@pytest.fixture(scope="session")
def drawn_weights(tmp_path_factory):
    """Random weights of the drawn CLIP's architecture in a file: tests do not depend on how well it was trained."""
    path = tmp_path_factory.mktemp("weights") / "random.safetensors"
    state = load_clip("drawn", pretrained="random", device="cpu").model.state_dict()
    save_file({name: value.clone() for name, value in state.items()}, path)
    return path


@pytest.fixture(scope="session")
def images() -> torch.Tensor:
    """Eight smooth random pictures [8, 3, 16, 16]."""
    with torch.random.fork_rng():
        torch.manual_seed(1)
        coarse = torch.rand(8, 3, 4, 4)
    return torch.nn.functional.interpolate(coarse, 16, mode="bilinear")


@pytest.fixture(scope="session")
def labels() -> torch.Tensor:
    return torch.arange(8) % 4
