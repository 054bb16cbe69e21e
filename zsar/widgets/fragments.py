"""What a state of a figure shows, as HTML that needs no script: pictures, tables of bars, a point on its curve.

Everything has its words in it: pictures an alt text, bars their numbers. Names that come from data are escaped.
"""

import base64
import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import torch
from markupsafe import Markup
from PIL import Image

from zsar.html import renderer
from zsar.results import Estimate

render = renderer(Path(__file__).parent / "templates")


class Picture(NamedTuple):
    """An image [3, H, W] in [0, 1] with the text below it, and what it shows for those who cannot see it.

    ``kind``: ``"png"`` keeps every grey level, ``"jpeg"`` is smaller.
    """

    image: torch.Tensor
    caption: str
    alt: str
    kind: str = "png"

    @property
    def address(self) -> str:
        """The file itself, as an address."""
        pixels = (255 * self.image.detach().cpu().clamp(0, 1)).round().byte().permute(1, 2, 0).numpy()
        file = io.BytesIO()
        options = {"optimize": True} if self.kind == "png" else {"quality": 90, "subsampling": 0}
        Image.fromarray(pixels).save(file, self.kind, **options)
        return f"data:image/{self.kind};base64,{base64.b64encode(file.getvalue()).decode()}"


class Bar(NamedTuple):
    """A value from 0 to 100 that is drawn as a bar, with its 95 % interval where it has one."""

    value: float
    low: float | None = None
    high: float | None = None

    @classmethod
    def of(cls, found: Estimate) -> "Bar":
        """The bar of an estimate."""
        return cls(found.value, found.low, found.high)


class Change(NamedTuple):
    """A difference in points, with its 95 % interval; shown as a number with its sign."""

    value: float
    low: float
    high: float

    def __str__(self) -> str:
        return f"{self.signed(self.value)} ({self.interval})"

    @property
    def interval(self) -> str:
        """From where to where."""
        return f"{self.signed(self.low)} to {self.signed(self.high)}"

    @staticmethod
    def signed(points: float) -> str:
        """One digit behind the point, no minus zero."""
        return f"{round(points, 1) + 0.0:+.1f}".replace("-", "\u2212")


def pictures(shown: Sequence[Picture]) -> Markup:
    """Pictures side by side, enlarged so that single pixels can be seen; on a narrow screen they are broken into lines.
    """
    return Markup(render("pictures.html", pictures=shown))


def bars(columns: Sequence[str], rows: Mapping[str, Sequence[Bar | Change | str]], bold: str = "") -> Markup:
    """A table with a line for each of ``rows``, by its name: a bar with its number, a change or a text a column.

    ``columns`` begin with the heading of the names; the row called ``bold`` is set in bold.
    """
    return Markup(render("bars.html", columns=columns, rows=rows, bold=bold))


def tradeoff_line(points: "Mapping[str, tuple[Estimate, Estimate]]", at: str) -> Markup:
    """The curve through ``points``, (clean, robust) by name, with the point ``at`` set off and a cross for its
    intervals; the dotted line joins the first and the last.
    """
    clean, robust = zip(*points.values(), strict=True)
    spans = [_span(values) for values in (clean, robust)]
    places = {name: (_place(c.value, spans[0], 48, 312), _place(r.value, spans[1], 186, 12))
              for name, (c, r) in points.items()}
    here = points[at]
    cross = [[_place(bound, span, *room) for bound in (found.low, found.high)]
             for found, span, room in zip(here, spans, ((48, 312), (186, 12)), strict=True)]
    ticks = [[(value, _place(value, span, *room)) for value in range(span[0], span[1] + 1, (span[1] - span[0]) // 2)]
             for span, room in zip(spans, ((48, 312), (186, 12)), strict=True)]
    return Markup(render("tradeoff.html", places=places, at=at, cross=cross, ticks=ticks,
                         clean=f"{here[0].value:.1f}", robust=f"{here[1].value:.1f}"))


def _span(values: Sequence[Estimate]) -> tuple[int, int]:
    """The whole tens around all values and their intervals, an even number of them, and never beyond 0 and 100."""
    low = 10 * int(min(value.low for value in values) // 10)
    high = 10 * int(-(-max(value.high for value in values) // 10))
    missing = 20 if high == low else (high - low) % 20
    return (low, high + missing) if high + missing <= 100 else (high - missing - (high - low), high)


def _place(value: float, span: tuple[int, int], start: float, end: float) -> float:
    """Where a value of ``span`` lies between ``start`` and ``end``."""
    return round(start + (value - span[0]) / (span[1] - span[0]) * (end - start), 1)
