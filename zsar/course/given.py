"""What the notebooks of assignments import: objects that can be made anew elsewhere, and the seed of hidden inputs."""

import functools
import hashlib
import os
import weakref
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")
SEED = "ZSAR_COURSE_SEED"
#: id of an object -> the object, as long as it lives, the name of its factory, the arguments.
_MADE: dict[int, tuple[weakref.ref, str, tuple]] = {}


def given(factory: Callable[..., T]) -> Callable[..., T]:
    """A decorator of functions that make what an assignment gives, such as a classifier, from strings and numbers.

    A test that hands such an object to a student's function sends the name of the factory and its arguments; the
    process of the student makes the object anew, from the assignment's own cells, for this one call. So no object need
    cross between the processes, and what one call does to it no other call sees. What is made must be an instance of a
    class, such as a model.
    """
    @functools.wraps(factory)
    def make(*arguments):
        made = factory(*arguments)
        key = id(made)
        _MADE[key] = (weakref.ref(made, lambda gone: _MADE.pop(key, None)), factory.__name__, arguments)
        return made

    make.is_given = True
    return make


def recipe_of(thing: object) -> tuple[str, tuple] | None:
    """The factory and the arguments with which ``thing`` was made, if a ``given`` factory made it."""
    found = _MADE.get(id(thing))
    return found[1:] if found and found[0]() is thing else None


def remotely(function: Callable[..., T]) -> Callable[..., T]:
    """A function of the assignment, to be run where the student's functions run: in a notebook, right here.

    When work is graded, that is another process. A test uses it where what is to be seen stays in that process, such
    as a gradient left behind in a model; the student's functions may be among the arguments.
    """
    return function


def hidden_seed(name: str) -> int:
    """The seed of the hidden inputs called ``name``, below 2**31: it depends on ``$ZSAR_COURSE_SEED``, which the
    instructor keeps to herself. Without it, the seed is that of the public repository.
    """
    secret = os.environ.get(SEED, "")
    return int.from_bytes(hashlib.sha256(f"{secret}\n{name}".encode()).digest()[:4], "big") >> 1
