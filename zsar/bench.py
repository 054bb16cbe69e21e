"""How fast a training step is, beside the same step done as the released code of the paper does it.

    python -m zsar bench --classes 100

Both take the step of TeCoA by finetuning with PGD-2, from the same weights, pictures and random starts, and must come
to the same weights; the peer encodes the prompts of all classes with gradients at every forward pass, as the authors'
script does, and lets the attack's backward pass compute the gradients of all weights, which it throws away.
"""

import argparse
import copy
import time
from collections.abc import Callable

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from zsar.attacks import pgd
from zsar.clip import TEMPLATES, Clip, load_clip
from zsar.datasets import ImageDataset
from zsar.errors import ZsarError
from zsar.outputs import writable_file, write_json
from zsar.recipes import Recipe, get_recipe
from zsar.results import provenance
from zsar.trainer import Trainer

SIZE = 224


def noise(classes: int, images: int) -> ImageDataset:
    """Random pictures with as many classes as asked for: what a step costs does not depend on what they show."""
    n = max(classes, images) + 1

    def read(rows: np.ndarray) -> np.ndarray:
        return np.stack([np.random.RandomState(row).randint(0, 256, (3, SIZE, SIZE), np.uint8) for row in rows])

    return ImageDataset("noise", "train", [f"thing number {k}" for k in range(classes)], TEMPLATES,
                        torch.arange(n) % classes, [str(i) for i in range(n)], read)


def peer_backward(clip: Clip, tokens: Tensor, images: Tensor, labels: Tensor, chunk: int) -> float:
    """Forward and backward through both towers, the gradients of the mean loss added up in every weight.

    Prompts are taken ``chunk`` at a time, where the graph of all of them does not fit into memory: each is encoded with
    its graph, and the gradient at its features is sent back through it. The logits of all classes then need one more
    encoding without a graph beforehand, which a machine with more memory would not do: its seconds are returned.
    """
    parts, extra, encoded = tokens.split(chunk), 0.0, []
    if len(parts) == 1:
        encoded = [_encode(clip, tokens)]
    else:
        with torch.no_grad():
            extra = _seconds(lambda: encoded.extend(_encode(clip, part) for part in parts), clip.device)
    text = torch.cat(encoded).detach().requires_grad_()
    F.cross_entropy(clip.logit_scale * clip.features(images) @ text.T, labels).backward()
    for part, gradient in zip(parts, text.grad.split(chunk), strict=True):
        (encoded[0] if len(parts) == 1 else _encode(clip, part)).backward(gradient)
    return extra


def _encode(clip: Clip, tokens: Tensor) -> Tensor:
    return F.normalize(clip.model.encode_text(tokens).float(), dim=-1)


def peer_step(clip: Clip, tokens: Tensor, images: Tensor, labels: Tensor, start: Tensor, recipe: Recipe,
              optimizer: torch.optim.Optimizer, chunk: int) -> float:
    """The step of the released code, but with gradients cleared after the attack, so that it comes to the same weights.

    Returns the seconds that ``peer_backward`` says a machine with more memory would have spared.
    """
    eps, alpha = recipe.eps_255 / 255, recipe.alpha_255 / 255
    adversarial, extra = start, 0.0
    for _ in range(recipe.attack_steps):
        adversarial = adversarial.detach().requires_grad_()
        extra += peer_backward(clip, tokens, adversarial, labels, chunk)
        moved = adversarial.detach() + alpha * adversarial.grad.sign()
        adversarial = (images + (moved - images).clamp(-eps, eps)).clamp(0, 1)
    optimizer.zero_grad()
    extra += peer_backward(clip, tokens, adversarial, labels, chunk)
    optimizer.step()
    return extra


def matrix_rate(device: torch.device, dtype: torch.dtype, size: int) -> float:
    """FLOP/s of one large matrix product on this device: the peak that a model can hope for."""
    a = torch.randn(size, size, device=device, dtype=dtype)
    return 2 * size**3 / min(_seconds(lambda: a @ a, device) for _ in range(5))


def _seconds(work: Callable, device: torch.device) -> float:
    if device.type == "cuda":
        torch.cuda.synchronize()
    begin = time.perf_counter()
    work()
    if device.type == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter() - begin


def compare_steps(clip: Clip, classes: int, batch: int, *, precision: str = "fp32", repeats: int = 3,
                  peer_repeats: int = 1, chunk: int = 100) -> dict:
    """Seconds of both steps (the fastest of the repeats), their ratio, FLOPs, and how far their weights are apart."""
    recipe = get_recipe("paper", batch=batch, steps=1000, held_out=1, precision=precision, warmup=0, lr=1e-3)
    source, device = noise(classes, batch), clip.device
    trainer = Trainer(clip, source.select(np.arange(len(source) - 1)), "tecoa", "finetune", recipe, held_out=source)
    images, labels = (part.to(device) for part in next(trainer.batches(0, 1)))
    theirs = _Peer(trainer, images, labels, chunk)
    with FlopCounterMode(display=False) as counter:
        trainer.step(images, labels)
    peer_seconds = [theirs()]
    pairs = list(zip(trainer.student.model.visual.parameters(), theirs.tower, strict=True))
    apart = max((ours - peer).abs().max().item() for ours, peer in pairs)
    moved = max((ours - peer).abs().max().item() for ours, peer in zip(
        clip.model.visual.parameters(), theirs.tower, strict=True))
    seconds = min(_seconds(lambda: trainer.step(images, labels), device) for _ in range(repeats))
    peer_seconds += [theirs() for _ in range(peer_repeats - 1)]
    dtype, size = (torch.bfloat16 if precision == "bf16" else torch.float32), 8192 if device.type == "cuda" else 2048
    flops, rate = counter.get_total_flops(), matrix_rate(device, dtype, size)
    return {"classes": classes, "batch": batch, "precision": precision, "seconds": seconds, "repeats": repeats,
            "peer_seconds": min(peer_seconds), "peer_repeats": peer_repeats, "peer_chunk": chunk,
            "ratio": min(peer_seconds) / seconds, "images_per_second": batch / seconds, "tflop": flops / 1e12,
            "matrix_tflop_per_second": rate / 1e12, "share_of_peak": flops / seconds / rate,
            "largest_difference_of_weights": apart, "largest_update": moved}


class _Peer:
    """The peer's copy of the model; called, it takes its step and returns the seconds."""

    def __init__(self, trainer: Trainer, images: Tensor, labels: Tensor, chunk: int):
        clip, self.recipe, self.chunk = trainer.original, trainer.recipe, chunk
        self.clip, self.batch = copy.deepcopy(clip).requires_grad_(True), (images, labels)
        self.clip.model.logit_scale.requires_grad_(False)
        self.tower = list(self.clip.model.visual.parameters())
        self.optimizer = torch.optim.SGD(self.tower, lr=self.recipe.lr, momentum=self.recipe.momentum)
        self.tokens = clip.tokenizer([TEMPLATES[0].replace("{}", name) for name in trainer.classifier.classnames])
        self.tokens = self.tokens.to(clip.device)
        # One attack step of no length gives the random start from which the trainer's attack begins.
        self.start = pgd(lambda x, rows: x.sum((1, 2, 3)), images, eps=self.recipe.eps_255 / 255, alpha=1e-12, steps=1,
                         seeds=torch.arange(len(images), device=clip.device))

    def __call__(self) -> float:
        extra, half = [], torch.autocast(self.clip.device.type, torch.bfloat16, enabled=self.recipe.precision == "bf16")

        def step() -> None:
            with half:
                extra.append(peer_step(self.clip, self.tokens, *self.batch, self.start, self.recipe, self.optimizer,
                                       self.chunk))

        return _seconds(step, self.clip.device) - extra[0]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of ``python -m zsar bench``."""
    parser.add_argument("--model", default="ViT-B-32-quickgelu", help="a model of open_clip, with random weights")
    parser.add_argument("--classes", type=int, default=100)
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--precision", default="fp32", metavar="fp32|bf16")
    parser.add_argument("--repeats", type=int, default=3, help="of our step")
    parser.add_argument("--peer-repeats", type=int, default=1, help="of the peer's step")
    parser.add_argument("--chunk", type=int, default=100, help="prompts that the peer encodes at once (memory)")
    parser.add_argument("--device", help="cpu, cuda, ... (default: an accelerator where there is one)")
    parser.add_argument("--json", metavar="OUT", help="write the figures to this file")


def run(args: argparse.Namespace) -> str:
    """Compare the two steps as the command line says; returns the figures in words."""
    for name in ("classes", "batch", "repeats", "peer_repeats", "chunk"):
        least = 2 if name == "classes" else 1
        if getattr(args, name) < least:
            raise ZsarError(f"--{name.replace('_', '-')} {getattr(args, name)}: expected at least {least}")
    get_recipe("paper", precision=args.precision)  # refuses what is unknown before the model is built
    out = writable_file(args.json) if args.json else None
    clip = load_clip(args.model, pretrained="random", device=args.device)
    found = compare_steps(clip, args.classes, args.batch, precision=args.precision, repeats=args.repeats,
                          peer_repeats=args.peer_repeats, chunk=args.chunk)
    found |= {"threads": torch.get_num_threads(), "provenance": provenance(clip)}
    if out:
        write_json(out, found)
    return "\n".join([
        f"TeCoA step of {args.model} (random weights), batch {args.batch}, {args.classes} classes, PGD-2, "
        f"{args.precision}, {found['provenance']['device']}, {found['threads']} threads",
        f"ours    {found['seconds']:.2f} s, {found['images_per_second']:.1f} images/s, {found['tflop']:.2f} TFLOP, "
        f"{100 * found['share_of_peak']:.0f} % of the rate of one large matrix product",
        f"peer    {found['peer_seconds']:.2f} s: every prompt encoded with gradients at every pass, "
        f"{args.chunk} at a time ({args.peer_repeats} repeat{'s' * (args.peer_repeats > 1)}, the first of them cold)",
        f"ratio   {found['ratio']:.1f}; after one step the weights differ by at most "
        f"{found['largest_difference_of_weights']:.1e}, of an update of up to {found['largest_update']:.1e}"])
