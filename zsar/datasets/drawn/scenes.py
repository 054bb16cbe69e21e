"""Landscapes and rooms, by day, at sunset and at night."""

import numpy as np

from zsar.datasets.drawn.backgrounds import ground
from zsar.datasets.drawn.canvas import Canvas, as_image, blend, each, grouped, jitter, paint, ramp
from zsar.datasets.drawn.icons import SHAPES
from zsar.datasets.drawn.randomness import Stream


def _horizon(stream: Stream) -> np.ndarray:
    return each(stream.fork("horizon").uniform(-.25, .25))


def _skyline(canvas: Canvas, stream: Stream, cells: int, height: float) -> np.ndarray:
    """A random profile [n, 1, S], about zero."""
    return (canvas.noise(stream.fork("skyline"), cells)[:, :1, :] - .5) * height


def _full(canvas: Canvas, stream: Stream, mask: np.ndarray) -> np.ndarray:
    return np.broadcast_to(mask, (len(stream), canvas.size, canvas.size))


def _rock(canvas: Canvas, stream: Stream, dark: tuple, light: tuple) -> np.ndarray:
    return blend(jitter(stream, dark), jitter(stream, light), canvas.clouds(stream))


def _beach(canvas, stream, image):
    horizon = _horizon(stream)
    paint(image, ground("water", canvas, stream), ramp(canvas.y, horizon))
    slope = each(np.where(stream.chance(.5), -.2, .2))
    paint(image, ground("sand", canvas, stream), ramp(canvas.y, horizon + .4 + slope * canvas.x))


def _sea(canvas, stream, image):
    paint(image, ground("water", canvas, stream), ramp(canvas.y, _horizon(stream)))


def _island(canvas, stream, image):
    horizon = _horizon(stream)
    hump = _full(canvas, stream, (canvas.x / .6)**2 + ((canvas.y - horizon) / .35)**2)
    paint(image, ground("grass", canvas, stream), np.clip((1 - hump) * 5, 0, 1))
    paint(image, ground("water", canvas, stream), ramp(canvas.y, horizon))


def _desert(canvas, stream, image):
    edge = _horizon(stream) + _skyline(canvas, stream, 5, .5)
    paint(image, ground("sand", canvas, stream), ramp(canvas.y, edge))


def _field(canvas, stream, image):
    paint(image, ground("grass", canvas, stream), ramp(canvas.y, _horizon(stream)))


def _snowfield(canvas, stream, image):
    image *= np.float32(.6)
    image += np.float32(.3)
    edge = _horizon(stream) + _skyline(canvas, stream, 4, .4)
    paint(image, ground("snow", canvas, stream), ramp(canvas.y, edge))


def _mountain(canvas, stream, image):
    edge = _horizon(stream) - .3 + _skyline(canvas, stream, 7, 1.4)
    paint(image, _rock(canvas, stream, (.35, .36, .42), (.6, .6, .65)), ramp(canvas.y, edge, 10))
    cap = ramp(canvas.y, edge, 10) * ramp(-canvas.y, .3 + _skyline(canvas, stream, 7, .3), 10)
    paint(image, as_image((.95, .95, .96)), cap * .8)
    paint(image, ground("grass", canvas, stream), _full(canvas, stream, ramp(canvas.y, .6)))


def _volcano(canvas, stream, image):
    x = canvas.x - each(stream.uniform(-.2, .2))
    cone = ramp(canvas.y, np.maximum(np.abs(x) * 1.4 - .75, -.45), 14)
    paint(image, _rock(canvas, stream, (.2, .16, .16), (.42, .34, .32)), cone)
    glow = np.exp(-(x / .14)**2 - ((canvas.y + .5) / .3)**2)
    paint(image, jitter(stream, (.95, .4, .1)), np.clip(glow * 1.3, 0, 1))


def _canyon(canvas, stream, image):
    strata = .5 + .5 * np.sin(canvas.y * 18 + 5 * canvas.clouds(stream))
    edge = _horizon(stream) - .2 + _skyline(canvas, stream, 9, 1.2)
    paint(image, blend(jitter(stream, (.6, .28, .12)), jitter(stream, (.85, .55, .3)), strata),
          ramp(canvas.y, edge, 10))


def _waterfall(canvas, stream, image):
    paint(image, _rock(canvas, stream, (.2, .25, .2), (.45, .5, .42)), _full(canvas, stream, ramp(canvas.y, -.5)))
    x = canvas.x - each(stream.uniform(-.4, .4))
    streaks = .75 + .25 * np.sin(x * 40 + 6 * canvas.noise(stream, 9))
    paint(image, as_image((.9, .95, 1.)), np.clip((.28 - np.abs(x)) * 12, 0, 1) * ramp(canvas.y, -.5) * streaks)
    paint(image, ground("water", canvas, stream), _full(canvas, stream, ramp(canvas.y, .65)))


def _forest(canvas, stream, image):
    image[:] = _rock(canvas, stream, (.08, .2, .07), (.3, .5, .2))
    for _ in range(7):
        offset, width = each(stream.uniform(-1, 1)), each(stream.uniform(.03, .09))
        trunk = np.clip((width - np.abs(canvas.x - offset)) * 24 + .5, 0, 1)
        paint(image, jitter(stream, (.3, .2, .12)), _full(canvas, stream, trunk))
    floor = blend(jitter(stream, (.15, .4, .12)), jitter(stream, (.45, .65, .25)), canvas.noise(stream, 30))
    leaves = .8 * ramp(canvas.y, .65) + .35 * ramp(canvas.noise(stream, 24), .62, 20)
    paint(image, floor, np.clip(leaves, 0, 1))


def _houses(canvas, stream, image, at_the_sides):
    windows = (np.mod(canvas.x * 9, 1) < .5) & (np.mod(canvas.y * 9, 1) < .5)
    windows = _full(canvas, stream, windows.astype(np.float32) * .7)
    for _ in range(8):
        offset = stream.uniform(-1, 1)
        if at_the_sides:
            offset = np.sign(offset) * (.45 + .5 * np.abs(offset))
        width, roof = each(stream.uniform(.1, .25)), each(stream.uniform(-.8, .2))
        wall = np.clip((width - np.abs(canvas.x - each(offset))) * 24, 0, 1) * ramp(canvas.y, roof, 24)
        paint(image, blend(jitter(stream, (.4, .4, .45), .12), jitter(stream, (.85, .8, .5)), windows),
              wall * ramp(-canvas.y, -.75, 24))


def _city(canvas, stream, image):
    _houses(canvas, stream, image, at_the_sides=False)
    paint(image, _rock(canvas, stream, (.25, .25, .27), (.4, .4, .42)), _full(canvas, stream, ramp(canvas.y, .72)))


def _street(canvas, stream, image):
    _houses(canvas, stream, image, at_the_sides=True)
    road = np.clip((.2 + .8 * np.clip(canvas.y, 0, 1) - np.abs(canvas.x)) * 24, 0, 1) * ramp(canvas.y, 0)
    paint(image, _rock(canvas, stream, (.25, .25, .27), (.4, .4, .42)), _full(canvas, stream, road))
    dashes = (np.abs(canvas.x) < .05) & (np.mod(canvas.y * 4, 1) < .5) & (canvas.y > .05)
    paint(image, jitter(stream, (.9, .85, .3)), _full(canvas, stream, dashes.astype(np.float32)))


def _lake(canvas, stream, image):
    horizon = _horizon(stream)
    trees = blend(jitter(stream, (.1, .3, .12)), jitter(stream, (.3, .5, .25)), canvas.noise(stream, 20))
    paint(image, trees, ramp(canvas.y, horizon - .35 + _skyline(canvas, stream, 6, .5)))
    paint(image, ground("water", canvas, stream) * np.float32(.8) + np.float32(.1), ramp(canvas.y, horizon + .1))


def _cave(canvas, stream, image):
    x = canvas.x - each(stream.uniform(-.3, .3))
    radius = np.sqrt(x**2 + (canvas.y - _horizon(stream))**2) + (canvas.clouds(stream) - .5) * .7
    rock = _rock(canvas, stream, (.08, .06, .05), (.35, .28, .22))
    paint(image, rock, np.clip((radius - .42) * 9 + .5, 0, 1))


def _bedroom(canvas, stream, image):
    wall = as_image(stream.uniform(.5, .9, 3)) * (.9 + .2 * canvas.clouds(stream)[:, None])
    window = _full(canvas, stream, np.clip((.25 - np.maximum(np.abs(canvas.x + .4), np.abs(canvas.y + .5))) * 24, 0, 1))
    paint(image, wall, 1 - window)
    paint(image, ground("wood", canvas, stream), _full(canvas, stream, ramp(canvas.y, .45)))
    offset = _horizon(stream)
    for (x, y, w, h), colour in (((0, .45, .6, .3), stream.uniform(0, 1, 3)), ((.45, .11, .15, .09), (.95, .95, .95))):
        block = SHAPES["box"](canvas.x - offset, canvas.y, x, y, w, h)
        paint(image, as_image(colour), np.clip(.5 - block * 24, 0, 1))


def _harbor(canvas, stream, image):
    horizon = _horizon(stream)
    paint(image, ground("water", canvas, stream), ramp(canvas.y, horizon))
    for _ in range(4):
        size = each(stream.uniform(.15, .3))
        u, v = (canvas.x - each(stream.uniform(-.9, .9))) / size, (canvas.y - horizon - .1) / size
        hull = SHAPES["polygon"](u, v, -.9, .2, .9, .2, .5, .7, -.5, .7)
        paint(image, as_image(stream.uniform(0, 1, 3)), np.clip(.5 - hull * 8, 0, 1))
        sail = SHAPES["polygon"](u, v, 0, -1.5, 0, .1, .7, .1)
        paint(image, as_image((.9, .9, .9)), np.clip(.5 - sail * 8, 0, 1))


_PLACES = {
    "beach": _beach, "sea": _sea, "island": _island, "desert": _desert, "field": _field, "snowfield": _snowfield,
    "mountain": _mountain, "volcano": _volcano, "canyon": _canyon, "waterfall": _waterfall, "forest": _forest,
    "city": _city, "street": _street, "lake": _lake, "cave": _cave, "bedroom": _bedroom, "harbor": _harbor,
}


def scenes(canvas: Canvas, stream: Stream, names: np.ndarray) -> np.ndarray:
    """Places named "place" or "place at night" or "place at sunset"."""
    places = np.array([name.split(" at ")[0] for name in names], dtype=object)
    image = ground("sky", canvas, stream.fork("sky"))
    for place, index in grouped(places):
        part = image[index]
        _PLACES[place](canvas, stream.fork("place")[index], part)
        image[index] = part
    for hour, tint, lift in (("night", (.35, .38, .58), (0, 0, 0)), ("sunset", (1.05, .72, .5), (.1, .03, 0))):
        index = np.flatnonzero([name.endswith(" at " + hour) for name in names])
        late = stream.fork(hour)[index]
        image[index] = np.clip(image[index] * jitter(late, tint) + as_image(np.array(lift)), 0, 1)
    return image
