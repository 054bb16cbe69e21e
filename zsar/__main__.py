"""``python -m zsar``: every command is a module's ``add_arguments(parser)`` and ``run(args)``."""

import argparse
import importlib
import os
import sys
import warnings
from collections.abc import Sequence
from typing import NoReturn

from zsar.errors import ChecksFailedError, ZsarError

COMMANDS = {
    "attack": ("zsar.photo", "attack a photograph of your own"),
    "adapt": ("zsar.adapt", "make a CLIP robust"),
    "bench": ("zsar.bench.command", "the speed of attacks and training steps, beside that of other programs"),
    "bench-evaluate": ("zsar.bench.evaluation", "images x steps a second of an evaluation, and what feeds it"),
    "bench-input": ("zsar.bench.loaders", "images a second of the loaders, beside torchvision's"),
    "course": ("zsar.course.command", "assignments: release them, grade submissions"),
    "data": ("zsar.data", "the sixteen real datasets: list, fetch, verify, show, pack"),
    "drawn-grid": ("zsar.grid", "losses x methods x seeds on the drawn world: hours"),
    "evaluate": ("zsar.evaluate", "clean and robust accuracy on many datasets"),
    "reproduce": ("zsar.reproduce", "methods x datasets x attacks x seeds: the whole table, resumable"),
    "results": ("zsar.results_cli", "a store of results: show, compare, merge, export, report"),
    "pretrain-drawn": ("zsar.pretrain", "train the drawn CLIP again"),
}


class _Parser(argparse.ArgumentParser):
    """Reports a wrong command line as any other bad input: in one line."""

    def error(self, message: str) -> NoReturn:
        raise ZsarError(f"{message}; see {self.prog} --help")


def _parser(asked_for: list[str]) -> _Parser:
    parser = _Parser(prog="python -m zsar", description="Zero-shot adversarial robustness of CLIP", allow_abbrev=False)
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for name, (module, summary) in COMMANDS.items():
        command = commands.add_parser(name, help=summary, description=summary, allow_abbrev=False)
        if asked_for == [name]:  # import only what is asked for: --help need not wait for torch
            module = importlib.import_module(module)
            module.add_arguments(command)
            command.set_defaults(run=module.run)
    return parser


def _show_warning(message: Warning | str, *where: object) -> None:
    """In one line, without the place in the code that means nothing to a user."""
    print(f"zsar: warning: {' '.join(str(message).split())}", file=sys.stderr)


def main(argv: Sequence[str] | None = None) -> int:
    """Exit status: 0 done, 1 a check failed, 2 bad input (one line on stderr), 130 interrupted, 141 nobody reads on."""
    argv = list(sys.argv[1:] if argv is None else argv)
    try:
        args = _parser(argv[:1]).parse_args(argv)
        if empty := [name for name, value in vars(args).items() if value == ""]:  # an unset variable of the shell
            raise ZsarError(f"--{empty[0].replace('_', '-')} is empty: give it a value, or leave it out")
        with warnings.catch_warnings():
            warnings.showwarning = _show_warning
            if report := args.run(args):
                print(report, flush=True)
    except ChecksFailedError as failed:
        print(failed, flush=True)
        return 1
    except ZsarError as error:
        if error.report:
            print(error.report, flush=True)
        print(f"zsar: error: {' '.join(str(error).split())}", file=sys.stderr)
        return 2
    except KeyboardInterrupt as interrupt:
        print(": ".join(["zsar: interrupted", *map(str, interrupt.args)]), file=sys.stderr)
        return 130
    except BrokenPipeError:  # whoever reads, such as head, has seen enough; Python would flush once more at its end
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 141
    return 0


if __name__ == "__main__":
    sys.exit(main())
