"""Pretraining of the drawn CLIP: contrastive learning on the drawn web, two processes on a laptop, one on a GPU.

    python -m zsar pretrain-drawn --out FOLDER

Every pair is rendered when it is needed and seen once. A run that was stopped goes on from its checkpoint.
"""

import argparse
import platform
import tempfile
import time
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import open_clip
import safetensors.torch
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
import torch.nn.functional as F
from open_clip.constants import OPENAI_DATASET_MEAN, OPENAI_DATASET_STD
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel
from tqdm import tqdm

from zsar.attacks import attack_from_settings
from zsar.clip import Clip, load_clip
from zsar.datasets import load_dataset
from zsar.datasets.drawn import DRAWN_NAMES
from zsar.datasets.drawn.captions import web_pairs
from zsar.errors import ZsarError
from zsar.evaluate import evaluate_dataset, summary
from zsar.outputs import writable_file, write_atomically, write_json
from zsar.paths import data_path
from zsar.results import commit, provenance
from zsar.tokenizer import WordTokenizer
from zsar.training import read_checkpoint, warmup_cosine, write_checkpoint

CHECKPOINT_EVERY, LOG_EVERY = 200, 50  # steps
CHECKPOINT, WEIGHTS = "pretraining.pt", "drawn-clip.safetensors"
MEND = "remove it, or choose another --out"


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
        return self.lr * warmup_cosine(step, self.warmup_steps, self.steps)


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


def train(rank: int, recipe: Recipe, out: Path, rendezvous: str) -> None:
    """One process of the training; rank 0 keeps the checkpoint."""
    if recipe.processes > 1:
        torch.set_num_threads(1)  # two threads of two processes would wait for each other on two cores
    dist.init_process_group("gloo", init_method=f"file://{rendezvous}", rank=rank, world_size=recipe.processes)
    device = torch.device("cuda" if torch.cuda.is_available() and recipe.processes == 1 else "cpu")
    model = new_model(recipe.seed).to(device)
    optimizer = optimizer_for(model, recipe)
    state = _resume(out, recipe, model, optimizer)
    parallel = DistributedDataParallel(model)
    tokenizer = WordTokenizer.from_file(data_path("drawn", "vocabulary.txt"))
    shares = batches(recipe, tokenizer, rank, state["step"])
    progress = tqdm(shares, initial=state["step"], total=recipe.steps, unit="step", disable=rank > 0, mininterval=10)
    started = time.monotonic() - state["seconds"]
    for images, tokens in progress:
        loss = _step(parallel, optimizer, images.to(device), tokens.to(device), recipe, state["step"])
        state["step"] += 1
        if state["step"] % LOG_EVERY == 0:
            state["loss"].append([state["step"], round(loss.item(), 4)])
            progress.set_postfix(loss=f"{loss.item():.3f}")
        if rank == 0 and (state["step"] % CHECKPOINT_EVERY == 0 or state["step"] == recipe.steps):
            state["seconds"] = time.monotonic() - started
            write_checkpoint(out / CHECKPOINT, {"model": model.state_dict(), "optimizer": optimizer.state_dict(),
                                                "settings": asdict(recipe), **state})
    dist.destroy_process_group()


def _step(parallel: nn.Module, optimizer: torch.optim.Optimizer, images: Tensor, tokens: Tensor, recipe: Recipe,
          step: int) -> Tensor:
    """One update from images uint8 [b, 3, S, S] and tokens [b, L]; returns this process's loss before it."""
    for group in optimizer.param_groups:
        group["lr"] = recipe.lr_at(step)
    mean, std = (images.new_tensor(v, dtype=torch.float32).view(3, 1, 1)
                 for v in (OPENAI_DATASET_MEAN, OPENAI_DATASET_STD))
    loss = contrastive_loss(*parallel((images.float() / 255 - mean) / std, tokens), tokens)
    optimizer.zero_grad()
    loss.backward()
    nn.utils.clip_grad_norm_(parallel.parameters(), recipe.clip_grad)
    optimizer.step()
    with torch.no_grad():
        parallel.module.logit_scale.clamp_(0, np.log(100))  # Radford et al. 2021, section 2.5
    return loss.detach()


def _resume(out: Path, recipe: Recipe, model: nn.Module, optimizer: torch.optim.Optimizer) -> dict:
    """Load the checkpoint if there is one; return what the run has come to so far."""
    saved = read_checkpoint(out / CHECKPOINT, asdict(recipe), MEND)
    if saved is None:
        return {"step": 0, "seconds": 0.0, "loss": [], "commit": commit(), "device": _device_name(recipe)}
    model.load_state_dict(saved["model"])
    optimizer.load_state_dict(saved["optimizer"])
    return {key: saved[key] for key in ("step", "seconds", "loss", "commit", "device")}


def _device_name(recipe: Recipe) -> str:
    if recipe.processes == 1 and torch.cuda.is_available():
        return torch.cuda.get_device_name()
    return f"cpu, {platform.machine()}, {recipe.processes} processes"


def pretrain(recipe: Recipe, out: Path) -> dict:
    """Train, write ``out/drawn-clip.safetensors``, and return what the provenance says of the training."""
    with tempfile.TemporaryDirectory() as folder:
        mp.spawn(train, (recipe, out, f"{folder}/rendezvous"), nprocs=recipe.processes)
    saved = torch.load(out / CHECKPOINT, map_location="cpu", weights_only=True)
    weights = {name: value.contiguous() for name, value in saved["model"].items()}
    write_atomically(out / WEIGHTS, safetensors.torch.save(weights))
    return {"recipe": saved["settings"], "commit": saved["commit"], "device": saved["device"],
            "torch": torch.__version__, "images_seen": saved["step"] * recipe.batch, "seconds": round(saved["seconds"]),
            "parameters": sum(value.numel() for value in weights.values()), "loss": saved["loss"]}


def evaluation(clip: Clip, images: int) -> dict:
    """Clean and PGD-10 accuracy on the sixteen test splits at 0.5 to 8 grey levels, ``images`` pictures a task."""
    tests = [load_dataset(name).subset(images) for name in DRAWN_NAMES]
    result = {"split": "test", "images": images, "attack": "PGD-10, L_inf, alpha = eps / 4, last iterate", "by_eps": {}}
    for eps_255 in (.5, 1, 2, 4, 8):
        settings = {"attack": "pgd", "eps_255": eps_255, "alpha_255": eps_255 / 4, "steps": 10}
        attack = attack_from_settings(settings)
        rows = [evaluate_dataset(clip, test, attack) for test in tqdm(tests, desc=f"eps {eps_255:g}/255", leave=False)]
        result["by_eps"][f"{eps_255:g}"] = {**summary(rows, settings), "rows": rows}
    return result


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of ``python -m zsar pretrain-drawn``."""
    parser.add_argument("--out", type=Path, required=True, help="folder for checkpoint, weights and provenance")
    parser.add_argument("--images", type=int, default=Recipe.images, help="picture-caption pairs to see")
    parser.add_argument("--batch", type=int, default=Recipe.batch, help="pairs a step, over all processes")
    parser.add_argument("--processes", type=int, default=Recipe.processes, help="one thread each; 1 uses a GPU if any")
    parser.add_argument("--seed", type=int, default=Recipe.seed)
    parser.add_argument("--test-images", type=int, default=500, help="test pictures a task in the final evaluation")


def run(args: argparse.Namespace) -> str:
    """Pretrain (or go on from the checkpoint in ``--out``), evaluate, and write weights and provenance."""
    for name in ("images", "batch", "processes", "test_images"):
        if getattr(args, name) < 1:
            raise ZsarError(f"--{name.replace('_', '-')} {getattr(args, name)}: expected at least 1")
    if args.images < args.batch:
        raise ZsarError(f"--images {args.images} is less than one --batch of {args.batch}: nothing would be learned")
    if not 0 <= args.seed < 2**32:
        raise ZsarError(f"--seed {args.seed}: expected a whole number from 0 to {2**32 - 1}")
    if args.batch % args.processes:
        raise ZsarError(f"--batch {args.batch} does not divide by --processes {args.processes}: choose a multiple")
    provenance_file = writable_file(args.out / "provenance.json")
    recipe = Recipe(images=args.images, batch=args.batch, processes=args.processes, seed=args.seed)
    # A wrong checkpoint is refused here, in one line, and not in a child process.
    read_checkpoint(args.out / CHECKPOINT, asdict(recipe), MEND)
    record = {"command": f"python -m zsar pretrain-drawn --images {recipe.images} --batch {recipe.batch} "
                         f"--processes {recipe.processes} --seed {recipe.seed} --test-images {args.test_images}",
              "training": pretrain(recipe, args.out)}
    clip = load_clip("drawn", pretrained=args.out / WEIGHTS)
    record |= {"digest": clip.digest, "provenance": provenance(clip), "evaluation": evaluation(clip, args.test_images)}
    write_json(provenance_file, record)
    found = record["evaluation"]["by_eps"]
    means = ", ".join(f"{eps}/255 {means['mean_robust']:.1f} %" for eps, means in found.items())
    clean = found["4"]["mean_clean"]
    return f"{args.out / WEIGHTS}: mean of sixteen clean {clean:.1f} %, robust at {means}"
