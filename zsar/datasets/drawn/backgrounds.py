"""Backgrounds: ten kinds of ground to stand a thing on."""

import numpy as np

from zsar.datasets.drawn.canvas import Canvas, as_image, blend, each, grouped, jitter, soft
from zsar.datasets.drawn.randomness import Stream

# The words with which a caption names each background.
BACKGROUNDS = {
    "plain": "on a plain background", "grass": "on the grass", "sky": "in the sky", "sand": "on the sand",
    "water": "in the water", "wood": "on a wooden table", "brick": "in front of a brick wall",
    "snow": "in the snow", "night": "at night", "check": "on a checkered cloth",
}


def _plain(canvas: Canvas, stream: Stream) -> np.ndarray:
    colour = stream.uniform(.15, .9, 3)
    shift = np.clip(colour + stream.normal(.12, 3), 0, 1)
    return blend(as_image(colour), as_image(shift), .5 * canvas.clouds(stream) + .25 * (canvas.y + 1))


def _grass(canvas: Canvas, stream: Stream) -> np.ndarray:
    field = np.clip(canvas.clouds(stream) * .7 + canvas.noise(stream, 36) * .45 - .1, 0, 1)
    return blend(jitter(stream, (.12, .35, .1)), jitter(stream, (.5, .7, .28)), field)


def _sky(canvas: Canvas, stream: Stream) -> np.ndarray:
    height = np.broadcast_to((canvas.y + 1) / 2, (len(stream), canvas.size, canvas.size))
    image = blend(jitter(stream, (.3, .5, .85)), jitter(stream, (.7, .82, .95)), height)
    return blend(image, as_image((.95, .95, .95)), np.clip((canvas.clouds(stream) - .52) * 4, 0, 1))


def _sand(canvas: Canvas, stream: Stream) -> np.ndarray:
    field = np.clip(canvas.clouds(stream) * .6 + canvas.noise(stream, 40) * .4, 0, 1)
    return blend(jitter(stream, (.72, .58, .36)), jitter(stream, (.92, .82, .6)), field)


def _water(canvas: Canvas, stream: Stream) -> np.ndarray:
    clouds = canvas.clouds(stream)
    waves = .5 + .5 * np.sin(canvas.y * 22 + 6 * clouds + each(stream.uniform(0, 6)))
    return blend(jitter(stream, (.05, .3, .5)), jitter(stream, (.35, .65, .78)), waves * .6 + clouds * .4)


def _wood(canvas: Canvas, stream: Stream) -> np.ndarray:
    rings = .5 + .5 * np.sin(canvas.y * 16 + 7 * canvas.noise(stream, 5) + each(stream.uniform(0, 6)))
    return blend(jitter(stream, (.42, .25, .12)), jitter(stream, (.72, .5, .28)),
                 rings * .7 + canvas.noise(stream, 30) * .3)


def _brick(canvas: Canvas, stream: Stream) -> np.ndarray:
    row = np.floor((canvas.y + 1) * 4)
    along, up = np.mod((canvas.x + 1) * 2.5 + .5 * np.mod(row, 2), 1), np.mod((canvas.y + 1) * 4, 1)
    stone = np.broadcast_to(((along > .1) & (up > .18)).astype(np.float32), (len(stream), canvas.size, canvas.size))
    clay = blend(jitter(stream, (.5, .2, .14)), jitter(stream, (.72, .36, .26)), canvas.clouds(stream))
    return blend(jitter(stream, (.75, .72, .68)), clay, stone)


def _snow(canvas: Canvas, stream: Stream) -> np.ndarray:
    field = np.clip(canvas.clouds(stream) * 1.3 - .1, 0, 1)
    return blend(jitter(stream, (.75, .8, .9), .03), jitter(stream, (.97, .97, 1.), .02), field)


def _night(canvas: Canvas, stream: Stream) -> np.ndarray:
    stars = (canvas.grain(stream) > .985).astype(np.float32) * .7
    dark = blend(jitter(stream, (.02, .02, .1), .03), jitter(stream, (.12, .1, .3)), canvas.clouds(stream))
    return blend(dark, as_image((1., 1., 1.)), stars)


def _check(canvas: Canvas, stream: Stream) -> np.ndarray:
    k = each(stream.uniform(9, 16))
    squares = soft(np.sin(canvas.x * k) * np.sin(canvas.y * k), 12)
    return blend(as_image(stream.uniform(0, .8, 3)), as_image((.9, .9, .9)), squares * .9)


_PAINTERS = {"plain": _plain, "grass": _grass, "sky": _sky, "sand": _sand, "water": _water, "wood": _wood,
             "brick": _brick, "snow": _snow, "night": _night, "check": _check}


def ground(kind: str, canvas: Canvas, stream: Stream) -> np.ndarray:
    """Images [n, 3, S, S] of one background kind."""
    return _PAINTERS[kind](canvas, stream)


def backgrounds(canvas: Canvas, stream: Stream, kinds: np.ndarray) -> np.ndarray:
    """Images [n, 3, S, S] of n background kinds."""
    image = np.empty((len(stream), 3, canvas.size, canvas.size), np.float32)
    for kind, index in grouped(kinds):
        image[index] = ground(kind, canvas, stream[index])
    return image
