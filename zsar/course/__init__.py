"""Assignments: one instructor notebook each, from which the student's is released, and by which work is graded.

In order of knowledge: ``given`` (the three names that notebooks import), ``assignment`` (an instructor notebook, read),
``wire`` (values as bytes, without pickle), ``kernel`` (runs the cells of a notebook, then calls its functions),
``worker`` (a kernel at the end of a pipe), ``sandbox`` (a process that can do no harm), ``session`` (the student's
functions as the tests see them), ``judge`` (one submission), ``submissions`` (whose work lies where), ``written``
(answers for a human), ``feedback`` (a page a student), ``grade`` (a class), ``release`` and ``gradescope``.
"""

from zsar.course.given import given, hidden_seed, remotely

__all__ = ["given", "hidden_seed", "remotely"]
