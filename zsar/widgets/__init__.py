"""Figures that move: with a kernel they are ipywidgets, in the built page a small script of the book moves them.

``LiveFigure`` shows a state for each setting of its controls, ``GuessFigure`` asks which of two pictures it was,
``LiveCurves`` follows a training. What a state shows is put together by ``pictures``, ``bars`` and ``tradeoff_line``,
and for the figures of the book by functions that return a whole state.
"""

from zsar.widgets.curves import LiveCurves
from zsar.widgets.fragments import Bar, Change, Picture, bars, pictures, tradeoff_line
from zsar.widgets.guess import GuessFigure, Round
from zsar.widgets.live import LiveFigure, Menu, Slider, State
from zsar.widgets.states import attack_state, interpolation_state, prompt_state, template_state

__all__ = ["Bar", "Change", "GuessFigure", "LiveCurves", "LiveFigure", "Menu", "Picture", "Round", "Slider", "State",
           "attack_state", "bars", "interpolation_state", "pictures", "prompt_state", "template_state", "tradeoff_line"]
