"""Runs the cells of a notebook as far as they go, then calls the functions that they define.

A cell runs statement by statement, so that one that fails takes nothing else with it; statements that failed are tried
once more at the end, when names that moved cells define later are there.
"""

import ast
import builtins
import contextlib
import io
import linecache
import signal
import threading
import time
import traceback
from collections.abc import Callable, Iterator, Sequence

SECONDS = 10.0  # of the processor, of one cell and of one call of a student's function
ALL_CELLS_SECONDS = 60.0


class CellTimeout(BaseException):
    """A cell took too long; not an Exception, so that ``except Exception`` does not swallow it."""


class Kernel:
    """A namespace in which notebooks run: first the assignment's own ``given`` cells, then a student's.

    A cell or a call of the student's is stopped after ``seconds`` of the processor.
    """

    def __init__(self, given: Sequence[str], seconds: float = SECONDS):
        self.seconds = seconds
        self.given: dict = {"__name__": "__main__", "__builtins__": builtins, "input": _no_input}
        with contextlib.redirect_stdout(io.StringIO()):  # the setup cell prints the version
            for number, source in enumerate(given):
                for code in statements(source, f"<given {number}>"):
                    exec(code, self.given)
        self.names = dict(self.given)  # the student's own: what cells bind anew does not reach what is given

    def run(self, cells: Sequence[tuple[int, str]], begin: Callable[[int], None] = lambda number: None) -> list[dict]:
        """Run numbered cells; what failed, as {cell, error}. ``begin`` is told the number of each cell before."""
        failures: list[tuple[int, str]] = []
        again = []
        start = time.process_time()
        for number, source in cells:
            begin(number)
            try:
                codes = statements(source, f"<cell {number}>")
            except SyntaxError as error:
                failures.append((number, f"{type(error).__name__} in line {error.lineno}: {error.msg}"))
                continue
            failures += self._try(number, codes, start, again)
        for number, code in again:
            begin(number)
            failures += self._try(number, [code], start)
        return [{"cell": number, "error": error} for number, error in sorted(failures)]

    def _try(self, number: int, codes: Sequence, start: float, again: list | None = None) -> list[tuple[int, str]]:
        """Run the statements of a cell; what failed. One that lacks a name is put into ``again``, if that is given."""
        failed = []
        seconds = max(1.0, min(self.seconds, ALL_CELLS_SECONDS - (time.process_time() - start)))
        with limited(seconds):
            for code in codes:
                try:
                    exec(code, self.names)
                except CellTimeout:
                    return [*failed, (number, f"stopped after {seconds:.3g} s")]
                except BaseException as error:  # SystemExit and KeyboardInterrupt too: the next has its chance
                    if again is not None and isinstance(error, NameError):
                        again.append((number, code))
                    else:
                        failed.append((number, f"{type(error).__name__}: {_text(error)}"[:500]))
        return failed

    def function(self, name: str, given: bool = False) -> Callable | None:
        """What a name stands for, if that can be called: among the assignment's own names, or the student's."""
        found = (self.given if given else self.names).get(name)
        return found if callable(found) else None

    def answer(self, request: dict) -> dict:
        """Call a function as {function, given, arguments, named} says: {value} or {error}."""
        name = request["function"]
        function = self.function(name, request["given"])
        if function is None:
            return failure("MissingFunction", f"no function {name} in the notebook")
        try:
            with limited(self.seconds):
                return {"value": function(*request["arguments"], **request["named"])}
        except CellTimeout:
            return failure("Timeout", f"stopped after {self.seconds:g} s")
        except BaseException as error:  # SystemExit too
            return {"error": describe(error)}

    def special(self, name: str, inner: object) -> object:
        """What a message means by a name: an object that the assignment gives, made anew, or a student's function."""
        if name == "given":
            factory, arguments = inner
            return self.given[factory](*arguments)
        if name == "function":
            return self.function(inner)
        raise ValueError(name)


def failure(kind: str, message: str) -> dict:
    """The answer to a call that came to nothing, in the form of ``describe``."""
    return {"error": {"type": kind, "message": message, "trace": []}}


def statements(source: str, file: str) -> list:
    """The compiled statements of a cell, whose magics are turned into Python as IPython does. Raises SyntaxError."""
    from IPython.core.inputtransformer2 import TransformerManager

    try:
        source = TransformerManager().transform_cell(source)
        linecache.cache[file] = (len(source), None, source.splitlines(keepends=True), file)
        codes = [compile(ast.Module([node], []), file, "exec", dont_inherit=True)
                 for node in ast.parse(source, file).body]
    except (ValueError, RecursionError, MemoryError) as error:  # null bytes, brackets within brackets
        raise SyntaxError(f"cannot be read ({type(error).__name__})") from error
    return codes


def describe(error: BaseException, own: str = "<cell ") -> dict:
    """An exception as {type, message, trace}: of the trace, the lines of the student's own cells."""
    frames = [frame for frame in traceback.extract_tb(error.__traceback__) if frame.filename.startswith(own)]
    lines = [f"{frame.filename.strip('<>')}, line {frame.lineno}, in {frame.name}: {frame.line}" for frame in frames]
    return {"type": type(error).__name__[:100], "message": _text(error)[:1000],
            "trace": [line[:300] for line in lines[-5:]]}


def _text(error: BaseException) -> str:
    try:
        return str(error)
    except BaseException:  # an exception of the student's whose __str__ fails
        return ""


def _no_input(prompt: object = "") -> str:
    raise EOFError("input() has nobody to ask when work is graded")


@contextlib.contextmanager
def limited(seconds: float) -> Iterator[None]:
    """Raises CellTimeout inside after ``seconds`` of the processor, so that a busy machine takes nobody's points.

    Only where signals can be had: in the main thread of a Unix process.
    """
    if threading.current_thread() is not threading.main_thread() or not hasattr(signal, "setitimer"):
        yield
        return

    def stop(number: int, frame: object) -> None:
        raise CellTimeout

    before = signal.signal(signal.SIGPROF, stop)
    signal.setitimer(signal.ITIMER_PROF, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)
        signal.signal(signal.SIGPROF, before)
