"""What an attack maximises: losses of logits, and the objectives that they make of a classifier."""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from zsar.errors import AttackSettingsError

#: ``objective(images [B, 3, H, W], index int64 [B]) -> loss [B]``, larger where the attack does better. ``index``
#: holds the images' rows in the batch that was given to the attack, by which a closure finds what belongs to them.
Objective = Callable[[Tensor, Tensor], Tensor]
#: ``loss(logits [B, K], index int64 [B]) -> loss [B]``, of a classifier's logits instead of images.
LogitLoss = Callable[[Tensor, Tensor], Tensor]
#: The distance by which the paper's CW attack wants the label beaten, in logits.
CONFIDENCE = 50.0


def logits_of(classifier: Callable[[Tensor], Tensor]) -> Callable[[Tensor], Tensor]:
    """What makes logits [B, K] of images: the method of that name, else the classifier itself, called."""
    return getattr(classifier, "logits", classifier)


def check_labels(classifier: Callable[[Tensor], Tensor], labels: Tensor) -> None:
    """Raise AttackSettingsError for a label that is none of a ``ZeroShotClassifier``'s classes."""
    classes = len(getattr(classifier, "classnames", ())) or 2**62
    if len(labels) and not (0 <= labels.min() and labels.max() < classes):
        raise AttackSettingsError(f"labels: found {int(labels.min())} to {int(labels.max())}, expected 0 to "
                                  f"{classes - 1}")


def objective_of(classifier: Callable[[Tensor], Tensor], loss: LogitLoss) -> Objective:
    """A loss of logits as an objective of images; its ``classifier`` says what it climbs."""
    logits = logits_of(classifier)

    def objective(images: Tensor, index: Tensor) -> Tensor:
        return loss(logits(images), index)

    objective.classifier = classifier
    return objective


def cross_entropy(classifier: Callable[[Tensor], Tensor], labels: Tensor, targeted: bool = False) -> Objective:
    """The cross-entropy of ``labels`` int64 [N]: true labels to move away from, or targets to move to.

    Raises AttackSettingsError for a label that is none of a ``ZeroShotClassifier``'s classes.
    """
    check_labels(classifier, labels)
    return objective_of(classifier, cross_entropy_loss(labels, targeted))


def margin(classifier: Callable[[Tensor], Tensor], labels: Tensor, confidence: float = CONFIDENCE) -> Objective:
    """``margin_loss`` as an objective of images. Raises AttackSettingsError as ``cross_entropy`` does."""
    check_labels(classifier, labels)
    return objective_of(classifier, margin_loss(labels, confidence))


def cross_entropy_loss(labels: Tensor, targeted: bool = False) -> LogitLoss:
    """The cross-entropy of true labels int64 [N] to move away from, or of targets to move to."""
    sign = -1 if targeted else 1
    return lambda logits, index: sign * F.cross_entropy(logits, _own(labels, logits, index), reduction="none")


def margin_loss(labels: Tensor, confidence: float = CONFIDENCE) -> LogitLoss:
    """-max(0, z_y - max_{k != y} z_k + confidence): no gradient once another class leads by ``confidence``.

    The CW attack of Carlini and Wagner (2017) as Mao et al. (2023) run it, in PGD's signed steps.
    """
    return lambda logits, index: -F.relu(confidence - lead(logits, _own(labels, logits, index)))


def dlr_loss(labels: Tensor) -> LogitLoss:
    """-(z_y - max_{k != y} z_k) / (z_1st - z_3rd): the difference of logits ratio (Croce and Hein 2020, equation 6).

    Neither a shift nor a scale of the logits changes it, so that no saturated softmax hides its gradient. Between two
    classes, which have no third, the difference of the logits is left alone.
    """

    def loss(logits: Tensor, index: Tensor) -> Tensor:
        ahead = lead(logits, _own(labels, logits, index))
        if logits.shape[1] < 3:
            return ahead
        top = logits.topk(3).values
        return ahead / (top[:, 0] - top[:, 2] + 1e-12)

    return loss


def targeted_dlr_loss(labels: Tensor, targets: Tensor) -> LogitLoss:
    """-(z_y - z_t) / (z_1st - (z_3rd + z_4th) / 2) (Croce and Hein 2020, equation 7), for targets t int64 [N].

    Of three classes the third stands for the fourth too, and of two the difference of the logits is left alone.
    """

    def loss(logits: Tensor, index: Tensor) -> Tensor:
        label, target = (_own(which, logits, index)[:, None] for which in (labels, targets))
        ahead = (logits.gather(1, target) - logits.gather(1, label)).squeeze(1)
        if logits.shape[1] < 3:
            return ahead
        top = logits.topk(min(4, logits.shape[1])).values
        return ahead / (top[:, 0] - top[:, 2:].mean(1) + 1e-12)

    return loss


def lead(logits: Tensor, labels: Tensor) -> Tensor:
    """max_{k != y} z_k - z_y [B]: by how much the best other class leads, above 0 where the label has lost."""
    own = logits.gather(1, labels[:, None])
    return logits.scatter(1, labels[:, None], -torch.inf).amax(1) - own.squeeze(1)


def _own(values: Tensor, logits: Tensor, index: Tensor) -> Tensor:
    """What belongs to these rows, where the logits are."""
    return values.to(index.device)[index].to(logits.device)
