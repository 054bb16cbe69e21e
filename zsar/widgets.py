"""Interactive figures that stay alive in the static page: every state is in the page, no kernel is asked."""

from collections.abc import Sequence

import ipywidgets
from matplotlib.figure import Figure

from zsar.figures import encode


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
