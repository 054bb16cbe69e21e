"""Pretraining: the loss, the schedule, and a run that is stopped and goes on."""

import dataclasses
import math

import pytest
import torch

from zsar import pretrain
from zsar.errors import CheckpointError
from zsar.pretrain import Recipe, contrastive_loss

TINY = Recipe(images=96, batch=16, processes=1, warmup_steps=2)


def test_the_loss_is_clips_where_all_captions_differ():
    images, texts = (torch.nn.functional.normalize(torch.randn(6, 8), dim=1) for _ in range(2))
    logits = 7 * images @ texts.T
    expected = sum(-torch.log_softmax(z, 1).diagonal().mean() for z in (logits, logits.T)) / 2
    assert torch.allclose(contrastive_loss(images, texts, torch.tensor(7.), torch.arange(6)[:, None]), expected)


def test_equal_captions_are_positives_of_each_other():
    features = torch.nn.functional.normalize(torch.tensor([[1., 0.], [1., 0.], [0., 1.]]), dim=1)
    scale = torch.tensor(50.)
    same = contrastive_loss(features, features, scale, torch.tensor([[1], [1], [2]]))
    different = contrastive_loss(features, features, scale, torch.tensor([[1], [3], [2]]))
    # Two equal rows share their probability; as negatives of each other they can do no better than log 2 either,
    # but moving one text away must only help when the captions differ.
    apart = torch.nn.functional.normalize(torch.tensor([[1., 0.], [.8, .6], [0., 1.]]), dim=1)
    assert same == pytest.approx(2 / 3 * math.log(2), abs=1e-4) and different == pytest.approx(same.item(), abs=1e-4)
    assert contrastive_loss(apart, apart, scale, torch.tensor([[1], [3], [2]])) < different
    assert contrastive_loss(apart, apart, scale, torch.tensor([[1], [1], [2]])) > same


def test_the_rate_warms_up_and_falls_to_zero():
    rates = [TINY.lr_at(step) for step in range(TINY.steps + 1)]
    assert rates[0] == TINY.lr / 2 and max(rates) == TINY.lr and rates[-1] == pytest.approx(0, abs=1e-12)


def run(recipe, out):
    out.mkdir(exist_ok=True)
    pretrain.train(0, recipe, out, str(out / "rendezvous"))
    return torch.load(out / pretrain.CHECKPOINT, weights_only=True)


def test_a_stopped_run_goes_on_bit_for_bit(tmp_path, monkeypatch):
    monkeypatch.setattr(pretrain, "CHECKPOINT_EVERY", 4)
    whole = run(TINY, tmp_path / "whole")

    real_step, done = pretrain._step, []

    def power_cut(*args):
        if len(done) == 5:
            raise RuntimeError("power cut")
        done.append(1)
        return real_step(*args)

    monkeypatch.setattr(pretrain, "_step", power_cut)
    with pytest.raises(RuntimeError):
        run(TINY, tmp_path / "stopped")
    torch.distributed.destroy_process_group()
    (tmp_path / "stopped" / "rendezvous").unlink(missing_ok=True)
    monkeypatch.setattr(pretrain, "_step", real_step)
    resumed = run(TINY, tmp_path / "stopped")
    assert resumed["step"] == whole["step"] == TINY.steps
    assert all(torch.equal(resumed["model"][name], value) for name, value in whole["model"].items())

    with pytest.raises(CheckpointError, match="other settings"):
        run(dataclasses.replace(TINY, seed=1), tmp_path / "stopped")
    torch.distributed.destroy_process_group()
