"""One process or many: the ranks that ``torchrun`` started, through torch.distributed. Alone, there is one rank."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta

import torch
import torch.distributed as dist

TIMEOUT = timedelta(hours=2)  # a rank may wait for another that evaluates or decodes
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


@contextmanager
def ranks() -> Iterator[None]:
    """Inside, the ranks of a launch can wait for each other and share work; without a launch nothing happens."""
    global _store
    if not is_launched():
        yield
        return
    backend = "cpu:gloo,cuda:nccl" if torch.cuda.is_available() else "gloo"
    _store, rank, size = next(dist.rendezvous("env://", timeout=TIMEOUT))
    dist.init_process_group(backend, store=dist.PrefixStore("group", _store), rank=rank, world_size=size,
                            timeout=TIMEOUT)
    try:
        yield
    finally:
        _store = None
        dist.destroy_process_group()


def rank() -> int:
    """The number of this rank, from 0."""
    return dist.get_rank() if _store is not None else 0


def world_size() -> int:
    """How many ranks there are."""
    return dist.get_world_size() if _store is not None else 1


def claim(work: str, n: int) -> Iterator[int]:
    """The numbers 0 to n - 1 of ``work``, each of which exactly one rank gets, whichever asks first."""
    if _store is None:
        yield from range(n)
        return
    while (number := _store.add(f"zsar/{work}", 1) - 1) < n:
        yield number


def wait_for_all() -> None:
    """Return when every rank is here."""
    if _store is not None:
        dist.all_reduce(torch.zeros(1))  # on the CPU, whatever the ranks compute on


def count(what: str, amount: int) -> int:
    """Add to a number that all ranks share, and return what it is then."""
    if _store is None:
        _alone[what] = _alone.get(what, 0) + amount
        return _alone[what]
    return _store.add(f"zsar/count/{what}", amount)
