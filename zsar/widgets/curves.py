"""The curves of a training, drawn again as it runs."""

import time

from zsar.figures import show, training_curves
from zsar.trainer import History


class LiveCurves:
    """A ``watch`` of ``zsar.adapt.adapt``: in a notebook, loss and held-out accuracy in one figure that grows.

    The figure is drawn again at most every ``every`` seconds, but always when held-out images have been looked at, and
    every training ends with that: the last state is always drawn. Another training begins another figure. Where there
    is no notebook, nothing happens.
    """

    def __init__(self, every: float = 2.0):
        self.every = every
        self._history, self._handle, self._looks, self._drawn = None, None, 0, 0.0

    def __call__(self, history: History) -> None:
        """Draw the history, if it is time to."""
        if not _in_notebook():
            return
        if history is not self._history:
            self._history, self._handle, self._looks = history, None, 0
        due = time.monotonic() - self._drawn >= self.every or len(history.held_out) > self._looks
        if self._handle is None or due:
            self._draw(history)
            self._drawn, self._looks = time.monotonic(), len(history.held_out)

    def _draw(self, history: History) -> None:
        from IPython.display import display

        picture = show(training_curves(history), dpi=80)
        if self._handle is None:
            self._handle = display(picture, display_id=True)
        else:
            self._handle.update(picture)


def _in_notebook() -> bool:
    """Whether this runs in a Jupyter kernel; IPython in a terminal can show no picture."""
    from IPython import get_ipython

    return getattr(get_ipython(), "kernel", None) is not None
