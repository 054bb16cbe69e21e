"""Surfaces, close up: two colours and a pattern between them."""

import numpy as np

from zsar.datasets.drawn.canvas import COLOURS, Canvas, as_image, blend, each, grouped, named_colours, soft
from zsar.datasets.drawn.randomness import Stream


def _marbled(canvas, stream, u, v, k, phase):
    return soft(np.sin((u * 2 + canvas.clouds(stream) * 9) * 2.6), 2.4)


def _cracked(canvas, stream, u, v, k, phase):
    seams = np.minimum(np.abs(canvas.noise(stream, 6) - .5), np.abs(canvas.noise(stream, 7) - .5))
    return soft(seams * 28 - 1.2)


def _spiralled(canvas, stream, u, v, k, phase):
    return soft(np.sin(np.sqrt(u * u + v * v) * k * 1.8 + np.arctan2(v, u) * 2))


def _ringed(canvas, stream, u, v, k, phase):
    return soft(np.sin(np.sqrt((u - .2 * np.cos(phase))**2 + (v - .2 * np.sin(phase))**2) * k * 2.2))


def _woven(canvas, stream, u, v, k, phase):
    over = soft(np.sin(u * k * .8) * np.sin(v * k * .8), 12)
    across, along = .5 + .5 * np.abs(np.sin(u * k * 1.6)), .5 - .45 * np.abs(np.sin(v * k * 1.6))
    return along + (across - along) * over


def _scaly(canvas, stream, u, v, k, phase):
    bend = .45 * np.abs(np.sin(u * k * .7))
    return .5 + .5 * np.sin(v * k * 1.1 + bend * 6)


def _zigzag(canvas, stream, u, v, k, phase):
    return soft(np.sin((v + .25 * np.abs(np.mod(u * 3, 2) - 1)) * k * 2))


# Each pattern: (canvas, stream, turned coordinates u, v, frequency k [n, 1, 1], phase [n, 1, 1]) -> field in [0, 1].
PATTERNS = {
    "striped": lambda c, s, u, v, k, phase: soft(np.sin(u * k * 1.8 + phase)),
    "dotted": lambda c, s, u, v, k, phase: soft(np.cos(u * k * 1.3) * np.cos(v * k * 1.3) * 2 - .9),
    "checkered": lambda c, s, u, v, k, phase: soft(np.sin(u * k) * np.sin(v * k) * 4),
    "grid": lambda c, s, u, v, k, phase: 1 - soft(
        np.minimum(np.abs(np.sin(u * k * .8)), np.abs(np.sin(v * k * .8))) * 8 - 2),
    "zigzag": _zigzag,
    "wavy": lambda c, s, u, v, k, phase: soft(np.sin(v * k * 1.6 + 1.6 * np.sin(u * 5 + phase))),
    "spiralled": _spiralled,
    "ringed": _ringed,
    "marbled": _marbled,
    "cracked": _cracked,
    "grainy": lambda c, s, u, v, k, phase: c.grain(s),
    "blotchy": lambda c, s, u, v, k, phase: soft((c.clouds(s) - .5) * 14),
    "honeycombed": lambda c, s, u, v, k, phase: soft(
        (np.cos(u * k) + np.cos((u * .5 + v * .866) * k) + np.cos((u * .5 - v * .866) * k)) * 1.2 - .3),
    "woven": _woven,
    "scaly": _scaly,
    "starry": lambda c, s, u, v, k, phase: (c.grain(s) > .97).astype(np.float32),
    "fibrous": lambda c, s, u, v, k, phase: np.clip(.3 * c.noise(s, 4) + .7 * s.uniform(0, 1, c.size, 1), 0, 1),
    "studded": lambda c, s, u, v, k, phase: .5 + .5 * np.cos(u * k) * np.cos(v * k) * soft(np.cos(u * k) - .2),
}


def described_textures(canvas: Canvas, stream: Stream, names: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Images of the patterns ``names``, and the name [n] of the colour that a caption may mention."""
    u, v = canvas.turned(stream.uniform(0, np.pi))
    k, phase = each(stream.uniform(5, 10)), each(stream.uniform(0, 6.28))
    field = np.empty_like(u)
    for name, index in grouped(names):
        own = stream.fork(name)[index]
        field[index] = np.clip(PATTERNS[name](canvas, own, u[index], v[index], k[index], phase[index]), 0, 1)
    colour = stream.choice(tuple(COLOURS))
    first, other = named_colours(colour), named_colours(stream.choice(tuple(COLOURS)))
    second = np.clip(first + (other - first) * .75 + stream.normal(.1, 3), 0, 1)
    alike = np.abs(first - second).sum(1) < .5
    second[alike] = np.where(first[alike].mean(1, keepdims=True) > .5, first[alike] - .4, first[alike] + .4)
    light = 1 + .3 * (canvas.clouds(stream)[:, None] - .5)
    return (blend(as_image(first), as_image(second), field) * light).astype(np.float32), colour


def textures(canvas: Canvas, stream: Stream, names: np.ndarray) -> np.ndarray:
    """Images of surfaces named "pattern"."""
    return described_textures(canvas, stream, names)[0]
