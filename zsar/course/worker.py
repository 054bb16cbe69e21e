"""The student's process: ``python -m zsar.course.worker`` runs the cells it is sent and calls what they define.

It knows neither tests nor expected values, and whatever it answers is only data to the grader. Requests come on its
standard input and answers go to its standard output, which the student's own code no longer reaches under those names.
"""

import os
import sys
from typing import BinaryIO

NOBODY = 65534


def main() -> None:
    """Serves requests until the grader closes the pipe.

    Arguments: bytes of memory, bytes of a file, number of processes (-1: as many as the system allows), and the user
    to become (-1: stay who you are).
    """
    memory, file, processes, user = map(int, sys.argv[1:])
    requests, answers = os.fdopen(os.dup(0), "rb"), os.fdopen(os.dup(1), "wb")
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    os.dup2(2, 1)  # what is printed goes where errors go
    if user >= 0:
        os.setgroups([])
        os.setgid(user)
        os.setuid(user)
    _limit(memory, file, processes)
    serve(requests, answers)


def serve(requests: BinaryIO, answers: BinaryIO) -> None:
    """The first request is {given, cells, seconds}, then come calls; between cells the next one's number is told."""
    from zsar.course import wire
    from zsar.course.kernel import Kernel, describe

    def say(answer: dict) -> None:
        answers.write(packed(answer))
        answers.flush()

    first = wire.read(requests)
    kernel = Kernel(first["given"], first["seconds"])
    say({"ready": True})
    failures = kernel.run(first["cells"], begin=lambda number: say({"at": number}))
    say({"failures": failures})
    while True:
        try:
            request = wire.read(requests, kernel.special)
        except EOFError:
            return
        except Exception as error:  # what is given could not be made, after what the cells did to the libraries
            say({"error": describe(error)})
            continue
        say(kernel.answer(request))


def packed(answer: dict) -> bytes:
    """An answer as a message; a value that cannot be sent becomes an error that says so."""
    from zsar.course import wire
    from zsar.course.kernel import failure

    try:
        return wire.pack(answer)
    except Exception as error:  # objects of the student's can raise anything when looked at
        message = f"the function returned {error}"[:500] if isinstance(error, wire.WireError) else type(error).__name__
        return wire.pack(failure("ReturnedValue", message))


def _limit(memory: int, file: int, processes: int) -> None:
    """Limits that the kernel of the system keeps; the grader watches besides."""
    try:
        import resource
    except ImportError:  # Windows
        return
    limits = {"RLIMIT_AS": memory, "RLIMIT_FSIZE": file, "RLIMIT_NPROC": processes, "RLIMIT_CORE": 0,
              "RLIMIT_NOFILE": 256}
    for name, value in limits.items():
        if value < 0:
            continue
        try:
            resource.setrlimit(getattr(resource, name), (value, value))
        except (AttributeError, ValueError, OSError):  # not on this system, or a lower limit holds already
            continue


if __name__ == "__main__":
    main()
