"""The canvas: pixel coordinates, smooth noise, colours and painting. Images are planar float32 [n, 3, S, S] in [0, 1].

Edges are smooth everywhere (signed distances, sigmoids), so a last-bit difference of a sine between two machines
moves a pixel by far less than one grey level.
"""

from collections.abc import Iterator
from functools import cache

import numpy as np

from zsar.datasets.drawn.randomness import Stream

COLOURS = {
    "red": (.82, .15, .15), "orange": (.93, .52, .12), "yellow": (.95, .83, .2), "green": (.22, .62, .25),
    "teal": (.12, .6, .6), "blue": (.18, .35, .8), "purple": (.5, .25, .65), "pink": (.93, .55, .68),
    "brown": (.5, .32, .18), "gray": (.52, .52, .54), "white": (.93, .93, .91), "black": (.12, .12, .14),
}
INK = (.08, .08, .09)


def grouped(names: np.ndarray) -> Iterator[tuple[str, np.ndarray]]:
    """Each distinct name with the indices of the pictures that bear it."""
    for name in dict.fromkeys(names):
        yield name, np.flatnonzero(names == name)


def ramp(y: np.ndarray, edge: np.ndarray | float, slope: float = 14.0) -> np.ndarray:
    """0 above ``edge``, 1 below it, with a soft step between."""
    return np.clip((y - edge) * slope + .5, 0, 1)


def soft(z: np.ndarray, slope: float = 6.0) -> np.ndarray:
    """A smooth step: 0 for z well below zero, 1 well above."""
    return 1 / (1 + np.exp(-slope * z))


def each(values: np.ndarray) -> np.ndarray:
    """[n] values as [n, 1, 1], to meet a field."""
    return values[:, None, None]


def as_image(colour: np.ndarray) -> np.ndarray:
    """[n, 3] colours (or [3]) as images of one colour."""
    return np.asarray(colour, np.float32)[..., None, None]


def blend(a: np.ndarray, b: np.ndarray, field: np.ndarray) -> np.ndarray:
    """Images: ``a`` where the field [n, S, S] is 0, ``b`` where it is 1."""
    return a + (b - a) * field[:, None]


def paint(image: np.ndarray, colour: np.ndarray, mask: np.ndarray) -> None:
    """Lay ``colour`` (an image or as_image) over ``image`` in place, as opaque as ``mask`` [n, S, S]."""
    image += (colour - image) * mask[:, None]


def jitter(stream: Stream, colour: tuple | np.ndarray, sd: float = .06) -> np.ndarray:
    """Images of one colour each, near ``colour`` ([3], or [n, 3] for one a picture)."""
    return as_image(np.clip(np.asarray(colour, np.float32) + stream.normal(sd, 3), 0, 1))


def named_colours(names: np.ndarray) -> np.ndarray:
    """[n, 3] of n colour names."""
    return np.array([COLOURS[name] for name in names], np.float32)


@cache
def canvas(size: int) -> "Canvas":
    """The canvas of ``size`` pixels, made once."""
    return Canvas(size)


class Canvas:
    """A square of ``size`` pixels; ``x`` and ``y`` [1, S, S] run from -1 to 1, right and down."""

    def __init__(self, size: int):
        self.size = size
        centres = ((np.arange(size) + .5) / size * 2 - 1).astype(np.float32)
        self.x = np.ascontiguousarray(np.broadcast_to(centres[None, None, :], (1, size, size)))
        self.y = np.ascontiguousarray(np.broadcast_to(centres[None, :, None], (1, size, size)))
        self._smoothing: dict[int, np.ndarray] = {}

    def noise(self, stream: Stream, cells: int) -> np.ndarray:
        """Value noise [n, S, S] in [0, 1]: ``cells`` x ``cells`` random values, smoothly interpolated."""
        if cells not in self._smoothing:
            t = np.linspace(0, cells - 1, self.size)
            left = np.clip(t.astype(int), 0, cells - 2)
            weight = (t - left)**2 * (3 - 2 * (t - left))
            matrix = np.zeros((self.size, cells), np.float32)
            matrix[np.arange(self.size), left] = 1 - weight
            matrix[np.arange(self.size), left + 1] = weight
            self._smoothing[cells] = matrix
        matrix = self._smoothing[cells]
        return matrix @ stream.uniform(0, 1, cells, cells) @ matrix.T

    def clouds(self, stream: Stream) -> np.ndarray:
        """Noise of four octaves, [n, S, S] in [0, 1]."""
        octaves = ((3, .45), (6, .3), (12, .15), (24, .1))
        return sum(np.float32(weight) * self.noise(stream, cells) for cells, weight in octaves)

    def grain(self, stream: Stream) -> np.ndarray:
        """Independent uniform values a pixel, [n, S, S]."""
        return stream.uniform(0, 1, self.size, self.size)

    def turned(self, angle: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Coordinates turned by ``angle`` [n], each [n, S, S]."""
        c, s = each(np.cos(angle)), each(np.sin(angle))
        return c * self.x + s * self.y, c * self.y - s * self.x

    def pose(self, stream: Stream, scale: tuple[float, float], turn: float, shift: float, flip: bool = True
             ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """A random pose: object coordinates u, v [n, S, S] and the scale [n]. ``turn`` is a deviation in radians."""
        size = stream.uniform(*scale)
        room = np.clip(1 - size, 0, 1)
        reach = np.minimum(room * .9 + .05, shift + room * .45)
        dx, dy = stream.uniform(-1, 1) * reach, stream.uniform(-1, 1) * reach
        x, y = (self.x - each(dx)) / each(size), (self.y - each(dy)) / each(size)
        angle = stream.normal(turn)
        c, s = each(np.cos(angle)), each(np.sin(angle))
        mirror = each(np.where(stream.chance(.5 if flip else 0), np.float32(-1), np.float32(1)))
        return (c * x + s * y) * mirror, c * y - s * x, size

    def to_pixels(self, distance: np.ndarray, scale: np.ndarray) -> np.ndarray:
        """Object units to pixels."""
        return distance * each(scale * np.float32(self.size / 2))
