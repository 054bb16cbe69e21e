"""Decoding: whatever a file holds becomes RGB in uint8, at the size at which it is attacked."""

import io
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
from PIL import Image, UnidentifiedImageError
from torchvision.transforms import functional as F

from zsar.errors import UnreadableImageError, ZsarError

#: Where an image comes from: a file, the bytes of one inside an archive, or its pixels uint8 [H, W, 3].
Encoded = Path | bytes | np.ndarray


def _as_it_is(image: Image.Image) -> Image.Image:
    return image


def _crop(image: Image.Image) -> Image.Image:
    """The shorter side to 256 pixels, then the 224 x 224 in the middle."""
    return F.center_crop(F.resize(image, 256), [224, 224])


def _stretch(image: Image.Image) -> Image.Image:
    return F.resize(image, [224, 224])


TRANSFORMS: dict[str, Callable[[Image.Image], Image.Image]] = {"none": _as_it_is, "crop": _crop, "stretch": _stretch}


class Decoder:
    """Reads rows of ``encoded`` as uint8 [n, 3, H, W]; can be sent to a worker process. ``ids`` name them in errors.

    size: the side in pixels that every image has to have once it is transformed; None: it is not looked at.
    """

    decodes = True

    def __init__(self, encoded: Sequence[Encoded], ids: Sequence[str], transform: str, size: int | None = None):
        self.encoded, self.ids, self.transform, self.size = encoded, ids, transform, size

    def __call__(self, rows: np.ndarray) -> np.ndarray:
        """Raises UnreadableImageError for an image whose file is gone or damaged, or whose size is another."""
        return np.stack([self._read(row) for row in rows.tolist()])

    def _read(self, row: int) -> np.ndarray:
        name = self.ids[row]
        try:
            encoded = self.encoded[row]
        except ZsarError:
            raise
        except Exception as error:  # HDF5, parquet and plain files are damaged in many ways
            raise _unreadable(name, error) from error
        image = decode(encoded, self.transform, name)
        if self.size is not None and image.shape[1:] != (self.size, self.size):
            raise UnreadableImageError(f"cannot use the image {name}: found {image.shape[2]} x {image.shape[1]} "
                                       f"pixels, expected {self.size} x {self.size}; fetch it again")
        return image


def decode(encoded: Encoded, transform: str, name: str) -> np.ndarray:
    """One image as uint8 [3, H, W], transformed as torchvision would a PIL image. Raises UnreadableImageError."""
    if isinstance(encoded, np.ndarray) and transform == "none":
        return encoded.transpose(2, 0, 1)
    return np.asarray(TRANSFORMS[transform](_rgb(encoded, name))).transpose(2, 0, 1)


def _rgb(encoded: Encoded, name: str) -> Image.Image:
    """Grey, palette, RGBA and CMYK as RGB; of an animation the first picture. What the file is called is no matter."""
    if isinstance(encoded, np.ndarray):
        return Image.fromarray(encoded)
    try:
        with Image.open(io.BytesIO(encoded) if isinstance(encoded, bytes) else encoded) as image:
            return image.convert("RGB")
    except UnidentifiedImageError as error:
        raise UnreadableImageError(f"cannot read the image {name}: its bytes are no picture; fetch it again") from error
    except Exception as error:  # Pillow's decoders raise errors of many kinds on broken files
        raise _unreadable(name, error) from error


def _unreadable(name: str, error: Exception) -> UnreadableImageError:
    why = " ".join(str(error).split())[:150] or type(error).__name__
    return UnreadableImageError(f"cannot read the image {name} ({why}): expected a whole picture; fetch it again")
