"""A process of its own for student code: nothing of the grader's in sight, no network, little memory, no way to stay.

With bubblewrap (Linux) the process sees an empty file system with Python, the libraries, ``zsar`` and its drawn data,
all read-only; a small scratch folder in memory; processes of its own only; no network, not even the machine's own. It
runs as nobody where the grader is root, else in a user namespace without rights. Without bubblewrap there is ``weak``
isolation: limits of time and memory, but files can be read, and the network used.
"""

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from importlib.util import find_spec
from pathlib import Path

from zsar.course import syscalls
from zsar.course.kernel import SECONDS
from zsar.course.worker import NOBODY
from zsar.errors import CourseError
from zsar.paths import data_path

NOT_GUARANTEED = ("with weak isolation a submission can read and change what this user can, hidden tests and grades "
                  "among it, use the network, and leave processes behind")
OWN_USERS = range(61184, 65520)  # users that nobody is: systemd's dynamic ones
#: Where the libraries lie that the worker imports.
LIBRARIES = ("torch", "torchvision", "open_clip", "IPython", "numpy", "safetensors", "matplotlib", "ipywidgets")
SYSTEM = ("/usr", "/bin", "/sbin", "/lib", "/lib32", "/lib64", "/etc/ld.so.cache", "/etc/alternatives")


@dataclass(frozen=True)
class Limits:
    """Of one student process and its children: bytes, a number of processes and threads, seconds."""

    memory: int = 3 * 2**30  # resident, of all together
    address: int = 8 * 2**30  # of each: torch maps four before it does anything
    scratch: int = 64 * 2**20
    printed: int = 8 * 2**20
    processes: int = 64
    seconds: float = SECONDS  # of the processor, for one cell or one call
    grace: float = 15.0  # more, by the clock, until a process that does not stop by itself is ended


@dataclass(frozen=True)
class Sandbox:
    """How student processes are started. Raises CourseError where isolation is not to be had, unless ``weak``."""

    weak: bool = False
    limits: Limits = Limits()

    def __post_init__(self):
        if not self.weak:
            self._try()
        elif is_root() and not all(map(_world_readable, _seen())):
            raise CourseError("with weak isolation student code would run as root here, for no other user can read "
                              f"{sys.prefix}: grade as an ordinary user, or with bubblewrap")

    def _try(self) -> None:
        """Start something harmless inside."""
        mend = f"install bubblewrap 0.7 or newer on a Linux system, or give --weak-isolation ({NOT_GUARANTEED})"
        if not shutil.which("bwrap"):
            raise CourseError(f"student code cannot be isolated here: found no bwrap; {mend}")
        done = subprocess.run([*self._bubble, sys.executable, "-c", ""], capture_output=True, text=True,
                              timeout=60)
        if done.returncode:
            raise CourseError(f"student code cannot be isolated here: bwrap says {done.stderr.strip()!r}; {mend}")

    def check_unseen(self, *paths: Path) -> None:
        """Raise CourseError where one of these lies in what student code may read, such as an environment's folder."""
        for path in paths:
            for place in () if self.weak else (*SYSTEM, *_seen()):
                if path.resolve().is_relative_to(place):
                    raise CourseError(f"student code could read {path}, for it lies in {place}: move it elsewhere")

    @contextmanager
    def command(self) -> Iterator[tuple[list[str], tuple[int, ...]]]:
        """The command line of a worker, and the files that it is to inherit.

        Under bubblewrap a worker is a user of its own where the grader is root, so that the number of its processes is
        its own too; elsewhere the system counts all processes of this user, and no such limit is set.
        """
        user = OWN_USERS[os.getpid() % len(OWN_USERS)] if not self.weak else NOBODY
        limits = (self.limits.address, self.limits.scratch, self.limits.processes if is_root() or not self.weak else -1,
                  user if is_root() else -1)
        words = [sys.executable, "-s", "-P", "-B", "-m", "zsar.course.worker", *map(str, limits)]
        filters = None if self.weak else syscalls.program()
        if filters is None:
            yield [*([] if self.weak else self._bubble), *words], ()
            return
        reading, writing = os.pipe()
        os.write(writing, filters)
        os.close(writing)
        try:
            yield [*self._bubble, "--seccomp", str(reading), *words], (reading,)
        finally:
            os.close(reading)

    @property
    def environment(self) -> dict[str, str]:
        """All of the environment of a worker: nothing of the grader's, such as the seed of hidden inputs."""
        return {"PATH": "/usr/bin:/bin", "HOME": "/tmp", "LANG": "C.UTF-8", "OMP_NUM_THREADS": "1",
                "MPLBACKEND": "Agg", "MPLCONFIGDIR": "/tmp/matplotlib", "HF_HUB_OFFLINE": "1",
                "CUDA_VISIBLE_DEVICES": "", "PYTHONPATH": str(_package().parent), "TQDM_DISABLE": "1",
                "ZSAR_DEVICE": "cpu", "PYTHONUNBUFFERED": "1"}

    @cached_property
    def _bubble(self) -> list[str]:
        rights = (["--cap-drop", "ALL", "--cap-add", "CAP_SETUID", "--cap-add", "CAP_SETGID"] if is_root() else
                  ["--unshare-user", "--uid", str(NOBODY), "--gid", str(NOBODY)])
        scratch = ["--size", str(self.limits.scratch), "--perms", "1777", "--tmpfs"]
        seen = _seen()
        folders = sorted({str(folder) for path in seen for folder in Path(path).parents} - {"/", "/tmp"})
        return [shutil.which("bwrap"), "--die-with-parent", "--new-session", "--unshare-pid", "--unshare-net",
                "--unshare-ipc", "--unshare-uts", *rights,
                "--proc", "/proc", "--dev", "/dev", *scratch, "/dev/shm", *scratch, "/tmp",
                *_options("--ro-bind-try", SYSTEM), *_options("--dir", folders, once=True),
                *_options("--ro-bind-try", seen), *_fonts(), "--chdir", "/tmp", "--remount-ro", "/dev",
                "--remount-ro", "/"]


def is_root() -> bool:
    """Whether this process may do everything."""
    return hasattr(os, "getuid") and os.getuid() == 0


def _package() -> Path:
    """The folder of the package."""
    return Path(__file__).resolve().parents[1]


def _seen() -> list[str]:
    """What a worker sees besides the system: Python, the libraries, the package, the drawn data."""
    places = [Path(find_spec(name).origin).parents[1] for name in LIBRARIES if find_spec(name)]
    places += [Path(sys.prefix), Path(sys.base_prefix), _package(), data_path("drawn"), data_path("datasets")]
    return sorted({str(path) for place in places for path in (place, place.resolve())
                   if not path.is_relative_to("/usr")})


def _fonts() -> list[str]:
    """matplotlib's list of fonts, which takes long to make again."""
    import matplotlib

    lists = sorted(Path(matplotlib.get_cachedir()).glob("fontlist-*.json"))
    inside = ["--perms", "0777", "--dir", "/tmp/matplotlib"]
    return [*inside, "--ro-bind-try", str(lists[-1]), f"/tmp/matplotlib/{lists[-1].name}"] if lists else inside


def _options(option: str, paths: Sequence[str], once: bool = False) -> list[str]:
    """The option for each path, from there to there; ``once``: a folder that anybody may enter."""
    return [word for path in paths for word in (["--perms", "0755", option, path] if once else [option, path, path])]


def _world_readable(path: str) -> bool:
    """Whether others may enter every folder on the way."""
    return all(place.stat().st_mode & 0o005 == 0o005 for place in (Path(path), *Path(path).parents))
