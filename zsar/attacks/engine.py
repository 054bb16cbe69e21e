"""What every attack does over and over: a forward pass, and one back to the pixels, in micro-batches of one shape."""

import threading
from collections.abc import Callable, Iterator
from concurrent.futures import FIRST_EXCEPTION, ThreadPoolExecutor, wait

import torch
from torch import Tensor
from torch.utils._python_dispatch import _get_current_dispatch_mode

from zsar import kernels
from zsar.attacks.balls import length, project
from zsar.attacks.objectives import Objective, logits_of
from zsar.clip import ZeroShotClassifier
from zsar.errors import AttackSettingsError

#: Images in one forward pass. On a CPU 20 cost as little an image as 40 do, and a sixth less than 10 (48 px, one
#: thread); the fewer they are, the less is filled up where an attack has let go of most images.
MICRO_BATCH = {"cpu": 20, "cuda": 256}
#: Micro-batches at a time on a CPU, at most, each with memory of its own; and below how many weights of a model:
#: its operations are too short for several threads, and what lies between them is Python's, which does one thing at a
#: time. A larger model is better off with all threads at one operation.
AT_A_TIME, SMALL = 4, 20_000_000
NOT_FINITE = ("the attack's gradient is NaN or infinite: the objective is not finite at these images (half precision, "
              "a logarithm of 0, or broken weights)")
_this_thread = threading.local()
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
    Not inside contexts of torch that other threads would not see. An error, or Ctrl-C, ends all at their next ``look``.
    """
    batches, threads = list(micro_batches(n, device, size)), torch.get_num_threads()
    alone = not together or device.type != "cpu" or torch.is_inference_mode_enabled() or \
        torch.is_autocast_enabled("cpu") or _get_current_dispatch_mode() is not None
    most = 1 if alone else min(AT_A_TIME, len(batches))
    workers = max((k for k in range(1, most + 1) if threads % k == 0), default=1)
    if workers == 1:
        for batch in batches:
            work(*batch)
        return
    stop, gradients = threading.Event(), torch.is_grad_enabled()

    def begin() -> None:  # a thread starts with settings of its own
        _this_thread.stop = stop
        torch.set_num_threads(threads // workers)

    def own_work(*batch: Tensor) -> None:
        with torch.set_grad_enabled(gradients):
            work(*batch)

    pool = ThreadPoolExecutor(workers, initializer=begin)
    try:
        done, _ = wait([pool.submit(own_work, *batch) for batch in batches], return_when=FIRST_EXCEPTION)
        for one in done:
            one.result()
    finally:
        stop.set()
        try:
            pool.shutdown(cancel_futures=True)
        finally:
            torch.set_num_threads(threads)  # MKL has one number for all threads


class LooksThrough:
    """A classifier that does no more than watch what goes to the one ``behind`` it, from any thread."""

    behind: ZeroShotClassifier


def side_by_side(classifier: object) -> bool:
    """Whether ``for_each`` may ask it ``together``, and should: a small ``ZeroShotClassifier``, none of it in training.

    Hooks on its modules, and losses of its logits, are then called from several threads.
    """
    classifier = classifier.behind if isinstance(classifier, LooksThrough) else classifier
    return type(classifier) is ZeroShotClassifier and not any(part.training for part in classifier.modules()) and \
        sum(weight.numel() for weight in classifier.clip.model.visual.parameters()) < SMALL


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
    if (stop := getattr(_this_thread, "stop", None)) and stop.is_set():
        raise KeyboardInterrupt("another thread of the attack ended")
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
    if norm == "linf" and kernels.usable(points.device):
        return kernels.signed_step(points, clean, gradient, alpha, eps)
    return project(points + alpha * direction(gradient, norm), clean, eps, norm)
