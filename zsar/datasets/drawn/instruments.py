"""Pictures that an instrument takes: land from a satellite, stained tissue under a microscope."""

import numpy as np

from zsar.datasets.drawn.canvas import Canvas, blend, each, grouped, jitter, paint, soft
from zsar.datasets.drawn.randomness import Stream, mix


def _tiles(stream: Stream, u: np.ndarray, v: np.ndarray) -> np.ndarray:
    """A random value in [0, 1) for each unit cell of the plane, [n, S, S]."""
    cell = np.floor(u).astype(np.int64) * 7919 + np.floor(v).astype(np.int64)
    bits = mix(cell.astype(np.uint64) + stream.bits(1, 1))
    return (bits >> np.uint64(40)).astype(np.float32) * np.float32(2.0**-24)


def _between(stream: Stream, dark: tuple, light: tuple, field: np.ndarray) -> np.ndarray:
    return blend(jitter(stream, dark, .1), jitter(stream, light, .1), field)


class Land:
    """What the views of one batch share: turned coordinates, clouds, fine noise and a patchwork of fields."""

    def __init__(self, canvas: Canvas, stream: Stream):
        self.u, self.v = canvas.turned(stream.uniform(0, np.pi))
        self.clouds, self.fine = canvas.clouds(stream), canvas.noise(stream, 40)
        self.bend = canvas.noise(stream, 4) - .5
        self.patches = _between(stream, (.3, .42, .2), (.66, .58, .36),
                                _tiles(stream, self.u * 2 + .3, self.v * 2 + .6))


def _crop(canvas, stream, land):
    furrows = .4 * (.5 + .5 * np.sin(land.u * each(stream.uniform(18, 30))))
    return blend(land.patches, jitter(stream, (.4, .3, .2), .1), furrows)


def _orchard(canvas, stream, land):
    image = _between(stream, (.5, .42, .26), (.6, .52, .34), land.clouds)
    paint(image, jitter(stream, (.14, .3, .12), .1), soft(np.cos(land.u * 20) * np.cos(land.v * 20) - .15, 12))
    return image


def _river(canvas, stream, land):
    image = land.patches * .6 + .4 * _between(stream, (.2, .36, .16), (.4, .5, .26), land.clouds)
    width = each(stream.uniform(.1, .22))
    bank = (width - np.abs(land.u + land.bend * 1.4)) * 16 + .5
    paint(image, jitter(stream, (.12, .25, .38), .08), np.clip(bank, 0, 1))
    return image


def _highway(canvas, stream, land):
    image, across = land.patches.copy(), np.abs(land.u + land.bend * .35)
    paint(image, jitter(stream, (.45, .45, .46), .08), np.clip((.11 - across) * 24 + .5, 0, 1))
    paint(image, jitter(stream, (.85, .85, .8), .08), np.clip((.015 - across) * 40 + .5, 0, 1) * .8)
    return image


def _roofs(stream, land, image, per_unit, depth, dark, light):
    k = each(stream.uniform(*per_unit))
    u, v = land.u * k, land.v * k
    inside = np.minimum(.34 - np.abs(np.mod(u, 1) - .5), depth - np.abs(np.mod(v, 1) - .5))
    paint(image, _between(stream, dark, light, _tiles(stream, u, v)), np.clip(inside * 24 / k + .5, 0, 1))
    return image


def _industrial(canvas, stream, land):
    image = _between(stream, (.4, .4, .4), (.55, .55, .53), land.clouds)
    return _roofs(stream, land, image, (1.3, 2.), .36, (.75, .75, .78), (.55, .6, .7))


def _residential(canvas, stream, land):
    image = _between(stream, (.25, .38, .2), (.45, .48, .35), land.clouds)
    return _roofs(stream, land, image, (4., 6.), .3, (.68, .3, .2), (.6, .5, .45))


LAND = {
    "annual crop land": _crop,
    "forest": lambda c, s, land: _between(s, (.05, .16, .08), (.18, .34, .16), .4 * land.clouds + .6 * land.fine),
    "pasture land": lambda c, s, land: _between(s, (.34, .5, .22), (.48, .62, .3), land.clouds),
    "highway or road": _highway,
    "industrial buildings": _industrial,
    "residential buildings": _residential,
    "river": _river,
    "sea or lake": lambda c, s, land: _between(s, (.03, .1, .24), (.1, .22, .36), land.clouds),
    "orchard": _orchard,
    "bare land": lambda c, s, land: _between(s, (.6, .48, .34), (.8, .7, .55), .7 * land.clouds + .3 * land.fine),
}


def satellite(canvas: Canvas, stream: Stream, names: np.ndarray) -> np.ndarray:
    """Land seen from above."""
    image = np.empty((len(stream), 3, canvas.size, canvas.size), np.float32)
    for name, index in grouped(names):
        own = stream[index]
        image[index] = LAND[name](canvas, own, Land(canvas, own.fork("land")))
    return image


def _nuclei(image, canvas, stream, count, spread, radius, oblong, darkness):
    for _ in range(count):
        x, y = each(stream.normal(spread)), each(stream.normal(spread))
        size, stretch = each(stream.uniform(*radius)), each(stream.uniform(*oblong))
        from_centre = np.sqrt(((canvas.x - x) / stretch)**2 + ((canvas.y - y) * stretch)**2)
        distance = from_centre - size * (1 + .4 * (canvas.noise(stream, 8) - .5))
        mask = np.clip(.5 - distance * 24, 0, 1) * each(stream.uniform(*darkness))
        paint(image, jitter(stream, (.4, .22, .52), .05), mask)


def tissue(canvas: Canvas, stream: Stream, names: np.ndarray) -> np.ndarray:
    """Stained tissue; "lymph node tumor tissue" has a few nuclei that are a little larger, darker and less regular."""
    image = blend(jitter(stream, (.88, .68, .8), .05), jitter(stream, (.95, .85, .92), .03), canvas.clouds(stream))
    _nuclei(image, canvas, stream, 12, .62, (.08, .14), (.8, 1.2), (.5, .8))
    tumor = np.flatnonzero(["tumor" in name for name in names])
    for index, radius, darkness in ((tumor, (.11, .17), (.55, .85)),
                                    (np.setdiff1d(np.arange(len(names)), tumor), (.08, .14), (.5, .8))):
        part = image[index]
        _nuclei(part, canvas, stream.fork("focus")[index], 4, .35, radius, (.7, 1.4), darkness)
        image[index] = part
    return image
