"""Pretraining of the drawn CLIP: contrastive learning on the drawn web, two processes on a laptop, one on a GPU.

    python -m zsar pretrain-drawn --out data/drawn

Every pair is rendered when it is needed and seen once. The run is resumed from its checkpoint if there is one.
"""

import argparse
import json
import os
import tempfile
import time
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import open_clip
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
import torch.nn.functional as F
from open_clip.constants import OPENAI_DATASET_MEAN, OPENAI_DATASET_STD
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel
from tqdm import tqdm

from zsar.datasets.drawn.captions import web_pairs
from zsar.paths import data_path
from zsar.tokenizer import WordTokenizer


@dataclass(frozen=True)
class Recipe:
    """images: pairs seen in all; batch: pairs a step over all processes (negatives come from a process's own share)."""

    images: int = 1_000_000
    batch: int = 256
    processes: int = 2
    lr: float = 1.5e-3
    weight_decay: float = .05
    warmup_steps: int = 200
    clip_grad: float = 1.0
    seed: int = 0

    @property
    def steps(self) -> int:
        return self.images // self.batch

    def lr_at(self, step: int) -> float:
        """Linear warm-up, then a cosine to zero."""
        if step < self.warmup_steps:
            return self.lr * (step + 1) / self.warmup_steps
        done = (step - self.warmup_steps) / max(1, self.steps - self.warmup_steps)
        return self.lr * .5 * (1 + float(np.cos(np.pi * done)))


def contrastive_loss(image_features: Tensor, text_features: Tensor, scale: Tensor, tokens: Tensor) -> Tensor:
    """CLIP's symmetric cross-entropy over a batch (Radford et al. 2021, figure 3).

    image_features, text_features: unit [B, D]; tokens [B, L]. Rows with the same caption are positives of each other,
    because with a small vocabulary the same caption occurs many times in a batch.
    """
    logits = scale * image_features @ text_features.T
    same = (tokens[:, None] == tokens[None]).all(-1).float()
    target = same / same.sum(1, keepdim=True)
    return (F.cross_entropy(logits, target) + F.cross_entropy(logits.T, target)) / 2


def new_model(seed: int) -> nn.Module:
    """The drawn CLIP with fresh weights."""
    open_clip.add_model_config(data_path("drawn", "drawn-clip.json"))
    torch.manual_seed(seed)
    return open_clip.create_model("drawn-clip", load_weights=False)


def batches(recipe: Recipe, tokenizer: WordTokenizer, rank: int, first_step: int):
    """This process's share of every step from ``first_step`` on: images uint8 [b, 3, S, S] and tokens [b, L]."""
    share, at_once = recipe.batch // recipe.processes, 4  # several steps' pictures are rendered faster together
    for step in range(first_step, recipe.steps, at_once):
        ahead = range(step, min(step + at_once, recipe.steps))
        rows = [np.arange(share) + (s * recipe.processes + rank) * share for s in ahead]
        images, captions = web_pairs(np.concatenate(rows), recipe.seed)
        yield from zip(torch.from_numpy(images).split(share), tokenizer(captions).split(share), strict=True)


def optimizer_for(model: nn.Module, recipe: Recipe) -> torch.optim.Optimizer:
    """AdamW; gains, biases and the logit scale are not decayed."""
    matrices = [p for p in model.parameters() if p.ndim >= 2]
    others = [p for p in model.parameters() if p.ndim < 2]
    groups = [{"params": matrices, "weight_decay": recipe.weight_decay}, {"params": others, "weight_decay": 0.0}]
    return torch.optim.AdamW(groups, lr=recipe.lr, betas=(.9, .98))


def save_atomically(save, path: Path) -> None:
    """``save(temporary path)``, then rename: a reader finds the old file or the new one, never half of one."""
    temporary = path.with_name(path.name + ".part")
    save(temporary)
    os.replace(temporary, path)


def train(rank: int, recipe: Recipe, out: Path, rendezvous: str) -> None:
    """One process of the training; rank 0 keeps the checkpoint ``out/pretraining.pt``."""
    torch.set_num_threads(1 if recipe.processes > 1 else torch.get_num_threads())
    dist.init_process_group("gloo", init_method=f"file://{rendezvous}", rank=rank, world_size=recipe.processes)
    device = torch.device("cuda" if torch.cuda.is_available() and recipe.processes == 1 else "cpu")
    model = new_model(recipe.seed).to(device)
    optimizer = optimizer_for(model, recipe)
    state = _resume(out, recipe, model, optimizer)
    parallel = DistributedDataParallel(model)
    mean, std = (torch.tensor(v, device=device).view(3, 1, 1) for v in (OPENAI_DATASET_MEAN, OPENAI_DATASET_STD))
    tokenizer = WordTokenizer.from_file(data_path("drawn", "vocabulary.txt"))
    shares = batches(recipe, tokenizer, rank, state["step"])
    progress = tqdm(shares, initial=state["step"], total=recipe.steps, unit="step", disable=rank > 0, mininterval=10)
    started = time.monotonic() - state["seconds"]
    for images, tokens in progress:
        for group in optimizer.param_groups:
            group["lr"] = recipe.lr_at(state["step"])
        tokens = tokens.to(device)
        loss = contrastive_loss(*parallel((images.to(device).float() / 255 - mean) / std, tokens), tokens)
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), recipe.clip_grad)
        optimizer.step()
        with torch.no_grad():
            model.logit_scale.clamp_(0, np.log(100))
        state["step"] += 1
        if state["step"] % 50 == 0:
            state["loss"].append([state["step"], round(loss.item(), 4)])
            progress.set_postfix(loss=f"{loss.item():.3f}")
        if rank == 0 and (state["step"] % 200 == 0 or state["step"] == recipe.steps):
            state["seconds"] = time.monotonic() - started
            whole = {"model": model.state_dict(), "optimizer": optimizer.state_dict(), "recipe": asdict(recipe), **state}
            save_atomically(lambda path, whole=whole: torch.save(whole, path), out / "pretraining.pt")
    dist.destroy_process_group()


def _resume(out: Path, recipe: Recipe, model: nn.Module, optimizer: torch.optim.Optimizer) -> dict:
    """Load the checkpoint if there is one of this recipe; return step, seconds and the loss curve so far."""
    path = out / "pretraining.pt"
    if not path.exists():
        return {"step": 0, "seconds": 0.0, "loss": []}
    saved = torch.load(path, map_location="cpu", weights_only=True)
    if saved["recipe"] != asdict(recipe):
        raise ValueError(f"{path} belongs to another recipe, {saved['recipe']}: remove it, or choose another --out")
    model.load_state_dict(saved["model"])
    optimizer.load_state_dict(saved["optimizer"])
    return {key: saved[key] for key in ("step", "seconds", "loss")}


def pretrain(recipe: Recipe, out: Path) -> None:
    """Train, and leave ``drawn-clip.safetensors`` and ``pretraining.json`` in ``out``."""
    out.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as folder:
        mp.spawn(train, (recipe, out, f"{folder}/rendezvous"), nprocs=recipe.processes)
    saved = torch.load(out / "pretraining.pt", map_location="cpu", weights_only=True)
    weights = {name: value.contiguous() for name, value in saved["model"].items()}
    save_atomically(lambda path: save_file(weights, path), out / "drawn-clip.safetensors")
    (out / "pretraining.json").write_text(json.dumps({"recipe": asdict(recipe), "seconds": round(saved["seconds"]), "loss": saved["loss"]}))
