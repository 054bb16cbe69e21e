"""What every attack does over and over: a forward pass, and one back to the pixels, in micro-batches of one shape."""

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor

import torch
from torch import Tensor

from zsar import kernels
from zsar.attacks.balls import length, project
from zsar.attacks.objectives import Objective, logits_of
from zsar.clip import ZeroShotClassifier
from zsar.errors import AttackSettingsError

#: Images in one forward pass. On a CPU 20 cost as little an image as 40 do, and a sixth less than 10 (48 px, one
#: thread); the fewer they are, the less is filled up where an attack has let go of most images.
MICRO_BATCH = {"cpu": 20, "cuda": 256}
#: Micro-batches at a time on a CPU, at most: between its operations each needs Python, which does one thing at a time.
AT_A_TIME = 4
NOT_FINITE = ("the attack's gradient is NaN or infinite: the objective is not finite at these images (half precision, "
              "a logarithm of 0, or broken weights)")
LOGITS_NOT_FINITE = ("logits are NaN or infinite, and such an image would count as fooled: half precision, broken "
                     "weights, or pixels that the model cannot take")


def micro_batches(n: int, device: torch.device, size: int | None = None) -> Iterator[tuple[Tensor, Tensor]]:
    """Rows 0 to n - 1 a micro-batch at a time: the rows, and the same filled up to ``size`` by repeating them."""
    size = size or MICRO_BATCH.get(device.type, 64)
    for rows in torch.arange(n, device=device).split(size) if n else ():
        yield rows, rows.repeat(-(-size // len(rows)))[:size]


def for_each(work: Callable[[Tensor, Tensor], None], n: int, device: torch.device, size: int | None = None,
             together: bool = False) -> None:
    """Call ``work(rows, index)`` for each of ``micro_batches``.

    ``together``: on a CPU several at a time, each with its share of torch's threads, so that none waits for the others
    at every operation; for work that shares nothing but what it reads, and tensors of which each writes its own rows.
    """
    batches, threads = list(micro_batches(n, device, size)), torch.get_num_threads()
    workers = min(threads, len(batches), AT_A_TIME) if together and device.type == "cpu" else 1
    if workers < 2:
        for batch in batches:
            work(*batch)
        return
    pool = ThreadPoolExecutor(workers, initializer=torch.set_num_threads, initargs=(threads // workers,))
    try:
        for done in [pool.submit(work, *batch) for batch in batches]:
            done.result()
    finally:
        pool.shutdown(cancel_futures=True)  # after an error, or Ctrl-C, those under way are the last
        torch.set_num_threads(threads)  # it holds for all threads where MKL multiplies


def shares_nothing(classifier: object) -> bool:
    """Whether several threads may ask it at a time: a ``ZeroShotClassifier`` of which nothing is in training mode.

    What is only looked through, as by a counter, names the classifier ``behind`` it.
    """
    classifier = getattr(classifier, "behind", classifier)
    return type(classifier) is ZeroShotClassifier and not any(part.training for part in classifier.modules())


def exact_of(classifier: Callable[[Tensor], Tensor]) -> Callable[[Tensor], Tensor] | None:
    """The classifier whose answers count, where ``classifier`` is there for its gradients only (``zsar.fast``)."""
    return getattr(classifier, "exact", None)


@torch.no_grad()
def all_logits(classifier: Callable[[Tensor], Tensor], images: Tensor, micro_batch: int | None = None) -> Tensor:
    """The logits [N, K] of images [N, 3, H, W], in micro-batches of one shape, as an attack sees them.

    Those of the exact classifier where ``classifier`` is a fast one (``exact_of``). Raises AttackSettingsError where
    they are NaN or infinite.
    """
    logits = logits_of(exact_of(classifier) or classifier)
    found = torch.cat([logits(images[filled])[:len(rows)]
                       for rows, filled in micro_batches(len(images), images.device, micro_batch)])
    if not found.isfinite().all():
        raise AttackSettingsError(LOGITS_NOT_FINITE)
    return found


def look(objective: Objective, images: Tensor, index: Tensor, gradient: bool = True) -> tuple[Tensor, Tensor | None]:
    """The loss [B] at images [B, 3, H, W], and where asked for its gradient, of their shape: to the pixels only.

    The loss is summed, so that no image's gradient depends on the others. Raises AttackSettingsError for an objective
    that has none.
    """
    with torch.set_grad_enabled(gradient):
        points = images.detach().requires_grad_(gradient)
        loss = objective(points, index)
        if not isinstance(loss, Tensor) or gradient and not loss.requires_grad:
            raise AttackSettingsError(f"the objective returned a {type(loss).__name__} that does not depend on the "
                                      "images: expected a tensor of one number an image, with its graph")
        if loss.shape != index.shape:
            raise AttackSettingsError(f"the objective returned a loss of shape {tuple(loss.shape)}: expected one "
                                      f"number an image, {tuple(index.shape)}; use reduction='none'")
        if not gradient:
            return loss, None
        return loss.detach(), torch.autograd.grad(loss.sum(), points)[0]


def direction(gradient: Tensor, norm: str) -> Tensor:
    """The steepest way up for a step of length 1 in the norm: the sign in L_inf, the unit vector in L_2."""
    if norm == "linf":
        return gradient.sign() + 0 * gradient  # the sign of NaN is 0, a silent weak attack: let NaN be seen
    return gradient / length(gradient).clamp_min(1e-30)


def ascend(points: Tensor, clean: Tensor, gradient: Tensor, eps: float, alpha: float, norm: str) -> Tensor:
    """A step of length ``alpha`` from ``points``, projected onto the ball around ``clean`` and onto [0, 1]."""
    if norm == "linf" and points.is_cuda and kernels.usable():
        return kernels.signed_step(points, clean, gradient, alpha, eps)
    return project(points + alpha * direction(gradient, norm), clean, eps, norm)
