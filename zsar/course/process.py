"""One student process: messages with deadlines, and a guard that ends it when it takes too much."""

import contextlib
import os
import select
import signal
import subprocess
import tempfile
import threading
import time

from zsar.course import wire
from zsar.course.sandbox import Sandbox
from zsar.errors import CourseError

try:
    import psutil
except ImportError as error:
    raise CourseError('grading needs psutil and nbformat: pip install "zsar[course]"') from error

KEPT = 20_000  # bytes of what is printed
LOOK = 0.2  # seconds between two looks at memory


class Ended(Exception):  # noqa: N818 - not an error of the grader's
    """The process is gone, or had to be ended; why, in words."""


class StudentProcess:
    """A worker in a sandbox. Whatever happens to it is raised as Ended, once it is dead and all it started."""

    def __init__(self, sandbox: Sandbox):
        self.limits, self.reason, self.printed, self._count = sandbox.limits, None, b"", 0
        self._folder = tempfile.TemporaryDirectory(prefix="zsar-", ignore_cleanup_errors=True) if sandbox.weak else None
        if self._folder:
            os.chmod(self._folder.name, 0o777)
        with sandbox.command() as (words, passed):
            self._process = subprocess.Popen(
                words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, bufsize=0,
                pass_fds=passed, cwd=self._folder and self._folder.name, env=sandbox.environment,
                start_new_session=True)
        for pipe in (self._process.stdin, self._process.stdout, self._process.stderr):
            os.set_blocking(pipe.fileno(), False)
        self._deadline = 0.0
        self._guard = threading.Thread(target=self._watch, daemon=True)
        self._guard.start()

    def send(self, message: bytes, seconds: float) -> None:
        """Write a message. Raises Ended."""
        deadline, rest = time.monotonic() + seconds, memoryview(message)
        while rest:
            self._wait([], [self._process.stdin], deadline)
            try:
                rest = rest[os.write(self._process.stdin.fileno(), rest[:2**16]):]
            except BlockingIOError:
                continue
            except BrokenPipeError:
                self._fail("ended without an answer")

    def receive(self, seconds: float) -> object:
        """The next message. Raises Ended, for bytes that are no message too."""
        self._deadline = time.monotonic() + seconds
        try:
            return wire.read(self)
        except EOFError:
            self._fail("ended without an answer")
        except wire.WireError as error:
            self._fail(f"sent {error}")

    def read(self, size: int) -> bytes:
        """So many bytes of what the process says, or fewer at its end: the stream that ``wire.read`` takes."""
        parts, missing = [], size
        while missing:
            self._wait([self._process.stdout], [], self._deadline)
            try:
                part = os.read(self._process.stdout.fileno(), min(missing, 2**20))
            except BlockingIOError:
                continue
            if not part:
                break
            parts.append(part)
            missing -= len(part)
        return b"".join(parts)

    def stop(self) -> None:
        """End the process and all that it started."""
        tree = _tree(self._process.pid)
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self._process.pid, signal.SIGKILL)
        for one in tree:
            with contextlib.suppress(psutil.Error):
                one.kill()
        self._process.wait()
        self._guard.join(timeout=5)
        for pipe in (self._process.stdin, self._process.stdout, self._process.stderr):
            with contextlib.suppress(OSError):
                pipe.close()
        if self._folder:
            self._folder.cleanup()

    def _wait(self, reading: list, writing: list, deadline: float) -> None:
        """Until a pipe is ready. Raises Ended at the deadline."""
        left = deadline - time.monotonic()
        if left <= 0 or not any(select.select(reading, writing, [], left)):
            self._fail("did not answer in time and was stopped")

    def _fail(self, otherwise: str) -> None:
        """End it, and raise Ended with the guard's reason or, if it has none, the exit status."""
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(timeout=1 if otherwise.startswith("ended") else 0)
        status = self._process.poll()
        self.stop()
        if status is not None and otherwise.startswith("ended"):
            otherwise = f"{otherwise} ({f'signal {-status}' if status < 0 else f'exit status {status}'})"
        raise Ended(self.reason or otherwise)

    def _watch(self) -> None:
        """The guard: keeps the first of what is printed, and ends a process that prints or takes too much."""
        look = 0.0
        while self._process.poll() is None:
            self._drain()
            if self._count > self.limits.printed:
                return self._end(f"printed more than {self.limits.printed // 2**20} MB and was stopped")
            if time.monotonic() >= look:
                taken = sum(map(_resident, _tree(self._process.pid)))
                if taken > self.limits.memory:
                    return self._end(f"took more than {self.limits.memory / 2**30:g} GB of memory and was stopped")
                look = time.monotonic() + LOOK
        self._drain()

    def _drain(self) -> None:
        with contextlib.suppress(OSError, ValueError):
            if select.select([self._process.stderr], [], [], LOOK)[0]:
                part = os.read(self._process.stderr.fileno(), 2**16)
                if not part:
                    time.sleep(LOOK)
                self._count += len(part)
                self.printed += part[:KEPT - len(self.printed)]

    def _end(self, reason: str) -> None:
        self.reason = reason
        for one in _tree(self._process.pid):
            with contextlib.suppress(psutil.Error):
                one.kill()


def _tree(pid: int) -> list[psutil.Process]:
    """The process and all that it started, as far as they are still its."""
    try:
        root = psutil.Process(pid)
        return [root, *root.children(recursive=True)]
    except psutil.Error:
        return []


def _resident(process: psutil.Process) -> int:
    try:
        return process.memory_info().rss
    except psutil.Error:
        return 0
