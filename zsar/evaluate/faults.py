"""Mistakes of practice, made on purpose: what a trust report has to catch.

Each makes of a sound classifier, attack or list of labels one with a known fault. The classifiers are callables from
images [B, 3, H, W] in [0, 1] to logits [B, K], as attacks take them.
"""

import io
from collections.abc import Callable

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor, nn

from zsar.attacks import Attack, cross_entropy_loss, micro_batches
from zsar.attacks.balls import uniform
from zsar.attacks.engine import look
from zsar.attacks.objectives import logits_of
from zsar.clip import ZeroShotClassifier


class SaturatedSoftmax:
    """Logits times ``factor``: the scale of 10^4 for that of 100 that a softmax then sees saturates it.

    Predictions stay as they were, and the cross-entropy's gradient becomes zero. Who takes the logits for cosines and
    scales them twice does this.
    """

    def __init__(self, classifier: Callable[[Tensor], Tensor], factor: float = 100):
        self.logits_of, self.factor = logits_of(classifier), factor

    def __call__(self, images: Tensor) -> Tensor:
        return self.factor * self.logits_of(images)


class HalfGradient:
    """The gradient that is left of the mean over a batch of ``batch`` images in half precision (fp16).

    The mean divides every image's gradient by the size of the batch, and what then is below 3e-8 becomes zero. Answers
    are those of ``exact``, the sound classifier.
    """

    def __init__(self, classifier: Callable[[Tensor], Tensor], batch: int = 512):
        self.exact, self.logits_of, self.batch = classifier, logits_of(classifier), batch

    def __call__(self, images: Tensor) -> Tensor:
        return _Half.apply(self.logits_of(_Half.apply(images, self.batch)), self.batch)


class _Half(torch.autograd.Function):
    """The identity, whose gradient goes through half precision, divided by the batch while it does."""

    @staticmethod
    def forward(context: torch.autograd.function.FunctionCtx, values: Tensor, batch: int) -> Tensor:
        context.batch = batch
        return values.clone()

    @staticmethod
    def backward(context: torch.autograd.function.FunctionCtx, gradient: Tensor) -> tuple[Tensor, None]:
        return (gradient / context.batch).half().float() * context.batch, None


class Randomised:
    """Gaussian noise of standard deviation ``sigma`` on the images, from the global generator, as a defence.

    Attacked with one draw a step and judged by another, it seems robust to what the mean over draws would break.
    """

    def __init__(self, classifier: Callable[[Tensor], Tensor], sigma: float = 0.1):
        self.logits_of, self.sigma = logits_of(classifier), sigma

    def __call__(self, images: Tensor) -> Tensor:
        return self.logits_of((images + self.sigma * torch.randn_like(images)).clamp(0, 1))


class Rounded:
    """Images rounded to 8 bits inside the classifier: the gradient is zero everywhere.

    ``straight_through`` lets it pass as if nothing had been rounded, which is not what a small step does.
    """

    def __init__(self, classifier: Callable[[Tensor], Tensor], straight_through: bool = False):
        self.logits_of, self.straight_through = logits_of(classifier), straight_through

    def __call__(self, images: Tensor) -> Tensor:
        rounded = (255 * images).round() / 255
        return self.logits_of(images + (rounded - images).detach() if self.straight_through else rounded)


class Jpeg:
    """Images written as JPEG and read again inside the classifier, through PIL: there is no gradient at all."""

    def __init__(self, classifier: Callable[[Tensor], Tensor], quality: int = 75):
        self.logits_of, self.quality = logits_of(classifier), quality

    def __call__(self, images: Tensor) -> Tensor:
        pixels = (255 * images.detach()).round().byte().permute(0, 2, 3, 1).cpu().numpy()
        read = np.stack([self._again(picture) for picture in pixels])
        return self.logits_of(torch.from_numpy(read).to(images.device).permute(0, 3, 1, 2).float() / 255)

    def _again(self, picture: np.ndarray) -> np.ndarray:
        file = io.BytesIO()
        Image.fromarray(picture).save(file, "JPEG", quality=self.quality)
        return np.asarray(Image.open(file))


class DetachedDefence:
    """A counterattack at test time, x + d(x), that an attack takes for a constant: x + d(x).detach().

    d leads away from the image's own embedding, as in TTC (Xing et al., CVPR 2025): ``steps`` of ``eps`` signs from a
    fixed random point of the ball. Its authors' attack does not see it, and is no attack on it.
    """

    def __init__(self, classifier: ZeroShotClassifier, eps: float = 4 / 255, steps: int = 2):
        self.classifier, self.eps, self.steps = classifier, eps, steps

    def __call__(self, images: Tensor) -> Tensor:
        return self.classifier.logits((images + self.counterattack(images)).clamp(0, 1))

    def counterattack(self, images: Tensor) -> Tensor:
        """d(x) [B, 3, H, W], without a graph."""
        features, images = self.classifier.clip.features, images.detach()
        with torch.no_grad():
            own = features(images)
        change = self.eps * (2 * uniform(images, torch.zeros(len(images), dtype=torch.int64, device=images.device), 0)
                             - 1)
        for _ in range(self.steps):
            away, rows = (images + change).clamp(0, 1), torch.arange(len(images), device=images.device)
            gradient = look(lambda points, index: (features(points) - own).square().sum(1), away, rows)[1]
            change = (change + self.eps * gradient.sign()).clamp(-self.eps, self.eps)
        return change


class TrainModeDropout(nn.Module):
    """Dropout on the image's embedding, left in train mode: who fine-tunes, then forgets eval()."""

    def __init__(self, classifier: ZeroShotClassifier, p: float = 0.1):
        super().__init__()
        self.classifier, self.dropout = classifier, nn.Dropout(p)

    def forward(self, images: Tensor) -> Tensor:
        """Images [B, 3, H, W] in [0, 1] to logits [B, K]."""
        embeddings = self.dropout(self.classifier.clip.embed(images))
        return self.classifier.of_features(F.normalize(embeddings, dim=-1))


def attack_in_normalised_space(eps: float, steps: int = 20) -> Attack:
    """PGD whose ball and steps are taken behind CLIP's normalisation: of eps 4/255 about one grey level is left.

    The normalisation divides by a standard deviation of about 0.27, so that ``eps`` there is 0.27 eps in pixels.
    """

    def attack(classifier: ZeroShotClassifier, images: Tensor, labels: Tensor, seeds: Tensor,
               micro_batch: int | None = None) -> Tensor:
        mean, std = classifier.clip.mean, classifier.clip.std
        normalised, loss, found = (images - mean) / std, cross_entropy_loss(labels), []
        for rows, filled in micro_batches(len(images), images.device, micro_batch):
            points = normalised[filled]
            for _ in range(steps):
                gradient = look(lambda x, index: loss(classifier.logits(x * std + mean), index), points, filled)[1]
                points = points + eps / 4 * gradient.sign()
                points = normalised[filled] + (points - normalised[filled]).clamp(-eps, eps)
            found.append((points * std + mean).clamp(0, 1)[:len(rows)])
        return torch.cat(found)

    return attack


def attack_without_prompt(attack: Attack, bare: ZeroShotClassifier) -> Attack:
    """``attack`` on the model without its prompt, ``bare``, whichever it is asked to attack.

    Who attacks the frozen model and then evaluates the prompted one has made a transfer attack.
    """

    def on_bare(classifier: ZeroShotClassifier, images: Tensor, labels: Tensor, seeds: Tensor,
                micro_batch: int | None = None) -> Tensor:
        return attack(bare, images, labels, seeds=seeds, micro_batch=micro_batch)

    return on_bare


def wrong_labels(labels: Tensor, classes: int) -> Tensor:
    """Labels int64 [N] that count the classes from another start: names in one order, labels in another."""
    return (labels + 1) % classes
