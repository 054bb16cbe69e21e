"""The programs that ours is measured beside, given the same weights, images, labels and random start.

They run on the model as open_clip gives it (``as_open_clip``): what ours saves inside the tower is part of the measure.
"""

import copy
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.util import find_spec

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from zsar.attacks.balls import random_point
from zsar.bench.timing import seconds
from zsar.clip import Clip, ZeroShotClassifier
from zsar.recipes import Recipe
from zsar.towers import trim

HERE = find_spec("torchattacks") is not None
NEEDED = 'torchattacks is not here, and is left out: pip install --no-deps "torchattacks>=3.5.1"'
SEED = 0  # of the peers' random starts
HALF = {"bf16": torch.bfloat16, "fp16": torch.float16}


@dataclass(frozen=True)
class Task:
    """An attack for every side: PGD in L_inf on images [B, 3, H, W] of labels [B]; eps and alpha in units of [0, 1]."""

    classifier: ZeroShotClassifier
    images: Tensor
    labels: Tensor
    eps: float
    alpha: float
    steps: int

    def start(self) -> Tensor:
        """The random start of every peer, drawn as torchattacks draws it."""
        with _seeded(self.images.device):
            change = torch.empty_like(self.images).uniform_(-self.eps, self.eps)
        return (self.images + change).clamp(0, 1)


@contextmanager
def _seeded(device: torch.device) -> Iterator[None]:
    """What torch draws after ``SEED``; its generators stay as they were."""
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        torch.manual_seed(SEED)
        yield


def as_open_clip(clip: Clip) -> Clip:
    """A copy as open_clip loads it: nothing of its tower trimmed (``zsar.towers``), and its weights want gradients.

    All but the logit scale, which the peers take as the number that it is.
    """
    found = copy.deepcopy(clip).requires_grad_(True)
    found.model.logit_scale.requires_grad_(False)
    trim(found.model.visual, False)
    return found


class PlainClassifier(nn.Module):
    """Logits as a user writes them: cosines of an ``as_open_clip`` tower with text encoded once, pixels unchecked."""

    def __init__(self, classifier: ZeroShotClassifier, clip: Clip):
        super().__init__()
        self.clip, self.text, self.scale = clip, classifier.text_features, classifier.logit_scale

    def forward(self, images: Tensor) -> Tensor:
        return self.scale * self.clip.features(images) @ self.text.T


def torchattacks_pgd(task: Task, clip: Clip) -> Callable[[], Tensor]:
    """PGD of torchattacks on an ``as_open_clip`` clip; it takes the gradient to the pixels only."""
    from torchattacks import PGD
    attack = PGD(PlainClassifier(task.classifier, clip), eps=task.eps, alpha=task.alpha, steps=task.steps)

    def run() -> Tensor:
        with _seeded(task.images.device):
            return attack(task.images, task.labels)

    return run


def ascend(images: Tensor, start: Tensor, eps: float, alpha: float, steps: int,
           backward: Callable[[Tensor], object]) -> Tensor:
    """PGD as tutorials write it: ``backward(points)`` leaves the gradient in ``points.grad``."""
    points = start
    for _ in range(steps):
        points = points.detach().requires_grad_()
        backward(points)
        moved = points.detach() + alpha * points.grad.sign()
        points = (images + (moved - images).clamp(-eps, eps)).clamp(0, 1)
    return points


def plain_loop(task: Task, clip: Clip) -> Callable[[], Tensor]:
    """A loop around ``loss.backward()`` with the text encoded once; it fills the gradients of the whole image tower."""
    logits = PlainClassifier(task.classifier, clip)

    def backward(points: Tensor) -> None:
        F.cross_entropy(logits(points), task.labels).backward()

    return lambda: ascend(task.images, task.start(), task.eps, task.alpha, task.steps, backward)


class Released:
    """Forward and backward as the authors' script does it: through both towers, all prompts encoded at every pass.

    The gradients of all weights are computed as well, of which an attack throws all away. ``clip``: ``as_open_clip``;
    ``precision`` that of the autocast: ``fp32`` (none), ``bf16``, or the script's ``fp16``.

    Prompts are taken ``chunk`` at a time, where the graph of all of them does not fit into memory: each is encoded with
    its graph, and the gradient at its features is sent back through it. The logits of all classes then need one more
    encoding without a graph beforehand, which a machine with more memory would not do: ``spared`` adds up its seconds.
    """

    def __init__(self, classifier: ZeroShotClassifier, clip: Clip, chunk: int, precision: str):
        prompts = [classifier.templates[0].replace("{}", name) for name in classifier.classnames]
        self.clip, self.scale, self.chunk = clip, classifier.logit_scale, chunk
        self.tokens = clip.tokenizer(prompts).to(clip.device)
        self.precision, self.spared = precision, 0.0

    def autocast(self) -> torch.autocast:
        return torch.autocast(self.clip.device.type, HALF.get(self.precision), enabled=self.precision in HALF)

    def backward(self, points: Tensor, labels: Tensor,
                 scaled: Callable[[Tensor], Tensor] = lambda loss: loss) -> None:
        """Add the gradients of the mean loss, as ``scaled`` makes it, up in ``points`` and in every weight."""
        parts, encoded = self.tokens.split(self.chunk), []
        if len(parts) > 1:
            with torch.no_grad(), self.autocast():
                self.spared += seconds(lambda: encoded.extend(map(self._encode, parts)), self.clip.device)
        with self.autocast():
            encoded = encoded or [self._encode(self.tokens)]
            text = torch.cat(encoded).detach().requires_grad_()
            scaled(F.cross_entropy(self.scale * self.clip.features(points) @ text.T, labels)).backward()
            for part, gradient in zip(parts, text.grad.split(self.chunk), strict=True):
                (encoded[0] if len(parts) == 1 else self._encode(part)).backward(gradient)

    def _encode(self, tokens: Tensor) -> Tensor:
        return F.normalize(self.clip.model.encode_text(tokens).float(), dim=-1)


class ReleasedAttack:
    """The released code's attack; called, it returns the attacked images."""

    def __init__(self, task: Task, clip: Clip, chunk: int, precision: str = "fp32"):
        self.task, self.form = task, Released(task.classifier, clip, chunk, precision)

    @property
    def spared(self) -> float:
        return self.form.spared

    def __call__(self) -> Tensor:
        task, self.form.spared = self.task, 0.0
        return ascend(task.images, task.start(), task.eps, task.alpha, task.steps,
                      lambda points: self.form.backward(points, task.labels))


class ReleasedTraining:
    """A training step of the released code, from the start of our trainer's first step.

    But for one thing: gradients are cleared after the attack, so that it comes to the same weights as ours.
    """

    def __init__(self, task: Task, recipe: Recipe, chunk: int, precision: str = "fp32"):
        self.task, self.recipe = task, recipe
        self.form = Released(task.classifier, as_open_clip(task.classifier.clip), chunk, precision)
        self.tower = list(self.form.clip.model.visual.parameters())
        self.optimizer = torch.optim.SGD(self.tower, lr=recipe.lr, momentum=recipe.momentum)
        # torch begins with a scale of 65536, overflows, and skips the steps in which it finds a smaller one
        self.scaler = torch.amp.GradScaler(task.images.device.type, init_scale=1024, enabled=precision == "fp16")
        seeds = torch.arange(len(task.images), device=task.images.device)
        self.start = random_point(task.images, seeds, 0, recipe.eps_255 / 255, "linf")

    @property
    def spared(self) -> float:
        return self.form.spared

    def __call__(self) -> None:
        task, recipe, self.form.spared = self.task, self.recipe, 0.0
        attacked = ascend(task.images, self.start, recipe.eps_255 / 255, recipe.alpha_255 / 255, recipe.attack_steps,
                          lambda points: self.form.backward(points, task.labels))
        self.optimizer.zero_grad()
        self.form.backward(attacked, task.labels, self.scaler.scale)
        self.scaler.step(self.optimizer)
        self.scaler.update()
