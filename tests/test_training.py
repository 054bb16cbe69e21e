"""What every training needs: the schedule, checkpoints that are whole or not there, and Ctrl-C between two steps."""

import errno
import signal
import threading
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from zsar.errors import CheckpointError, OutputError
from zsar.training import finish_the_step, read_checkpoint, warmup_cosine, write_checkpoint

STATE = {"settings": {"lr": .1, "steps": 3}, "weights": torch.arange(5.)}


@settings(deadline=None)
@given(st.integers(0, 50), st.integers(1, 500))
def test_the_rate_rises_to_one_and_falls_towards_zero(warmup, beyond):
    steps = warmup + beyond
    factors = [warmup_cosine(step, warmup, steps) for step in range(steps)]
    assert all(0 < factor <= 1 for factor in factors) and factors[warmup] == 1
    assert factors[:warmup] == pytest.approx([(step + 1) / warmup for step in range(warmup)])
    assert factors[warmup:] == sorted(factors[warmup:], reverse=True)
    assert warmup_cosine(steps, warmup, steps) == pytest.approx(0, abs=1e-12)


def test_a_checkpoint_comes_back(tmp_path):
    write_checkpoint(tmp_path / "c.pt", STATE)
    state = read_checkpoint(tmp_path / "c.pt", {"lr": .1}, "choose another folder")
    assert torch.equal(state["weights"], STATE["weights"]) and state["settings"] == STATE["settings"]
    assert read_checkpoint(tmp_path / "none.pt", {}, "") is None
    assert [path.name for path in tmp_path.iterdir()] == ["c.pt"]


def test_other_settings_are_named(tmp_path):
    write_checkpoint(tmp_path / "c.pt", STATE)
    with pytest.raises(CheckpointError) as error:
        read_checkpoint(tmp_path / "c.pt", {"lr": .2, "steps": 3, "seed": 1}, "choose another folder")
    assert "(lr was 0.1, is 0.2; seed was None, is 1): use those, or choose another folder" in str(error.value)


@pytest.mark.parametrize("content", [b"", b"half a file", None])
def test_a_broken_checkpoint(content, tmp_path):
    write_checkpoint(tmp_path / "c.pt", STATE)
    whole = (tmp_path / "c.pt").read_bytes()
    (tmp_path / "c.pt").write_bytes(whole[:len(whole) // 2] if content is None else content)
    with pytest.raises(CheckpointError, match="cannot read the checkpoint .*c.pt, it is truncated .* choose another"):
        read_checkpoint(tmp_path / "c.pt", {}, "choose another folder")


@pytest.mark.parametrize("foreign", [[1, 2], {"settings": [1]}, {"state_dict": {}}])
def test_a_foreign_checkpoint(foreign, tmp_path):
    torch.save(foreign, tmp_path / "c.pt")
    with pytest.raises(CheckpointError, match="cannot read the checkpoint"):
        read_checkpoint(tmp_path / "c.pt", {"lr": .1}, "choose another folder")


def test_a_full_disk_leaves_the_old_checkpoint(tmp_path, monkeypatch):
    write_checkpoint(tmp_path / "c.pt", STATE)
    full_disk(monkeypatch)
    with pytest.raises(OutputError, match=r"cannot write .*c.pt \(No space left on device\)"):
        write_checkpoint(tmp_path / "c.pt", {"settings": {}, "weights": torch.zeros(9)})
    assert torch.equal(read_checkpoint(tmp_path / "c.pt", {}, "")["weights"], STATE["weights"])
    assert [path.name for path in tmp_path.iterdir()] == ["c.pt"]


def full_disk(monkeypatch):
    """From here on every file is cut off after a hundred bytes."""
    write = Path.write_bytes

    def cut_off(path, content):
        write(path, bytes(content[:100]))
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(Path, "write_bytes", cut_off)


main_thread = pytest.mark.skipif(threading.current_thread() is not threading.main_thread(),
                                 reason="signals reach the main thread only")


@pytest.fixture(autouse=True)
def interruptible():
    """Ctrl-C is heard, also where the tests were started in the background, whose processes begin deaf to it."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@main_thread
@pytest.mark.parametrize("first", [signal.SIGINT, signal.SIGTERM])
def test_the_first_interruption_waits_and_the_second_does_not(first):
    before = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)]
    with pytest.raises(KeyboardInterrupt), finish_the_step() as stop:
        assert not stop.is_set()
        signal.raise_signal(first)
        assert stop.is_set()
        signal.raise_signal(signal.SIGINT)
    assert [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)] == before


@main_thread
def test_afterwards_an_interruption_is_one_again():
    with finish_the_step():
        pass
    with pytest.raises(KeyboardInterrupt):
        signal.raise_signal(signal.SIGINT)


def test_in_another_thread_the_signal_is_left_alone():
    before, found = signal.getsignal(signal.SIGINT), []

    def work():
        with finish_the_step() as stop:
            found.extend([stop.is_set(), signal.getsignal(signal.SIGINT) is before])

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert found == [False, True]
