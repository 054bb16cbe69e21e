"""The camera: contrast, haze, blur and sensor noise between a painting and the picture that is stored."""

from dataclasses import dataclass

import numpy as np

from zsar.datasets.drawn.canvas import Canvas, each
from zsar.datasets.drawn.randomness import Stream


@dataclass(frozen=True)
class Camera:
    """contrast and noise are ranges (fractions of full scale), blur the share of pictures that are out of focus."""

    contrast: tuple[float, float] = (.3, .6)
    noise: tuple[float, float] = (.004, .025)
    blur: float = .15


def _blurred(image: np.ndarray) -> np.ndarray:
    """A binomial blur, three pixels wide."""
    p = np.pad(image, ((0, 0), (0, 0), (1, 1), (1, 1)), "edge")
    p = .25 * p[:, :, :-2] + .5 * p[:, :, 1:-1] + .25 * p[:, :, 2:]
    return .25 * p[..., :-2] + .5 * p[..., 1:-1] + .25 * p[..., 2:]


def photograph(canvas: Canvas, stream: Stream, image: np.ndarray, camera: Camera) -> np.ndarray:
    """The stored picture, uint8 [n, 3, S, S]."""
    image = np.clip(image, 0, 1)
    out_of_focus = stream.chance(camera.blur)
    image[out_of_focus] = _blurred(image[out_of_focus])
    contrast = each(stream.uniform(*camera.contrast))[:, None]
    haze = each(stream.uniform(.35, .65))[:, None]
    image = image * contrast + haze * (1 - contrast)
    image += stream.normal(1, 3, canvas.size, canvas.size) * each(stream.uniform(*camera.noise))[:, None]
    return (np.clip(image, 0, 1) * 255 + .5).astype(np.uint8)
