"""Figures that move: a slider that stays alive in the static page, and the curves of a training as it runs."""

import time
from collections.abc import Sequence

import ipywidgets
from matplotlib.figure import Figure

from zsar.figures import encode, show, training_curves
from zsar.trainer import History


def frame_slider(frames: Sequence[Figure], values: Sequence[str], label: str, *, start: int = 0,
                 width: int = 640, dpi: int = 75) -> ipywidgets.VBox:
    """A slider over ``values`` that shows one of ``frames``, one frame a value.

    The frames are JPEG pictures inside the widget's own state, and slider and picture are joined in the browser
    (``jslink``), so the figure works in the built book as it does in a notebook. ``width`` is in CSS pixels.

    Raises ValueError unless there is one value a frame.
    """
    if len(frames) != len(values) or not frames:
        raise ValueError(f"frame_slider: found {len(frames)} frames and {len(values)} values; expected one value a "
                         "frame, and at least one")
    pictures = [ipywidgets.Image(value=encode(frame, "jpeg", dpi), format="jpeg",
                                 layout=ipywidgets.Layout(max_width="100%", width=f"{width}px")) for frame in frames]
    stack = ipywidgets.Stack(pictures, selected_index=start)
    slider = ipywidgets.SelectionSlider(options=list(values), index=start, description=label,
                                        layout=ipywidgets.Layout(max_width="100%", width="420px"),
                                        style={"description_width": "initial"})
    ipywidgets.jslink((slider, "index"), (stack, "selected_index"))
    return ipywidgets.VBox([slider, stack])


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
