"""Decoding: whatever a file holds becomes RGB in uint8, at the size at which it is attacked."""

import io
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image, ImageFile
from torchvision.transforms import functional as F

from zsar.errors import UnreadableImageError

#: Where an image comes from: a file, the bytes of one inside an archive, or its pixels uint8 [H, W, 3].
Encoded = Path | bytes | np.ndarray
TRANSFORMS = ("none", "crop", "stretch")


class Decoder:
    """Reads rows of ``encoded`` as uint8 [n, 3, H, W]; can be sent to a worker process. ``ids`` name them in errors."""

    def __init__(self, encoded: Sequence[Encoded], ids: Sequence[str], transform: str):
        self.encoded, self.ids, self.transform = encoded, ids, transform

    def __call__(self, rows: np.ndarray) -> np.ndarray:
        return np.stack([decode(self.encoded[row], self.transform, self.ids[row]) for row in rows.tolist()])


def decode(encoded: Encoded, transform: str, name: str) -> np.ndarray:
    """One image as uint8 [3, H, W], transformed as torchvision would a PIL image. Raises UnreadableImageError."""
    if isinstance(encoded, np.ndarray) and transform == "none":
        return encoded.transpose(2, 0, 1)
    try:
        image = Image.fromarray(encoded) if isinstance(encoded, np.ndarray) else Image.open(
            io.BytesIO(encoded) if isinstance(encoded, bytes) else encoded)
        image = image.convert("RGB")  # grey, palette, RGBA and CMYK; of an animation the first picture
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        raise UnreadableImageError(f"cannot read the image {name}: {error}") from error
    if transform == "crop":
        image = F.center_crop(F.resize(image, 256), [224, 224])
    elif transform == "stretch":
        image = F.resize(image, [224, 224])
    return np.asarray(image).transpose(2, 0, 1)
