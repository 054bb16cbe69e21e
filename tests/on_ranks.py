"""What test_distributed.py runs under torchrun: ``on_ranks.py FOLDER [STEP|all]``.

Each rank asserts what it can see; rank 0 writes the updates of ``CASES`` into FOLDER, to be compared with those of one
rank. With STEP, in which rank 1 kills itself, torchrun has to restart them once. With ``all`` there are the updates of
every loss by every method, and nothing else.
"""

import contextlib
import io
import os
import signal
import sys
from collections.abc import Callable, Iterable
from dataclasses import replace
from pathlib import Path
from unittest import mock

import numpy as np
import torch
from made_up import made_up, tiny

from zsar import __main__ as cli
from zsar import adapt as command
from zsar import distributed, trainer
from zsar.adapt import adapt
from zsar.attacks import MICRO_BATCH, pgd
from zsar.datasets import ImageDataset
from zsar.errors import AdaptationError, DivergenceError, OutputError, UnreadableImageError
from zsar.losses import LOSSES, ImgCoAdv
from zsar.methods import METHODS, load_adapted, trainable
from zsar.recipes import Recipe
from zsar.trainer import CHECKPOINT, Trainer, rows_at

RECIPE = Recipe(optimizer="sgd", lr=.05, prompt_lr=5, batch=7, steps=2, warmup=0, held_out=6, validate_every=9, pad=2,
                tokens=3, keep="last", seed=5)
#: With three ranks, (a + b) + c is not a + (b + c): a run that is continued must add up in the same order.
LONGER = replace(RECIPE, optimizer="adamw", lr=3e-3, steps=8, validate_every=3, keep="best")
BROKEN = range(0, 54, 4)  # rows of the training images, of which a batch of 7 then has one or two
#: loss, method, what of the recipe differs, rows that cannot be read. 7 images are 3 + 4, or 2 + 2 + 3; two parts of 3
#: are 1 + 2 twice; three parts of 2 leave one rank of three without an image.
CASES = {
    **{loss: (loss, "finetune", {}, ()) for loss in LOSSES},
    **{method: ("tecoa", method, {}, ()) for method in ("blocks-1", "pad", "token", "pad+token", "finetune+pad+token")},
    "parts of 3": ("tecoa", "finetune", {"batch": 6, "accumulate": 2}, ()),
    "parts of 2": ("adv", "pad+token", {"batch": 6, "accumulate": 3}, ()),
    "compared, parts of 3": ("imgcoadv", "finetune", {"batch": 6, "accumulate": 2}, ()),
    "compared, parts of 2": ("imgcoadv", "pad+token", {"batch": 6, "accumulate": 3}, ()),
    "unreadable": ("tecoa", "finetune", {"steps": 3}, BROKEN),
    "compared, unreadable": ("imgcoadv", "finetune", {"steps": 3}, BROKEN),
    "one is readable": ("tecoa", "finetune", {}, sum((rows_at(step, 54, RECIPE)[1:] for step in (0, 1)), [])),
}


#: Held-out images, and rows of them that cannot be read: ranks with several each, one that has none, and one that can
#: read none of its own.
HELD_OUT = {"shared": (13, ()), "one": (1, ()), "unreadable": (13, range(6)), "one is readable": (13, range(12))}


def broken(source: ImageDataset, rows: Iterable[int]) -> ImageDataset:
    """The same images, of which these rows cannot be read."""
    rows, read = set(rows), source._read

    def reader(wanted):
        if hit := rows & set(wanted.tolist()):
            raise UnreadableImageError(f"cannot read the image train-{min(hit)}")
        return read(wanted)

    return ImageDataset(source.name, source.split, source.classnames, source.templates, source.labels, source.ids,
                        reader)


def pictures(unreadable=(), n: int = 60) -> ImageDataset:
    """Made-up pictures, of whose training images these rows cannot be read."""
    kept = np.sort(np.random.RandomState(0).permutation(n)[RECIPE.held_out:])  # as hold_out keeps them
    return broken(made_up(n), kept[list(unreadable)].tolist())


def looker(clip, n: int, unreadable: Iterable[int], strict: bool = False) -> Trainer:
    """What looks at n held-out images, of which these rows cannot be read."""
    return Trainer(clip, pictures(), "tecoa", "pad", replace(RECIPE, eps_255=24), strict=strict,
                   held_out=broken(made_up(n), unreadable))


def smooth_pgd(objective, images: torch.Tensor, *, eps: float, alpha: float, **how) -> torch.Tensor:
    """PGD in an L2 ball about as large as the cube: of a gradient near zero the sign is that of its rounding, which is
    another on other processors, and a pixel that goes the other way changes the update a thousand times as much.
    """
    longer = images[0].numel() ** .5
    return pgd(objective, images, eps=longer * eps, alpha=longer * alpha, norm="l2", **how)


def update(clip, case: tuple) -> dict:
    """What a case comes to: how far each weight moved, the losses, and which images could not be read."""
    loss, method, changes, unreadable = case
    run = Trainer(clip, pictures(unreadable), loss, method, replace(RECIPE, **changes))
    run._validate = lambda: None  # it takes longer than the steps
    weights = trainable(run.student) | trainable(run.loss)
    before = {name: value.detach().clone() for name, value in weights.items()}
    with mock.patch.object(trainer, "pgd", smooth_pgd):
        run.advance(run.recipe.steps)
    return {"moved": {name: (value - before[name]).detach() for name, value in weights.items()},
            "losses": run.history.losses, "unreadable": run.history.unreadable}


def at(run: Trainer, step: int, act: Callable[[], object], on: int) -> Trainer:
    """Let rank ``on`` do something before step ``step`` (from 0)."""
    plain = run.step

    def acting(*batch):
        if run.history.step == step and distributed.rank() == on:
            act()
        return plain(*batch)

    run.step = acting
    return run


def error_of(kind: type[BaseException], work: Callable[[], object]) -> str:
    """The message of the error that ``work`` must raise, which must be the same on every rank."""
    try:
        work()
    except kind as error:
        messages = distributed.gather(str(error))
        assert len(set(messages)) == 1, messages
        return str(error)
    raise AssertionError(f"no {kind.__name__}")


def same_everywhere(run: Trainer) -> bool:
    """Whether all ranks hold the same weights, bit for bit."""
    return len(set(distributed.gather(run.student.digest))) == 1


def check_the_command(clip, folder: Path) -> None:
    """``zsar adapt`` works on all ranks, and one of them speaks."""
    command.load_dataset, command.load_clip = lambda *where: pictures(), lambda *args, **how: clip
    out, error = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(error):
        status = cli.main(["adapt", "--out", str(folder), "--batch", "7", "--steps", "2", "--held-out", "6", "--loss",
                           "fare"])
    assert status == 0, error.getvalue()
    spoke = "fare by finetune: " in out.getvalue()
    assert spoke == (os.environ["RANK"] == "0") and bool(out.getvalue()) == spoke, out.getvalue()
    assert load_adapted(folder / "adapted.safetensors", clip).digest != clip.digest


def check_a_killed_run(clip, folder: Path, step: int) -> None:
    """In the first life rank 1 dies in ``step``; in the second the run ends as if nothing had been."""
    run = Trainer(clip, pictures(), "adv", "finetune+pad+token", LONGER, folder)
    if os.environ["TORCHELASTIC_RESTART_COUNT"] == "0":
        at(run, step, lambda: os.kill(os.getpid(), signal.SIGKILL), on=1).run()
        raise AssertionError("it was to be killed")
    assert run.history.step == step // 3 * 3
    check_the_end(run)


def check_the_end(run: Trainer) -> None:
    """A run that is continued ends as one that goes through, bit for bit."""
    whole = Trainer(run.original, pictures(), "adv", "finetune+pad+token", LONGER)
    ends, twins = run.run(), whole.run()
    assert ends.step == twins.step and ends.history.losses == twins.history.losses
    assert ends.history.held_out == twins.history.held_out and len(ends.history.held_out) == 3
    for ours, expected in ((run.student, whole.student), (run.loss, whole.loss)):
        expected = expected.state_dict()
        assert all(torch.equal(value, expected[name]) for name, value in ours.state_dict().items())
    assert same_everywhere(run)


def check_claims() -> None:
    """Each number is claimed once, in each entry anew."""
    numbers = distributed.gather(list(distributed.claim("things", 50)))
    assert sorted(sum(numbers, [])) == list(range(50))
    assert sum(distributed.gather(list(distributed.share(50))), []) == list(range(50))


def check_what_is_loaded(clip) -> None:
    """A rank reads its own images; of a loss that compares them, all."""
    for loss, expected in (("tecoa", distributed.share(7)), ("imgcoadv", range(7))):
        run, read = Trainer(clip, pictures(), loss, "pad", RECIPE), []
        plain = run.train.read
        run.train.read = lambda rows, plain=plain, read=read: read.extend(rows.tolist()) or plain(rows)
        batch = next(run.batches(0, 1))
        assert len(batch[0]) == len(expected)
        assert read == [rows_at(0, len(run.train), RECIPE)[place] for place in expected]


def check_who_writes(clip, folder: Path) -> None:
    """Rank 0 alone is watched and writes; all return the same, when the files are there."""
    seen = []
    if distributed.rank():
        trainer.write_checkpoint = trainer.save_adapted = None
    adapted = adapt(clip, pictures(), recipe=RECIPE, out=folder, watch=lambda history: seen.append(history.step))
    assert seen == ([] if distributed.rank() else [2])
    assert load_adapted(folder / "adapted.safetensors", clip).digest == adapted.clip.digest
    found = distributed.gather((adapted.clip.digest, adapted.step, adapted.history.held_out, adapted.history.losses))
    assert all(other == found[0] for other in found)


def check_who_looks(clip) -> None:
    """Each rank looks at its share of the held-out images, and where that is none at nothing."""
    plain, seen = trainer.evaluate_dataset, []
    for n in (13, 1):
        run = looker(clip, n, ())
        trainer.evaluate_dataset = lambda model, part, *args, **how: seen.append(part.ids) or plain(model, part, *args,
                                                                                                    **how)
        run._validate()
        trainer.evaluate_dataset = plain
        mine = distributed.share(n)
        assert seen == [[f"train-{row}" for row in mine]] * bool(mine)
        seen.clear()
    for rows, strict, message in ((range(13), False, "none of the "), ([12], True, "cannot read the image train-12")):
        assert error_of(UnreadableImageError, looker(clip, 13, rows, strict)._validate).startswith(message)


def check_a_head_that_is_fitted(clip) -> None:
    """Where ranks fit another head, as accelerators may, rank 0's is everyone's."""
    plain = LOSSES["adv-prefit"].func.fit

    def fit(self, features, labels):
        plain(self, features, labels)
        with torch.no_grad():
            self.weight += distributed.rank()

    LOSSES["adv-prefit"].func.fit = fit
    run = Trainer(clip, pictures(), "adv-prefit", "pad", RECIPE)
    LOSSES["adv-prefit"].func.fit = plain
    assert len(set(distributed.gather(run.loss.weight.sum().item()))) == 1
    run.advance(2)
    assert same_everywhere(run) and len(set(distributed.gather(run.loss.weight.sum().item()))) == 1


def check_stops(clip, folder: Path) -> None:
    """What one rank alone meets ends all of them at the same step, and what the message says is true."""
    last = distributed.world_size() - 1

    def new(out=folder, source=None, **how):
        return Trainer(clip, source or pictures(), "adv", "finetune+pad+token", LONGER, out, **how)

    run = at(new(), 1, lambda: signal.raise_signal(signal.SIGTERM), last)
    message = error_of(KeyboardInterrupt, run.run)
    assert message == f"step 2 is saved in {folder}; the same call goes on from there" and new().history.step == 2
    run, trainer.LOG_EVERY = new(), 2
    plain, here = run.step, distributed.rank()
    run.step = lambda *batch: plain(*batch) + (float("nan") if (run.history.step, here) == (3, last) else 0)
    message = error_of(DivergenceError, run.run)
    assert f"is nan at step 4 (it began at {run.history.losses[0][1]:.4g})" in message
    assert f"the last good checkpoint is {folder / CHECKPOINT}" in message and new().history.step == 3
    check_the_end(new())
    for rows, strict, message in ((range(54), False, "no image of a batch of made-up can be read, e.g. cannot read"),
                                  (range(50), True, "cannot read the image train-")):
        run = new(None, source=pictures(rows), strict=strict)
        assert error_of(UnreadableImageError, run.run).startswith(message)


def check_errors(clip, folder: Path) -> None:
    """Ranks that do not fit together, and an error of the first."""
    here = distributed.rank()
    message = error_of(AdaptationError, lambda: Trainer(clip, pictures(), "tecoa", "pad", replace(RECIPE, lr=1 + here)))
    assert message.startswith("rank 1 begins otherwise than rank 0 (lr is 2, not 1): expected the same arguments")
    message = error_of(AdaptationError, lambda: adapt(clip, pictures(), recipe=RECIPE, out=None if here else folder))
    assert "(out is False, not True)" in message

    class Blind(ImgCoAdv):
        def forward(self, student, images, adversarial, targets):
            return super().forward(student, images, adversarial, targets)

    message = error_of(AdaptationError, lambda: Trainer(clip, pictures(), Blind, "pad", RECIPE))
    assert message.startswith("Blind.forward takes no rows: a loss that compares images with each other needs them")

    def full(*args):
        raise OutputError("No space left on device")

    plain, trainer.write_checkpoint = trainer.write_checkpoint, full
    assert error_of(OutputError, Trainer(clip, pictures(), "tecoa", "pad", RECIPE, folder).run) == \
        "No space left on device"
    trainer.write_checkpoint = plain


def write_updates(clip, cases: dict[str, tuple], folder: Path) -> None:
    """Rank 0's updates, for the parent."""
    found = {name: update(clip, case) for name, case in cases.items()}
    found |= {f"held out, {name}": looker(clip, *case)._held_out_accuracy() for name, case in HELD_OUT.items()}
    if distributed.rank() == 0:
        torch.save(found, folder / "updates.pt")


def main(folder: Path, what: str = "") -> None:
    """All checks on this rank."""
    for name in ("killed", "stops", "errors"):
        (folder / name).mkdir(exist_ok=True)
    MICRO_BATCH["cpu"] = 6
    torch.set_num_threads(1)
    clip = tiny()
    if what == "all":
        with distributed.ranks():
            return write_updates(clip, {f"{loss} {method}": (loss, method, {}, ()) for loss in LOSSES
                                        for method in METHODS}, folder)
    if what:
        with distributed.ranks():
            check_a_killed_run(clip, folder / "killed", int(what))
    check_the_command(clip, folder / "command")
    with distributed.ranks(), distributed.ranks():
        check_claims()
        check_what_is_loaded(clip)
        check_who_looks(clip)
        check_a_head_that_is_fitted(clip)
        check_stops(clip, folder / "stops")
        check_errors(clip, folder / "errors")
        write_updates(clip, CASES, folder)
        check_who_writes(clip, folder / "written")


if __name__ == "__main__":
    main(Path(sys.argv[1]), *sys.argv[2:])
