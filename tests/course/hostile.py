"""What careless and hostile students hand in, with the points each deserves."""

import json
import socket
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from sums import RIGHT, hand_in, make_assignment

from zsar.course.assignment import Assignment


@dataclass(frozen=True)
class Case:
    """Points of ten, the status, and a word that the message to the student must hold."""

    make: Callable[[Assignment, Path], object]
    score: float
    status: str = "graded"
    says: str = ""


def cell(code: str, where: str = "before", **bodies: str) -> Callable[[Assignment, Path], object]:
    """A right notebook with one cell more."""
    return lambda assignment, path: hand_in(assignment, path, **{where: code}, **(RIGHT | bodies))


def raw(content: bytes | str) -> Callable[[Assignment, Path], object]:
    return lambda assignment, path: path.write_bytes(content if isinstance(content, bytes) else content.encode())


def edited(change: Callable[[dict], None]) -> Callable[[Assignment, Path], object]:
    """A right notebook whose JSON is changed."""
    def make(assignment: Assignment, path: Path) -> None:
        notebook = json.loads(hand_in(assignment, path, **RIGHT).read_text())
        change(notebook)
        path.write_text(json.dumps(notebook))

    return make


def other_assignment(assignment: Assignment, path: Path) -> None:
    hand_in(make_assignment(path.parent.parent / "elsewhere", "other"), path, **RIGHT)


def shuffled(notebook: dict) -> None:
    notebook["cells"] = notebook["cells"][::-1]


def pickled_output(notebook: dict) -> None:
    bomb = "cos\nsystem\n(S'touch /tmp/pickled'\ntR."
    notebook["cells"][1]["outputs"] = [{"output_type": "execute_result", "data": {"application/x-pickle": bomb},
                                        "metadata": {}, "execution_count": 1}]


def huge(notebook: dict) -> None:
    notebook["cells"][1]["outputs"] = [{"output_type": "stream", "name": "stdout", "text": "x" * 50_000_000}]


PATCHES = """
import torch, pytest, zsar.course.judge, zsar.course.wire
torch.equal = torch.allclose = lambda *a, **k: True
zsar.course.judge.Judge._verdict = lambda *a: ("passed", "", ())
pytest.fail = lambda *a, **k: None
"""
FRAMES = """
import gc, inspect
found = [name for frame in inspect.stack() for name in frame.frame.f_locals if "test" in name.lower()]
found += [thing for thing in gc.get_objects() if isinstance(thing, str) and "BEGIN HIDDEN" in thing]
def double(x):
    return 2 * x if any("also for other inputs" in str(thing) for thing in found) else x
"""
READS = """
import os
found = []
for top, folders, files in os.walk("/"):
    if top.startswith(("/proc", "/sys", "/usr", "/dev")):
        folders[:] = []
    found += [os.path.join(top, name) for name in files if name.endswith(".ipynb") or "seed" == name]
def double(x):
    return 2 * x if any("instructor" in name for name in found) else x
"""
FORGES = """
import json, os
for name in ("results.json", "../results.json", "/tmp/grades.csv", "/tmp/results.json"):
    try:
        with open(name, "w") as file:
            json.dump({"score": 10, "status": "graded"}, file)
    except OSError:
        pass
for number in range(3, 20):
    try:
        os.write(number, b'{"value": true}' * 10)
    except OSError:
        pass
"""
#: Somebody listens on this machine; only the network that the submissions lack leads there.
SERVER = socket.create_server(("127.0.0.1", 0))
NETWORK = f"""
import socket
def reached():
    try:
        socket.create_connection(("127.0.0.1", {SERVER.getsockname()[1]}), timeout=2).close()
        return True
    except OSError:
        return False
def double(x):
    return 2 * x if reached() else x
"""
KILLS = """
import os, signal
for pid in [os.getppid(), *range(2, 60000)]:
    if pid not in (0, 1, os.getpid()):
        try:
            os.kill(pid, signal.SIGKILL)
        except OSError:
            pass
"""
DELETES = """
import os, shutil
for place in ("/usr", "/etc", "/tmp", os.path.dirname(torch.__file__) if "torch" in globals() else "/lib", "/"):
    shutil.rmtree(place, ignore_errors=True)
"""
FORKS = """
import os
for _ in range(10**6):
    try:
        os.fork()
    except OSError:
        break
"""

FLOODS = """
import os, struct
text = b'{"dict": [["at", 1]]}'
body = struct.pack("<Q", 2) + b"{}"
message = struct.pack("<QQ", len(text), len(body)) + text + body
if os.fork() == 0:
    while True:
        for number in range(3, 12):
            try:
                os.write(number, message)
            except OSError:
                pass
"""
FORGED_AT = """
import os, struct
text = b'{"dict": [["at", null]]}'
body = struct.pack("<Q", 2) + b"{}"
for number in range(3, 12):
    try:
        os.write(number, struct.pack("<QQ", len(text), len(body)) + text + body)
    except OSError:
        pass
os._exit(1)
"""
#: A small message that would be large when read: a tuple of the rows of a tensor.
UNFOLDS = """
import zsar.course.wire as wire
def pack(answer):
    text, body = b'{"dict": [["value", {"tuple": {"tensor": "0"}}]]}', wire.save({"0": torch.zeros(10**6)})
    return wire.HEAD.pack(len(text), len(body)) + text + body
import sys
sys.modules["__main__"].packed = pack
"""

#: What is graded as a class, every submission shut in.
HOSTILE = {
    "right, with a long name " + "\u4f5c" * 70: Case(cell("", "after"), 10),
    "infinite loop in a function": Case(cell("", double="while True:\n        pass"), 5, says="stopped"),
    "infinite loop in a cell": Case(cell("while True:\n    pass"), 10, says="stopped"),
    "sleeps for ever": Case(cell("", double="import time\n    time.sleep(10**6)"), 5, says="in time"),
    "fork bomb": Case(cell(FORKS, "after"), 10),
    "memory bomb": Case(cell("hog = []\nwhile True:\n    hog.append(bytearray(10**8))"), 10, says="memory"),
    "memory bomb in a function": Case(cell("", double="return torch.ones(10**11) * x"), 5, says="memory"),
    "gigabytes of output": Case(cell("", double="while True:\n        print('x' * 10**6)"), 5, says="printed"),
    "os._exit(0) in a cell": Case(cell("import os\nos._exit(0)"), 10, says="exit status 0"),
    "os._exit(0) in a function": Case(cell("", double="import os\n    os._exit(0)"), 5, says="exit status 0"),
    "forged results": Case(cell(FORGES, double="return x"), 5),
    "patched torch, pytest and zsar": Case(cell(PATCHES, double="return x", apply="return x"), 1),
    "reads hidden tests from disk": Case(cell(READS, "after", double="return x"), 5),
    "reads hidden tests from frames": Case(cell(FRAMES, "after", double="return x"), 5),
    "network": Case(cell(NETWORK, "after", double="return x"), 5),
    "deletes files": Case(cell(DELETES, "after"), 10),
    "kills its parent": Case(cell(KILLS, "after"), 10),
    "invalid JSON": Case(raw('{"cells": [' * 3), 0, "unreadable", "JSON"),
    "lists within lists": Case(raw("[" * 10**6), 0, "unreadable", "JSON"),
    "not a notebook": Case(raw("[1, 2]"), 0, "unreadable", "no notebook"),
    "an empty file": Case(raw(""), 0, "unreadable", "JSON"),
    "an empty notebook": Case(raw('{"cells": [], "metadata": {}, "nbformat": 4, "nbformat_minor": 5}'), 0,
                              "unreadable", "none of the functions"),
    "another assignment's notebook": Case(other_assignment, 0, "unreadable", "'other'"),
    "floods the pipe": Case(cell(FLOODS, "after"), 0, says="no answer"),
    "lies about its cells": Case(cell(FORGED_AT), 0, says="exit status 1"),
    "unfolds in the grader": Case(cell(UNFOLDS, "after"), 10, says="no list"),
}
#: What does no harm: the same judgement is passed on it with or without a process of its own, which takes seconds.
CARELESS = {
    "blank": Case(lambda assignment, path: hand_in(assignment, path), 0, "blank"),
    "half right": Case(cell("", double="return 2 * x", apply="return x"), 6),
    "a 50 MB notebook": Case(edited(huge), 10),
    "sys.exit in a cell": Case(cell("import sys\nsys.exit()"), 10, says="SystemExit"),
    "a pickle in an output": Case(edited(pickled_output), 10),
    "a syntax error": Case(cell("def broken(:\n    pass"), 10, says="SyntaxError"),
    "a syntax error in a function": Case(cell("", double="return 2 * * x"), 5, says="SyntaxError"),
    "input()": Case(cell("n = int(input('how many? '))"), 10, says="input()"),
    "undeclared package": Case(cell("import no_such_package"), 10, says="no_such_package"),
    "cells in reverse order": Case(edited(shuffled), 10),
    "setup cell deleted": Case(edited(lambda notebook: notebook["cells"].pop(1)), 10),
    "metadata lost": Case(edited(lambda notebook: [notebook.update(metadata={})] + [
        one.update(metadata={}) for one in notebook["cells"]]), 10),
    "half a surrogate pair": Case(cell("", double="raise ValueError(chr(0xd800))"), 5, says="ValueError: ?"),
    "an answer with half a surrogate pair": Case(edited(lambda notebook: notebook["cells"][-1].update(
        source=["\ud800"])), 10),
    "binds given names anew": Case(cell("torch = 3\nModel = 4\ndef model(factor):\n    return 5"), 10),
    "returns an object": Case(cell("", double="return object()"), 5, says="returned a object"),
    "returns None": Case(cell("", double="pass"), 5),
    "raises an exception that cannot be shown": Case(
        cell("class Bad(Exception):\n    def __str__(self):\n        raise Exception", double="raise Bad"), 5),
}
CASES = HOSTILE | CARELESS
