"""One process or many: the ranks that ``torchrun`` started, through torch.distributed. Alone, there is one rank.

Ranks are processes of one program that trust each other: what they gather is pickled on its way.
"""

import os
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from datetime import timedelta
from typing import Any, TypeVar
from uuid import uuid4

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.utils import parameters_to_vector, vector_to_parameters

from zsar.errors import ZsarError

TIMEOUT = timedelta(hours=2)  # a rank may wait for another that evaluates or decodes
T = TypeVar("T")
_store: dist.Store | None = None
_alone: dict[str, int] = {}  # the numbers of ``count`` where there is one rank


def is_launched() -> bool:
    """Whether ``torchrun`` (or what sets the same variables) started this process as one of several ranks."""
    return {"RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT"} <= os.environ.keys()


def rank_device(name: str | None = None) -> str | None:
    """The device ``name`` of this rank: of several accelerators of a machine each rank takes its own."""
    if is_launched() and (name or os.environ.get("ZSAR_DEVICE") or "cuda") == "cuda" and torch.cuda.is_available():
        return f"cuda:{int(os.environ.get('LOCAL_RANK', 0)) % torch.cuda.device_count()}"
    return name


def ranks_here() -> int:
    """How many ranks of a launch share this machine, its cores and accelerators."""
    return int(os.environ.get("LOCAL_WORLD_SIZE", 1)) if is_launched() else 1


@contextmanager
def ranks() -> Iterator[None]:
    """Inside, the ranks of a launch can wait for each other and share work; without a launch nothing happens.

    Every rank has to enter and leave as often as the others; inside of another, it does nothing.
    """
    global _store
    if not is_launched() or _store is not None:
        yield
        return
    # NCCL wants an accelerator a rank; ranks that share one, as in a trial on a small machine, go by gloo.
    backend = "cpu:gloo,cuda:nccl" if ranks_here() <= torch.cuda.device_count() else "gloo"
    if (device := rank_device() or "").startswith("cuda:"):
        torch.cuda.set_device(device)  # else every rank would keep some memory of the first
    store, rank, size = next(dist.rendezvous("env://", timeout=TIMEOUT))
    store = _fresh(dist.PrefixStore("zsar", store), rank, size)
    dist.init_process_group(backend, store=dist.PrefixStore("group", store), rank=rank, world_size=size,
                            timeout=TIMEOUT)
    _store = store
    try:
        yield
        wait_for_all()  # rank 0 may be the one that holds the store
    finally:
        _store = None
        dist.destroy_process_group()


def _fresh(store: dist.Store, rank: int, size: int) -> dist.Store:
    """A part of ``store`` into which nobody has written but the ranks that enter together now.

    ``torchrun`` keeps its store when it restarts ranks, and in it addresses of dead ones and numbers claimed by them;
    its count of restarts is no name for a new part, for it differs between machines. So rank 0 makes up a name, and the
    others take it only when it has answered to the names that they make up themselves.
    """
    own = uuid4().hex
    if rank == 0:
        store.set("part", own)
        store.set(f"{own}/answer", b"".join(store.get(f"{own}/{other}") for other in range(1, size)))
        return dist.PrefixStore(own, store)
    while True:
        part = store.get("part").decode()  # of these ranks, or still of earlier ones
        store.set(f"{part}/{rank}", own)
        if store.check([f"{part}/answer"]) and own.encode() in store.get(f"{part}/answer"):
            return dist.PrefixStore(part, store)
        time.sleep(.02)


def rank() -> int:
    """The number of this rank, from 0."""
    return dist.get_rank() if _store is not None else 0


def world_size() -> int:
    """How many ranks there are."""
    return dist.get_world_size() if _store is not None else 1


def share(n: int) -> range:
    """This rank's numbers of 0 to n - 1, which the ranks cut into pieces in their order, of lengths that differ by 1.

    >>> share(3)
    range(0, 3)
    """
    return range(n * rank() // world_size(), n * (rank() + 1) // world_size())


def claim(work: str, n: int) -> Iterator[int]:
    """The numbers 0 to n - 1 of ``work``, each of which exactly one rank gets, whichever asks first."""
    if _store is None:
        yield from range(n)
        return
    while (number := _store.add(f"work/{work}", 1) - 1) < n:
        yield number


def wait_for_all() -> None:
    """Return when every rank is here."""
    anywhere(False)


def count(what: str, amount: int) -> int:
    """Add to a number that all ranks share, and return what it is then."""
    if _store is None:
        _alone[what] = _alone.get(what, 0) + amount
        return _alone[what]
    return _store.add(f"count/{what}", amount)


def anywhere(flag: bool) -> bool:
    """Whether ``flag`` is true on any rank."""
    if world_size() == 1:
        return flag
    flags = torch.tensor([flag], dtype=torch.uint8)  # on the CPU, whatever the ranks compute on
    dist.all_reduce(flags, dist.ReduceOp.MAX)
    return bool(flags)


def gather(value: T) -> list[T]:
    """The small ``value`` of every rank, in their order, on every rank."""
    if world_size() == 1:
        return [value]
    values: list[Any] = [None] * world_size()
    dist.all_gather_object(values, value)
    return values


def on_each(work: Callable[[], T]) -> list[T]:
    """What ``work()`` returns on every rank, in their order, on every rank; or the ZsarError that the first of them
    raises, on all: none waits for one that has failed.
    """
    if world_size() == 1:
        return [work()]
    try:
        outcome: T | ZsarError = work()
    except ZsarError as error:
        outcome = error
    outcomes = gather(outcome)
    for found in outcomes:
        if isinstance(found, ZsarError):
            raise found
    return outcomes


def first_alone(work: Callable[[], T]) -> T:
    """On every rank what ``work()`` returns, or the ZsarError that it raises; rank 0 does it, and the others wait."""
    if world_size() == 1:
        return work()
    outcome: list[Any] = [None]
    if rank() == 0:
        try:
            outcome = [work()]
        except ZsarError as error:
            outcome = [error]
    dist.broadcast_object_list(outcome)
    if isinstance(outcome[0], ZsarError):
        raise outcome[0]
    return outcome[0]


def added_up(values: Tensor) -> Tensor:
    """The sum over all ranks of their ``values``, of one shape, on the CPU."""
    if world_size() == 1:
        return values
    values = values.cpu()
    dist.all_reduce(values)
    return values


def copy_first(tensors: Iterable[Tensor]) -> None:
    """Give ``tensors`` on every rank, in place, the values that they have on rank 0."""
    if world_size() > 1:
        for tensor in tensors:
            dist.broadcast(tensor.detach(), 0)


def add_up_gradients(weights: Sequence[nn.Parameter]) -> None:
    """Give every ``.grad`` of ``weights`` the sum of those of all ranks; it stays None where it is None on each.

    DistributedDataParallel would add up while a backward pass still computes, but of a step with an attack that is one
    pass of several. In return it orders its sums anew after its first step, so that from three ranks on a run that is
    continued from a checkpoint is no longer that which went through, bit for bit; and the option that prevents it
    (``find_unused_parameters``, which towers with unused weights need) warns of itself on every rank.
    """
    if world_size() == 1:
        return
    used = torch.tensor([weight.grad is not None for weight in weights], dtype=torch.uint8)
    dist.all_reduce(used, dist.ReduceOp.MAX)
    gradients = []
    for weight, flag in zip(weights, used.tolist(), strict=True):
        if flag:
            weight.grad = torch.zeros_like(weight) if weight.grad is None else weight.grad
            gradients.append(weight.grad)
    flat = parameters_to_vector(gradients)
    dist.all_reduce(flat)
    vector_to_parameters(flat, gradients)
