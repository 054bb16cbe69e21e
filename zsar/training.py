"""What every training here needs: a schedule of the learning rate, groups of parameters, safe checkpoints, Ctrl-C."""

import io
import math
import signal
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import torch

from zsar.errors import CheckpointError
from zsar.outputs import write_atomically


def warmup_cosine(step: int, warmup: int, steps: int) -> float:
    """The factor of the learning rate at ``step``: linear up over ``warmup`` steps, then a cosine to zero at ``steps``.

    >>> [round(warmup_cosine(step, 2, 4), 2) for step in range(4)]
    [0.5, 1.0, 1.0, 0.5]
    """
    if step < warmup:
        return (step + 1) / warmup
    return .5 * (1 + math.cos(math.pi * (step - warmup) / max(1, steps - warmup)))


def write_checkpoint(path: Path, state: dict) -> None:
    """Write tensors and plain values as a torch file, complete or not at all. Raises OutputError (a full disk, say)."""
    file = io.BytesIO()
    torch.save(state, file)
    write_atomically(path, file.getbuffer())


def read_checkpoint(path: Path, settings: dict, mend: str, digests: Mapping[str, str] | None = None) -> dict | None:
    """The state in ``path``, if there is one, which must carry the same ``settings``.

    Raises CheckpointError, which ends in ``mend``, where it is broken or of other settings, and says which differ; of
    ``digests``, whose values tell a reader nothing, what they are digests of.
    """
    if not path.exists():
        return None
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
        found = dict(state["settings"])
    except Exception as error:  # torch's zip and pickle errors: all mean a truncated or foreign file
        raise CheckpointError(f"cannot read the checkpoint {path}, it is truncated or no checkpoint of zsar: delete it "
                              f"to begin anew, or {mend}") from error
    differing = [digests[key] if digests and key in digests else f"{key} was {found.get(key)!r}, is {value!r}"
                 for key, value in settings.items() if found.get(key) != value]
    if differing:
        raise CheckpointError(f"{path} was begun with other settings ({'; '.join(differing)}): use those, or {mend}")
    return state


@contextmanager
def finish_the_step() -> Iterator[threading.Event]:
    """Inside, Ctrl-C or SIGTERM sets the event that is given, and a second one acts at once as it always does.

    An update cut in half could not be continued; a loop that looks at the event after each step can stop cleanly.
    SIGTERM is how ``torchrun`` and batch systems stop a process, some 30 seconds before they kill it.
    """
    asked = threading.Event()
    if threading.current_thread() is not threading.main_thread():  # only the main thread may set signal handlers
        yield asked
        return
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}

    def restore() -> None:
        for number, action in before.items():
            signal.signal(number, action)

    def handle(number: int, frame: object) -> None:
        asked.set()
        restore()

    for number in before:
        signal.signal(number, handle)
    try:
        yield asked
    finally:
        restore()
