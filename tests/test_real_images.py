"""Decoding: pixel for pixel what torchvision makes of a picture, and one kind of error for what is none."""

import io
import pickle

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from torchvision.datasets.folder import pil_loader
from torchvision.transforms import CenterCrop, Compose, Resize

from zsar.datasets.real.images import TRANSFORMS, Decoder, decode
from zsar.errors import UnreadableImageError

THEIRS = {"none": Compose([]), "crop": Compose([Resize(256), CenterCrop(224)]), "stretch": Resize((224, 224))}
SIZES = [(8, 40), (300, 200), (224, 224), (256, 256), (97, 31)]
FILES = [("RGB", "JPEG"), ("L", "JPEG"), ("CMYK", "JPEG"), ("L", "PNG"), ("1", "PNG"), ("LA", "PNG"), ("RGBA", "PNG"),
         ("P", "PNG"), ("P", "GIF"), ("RGB", "WEBP"), ("RGB", "TIFF")]


def noise(width: int, height: int) -> Image.Image:
    return Image.fromarray(np.random.default_rng(width).integers(0, 256, (height, width, 3), np.uint8))


def encoded(image: Image.Image, kind: str, **options) -> bytes:
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


@pytest.mark.parametrize("transform", TRANSFORMS)
@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize(("mode", "kind"), FILES)
def test_pixels_are_torchvisions(mode, kind, size, transform, tmp_path):
    content = encoded(noise(*size).convert(mode), kind)
    path = tmp_path / "image.jpg"  # whatever it is
    path.write_bytes(content)
    expected = np.asarray(THEIRS[transform](pil_loader(path))).transpose(2, 0, 1)
    for source in (path, content):
        found = decode(source, transform, "image")
        assert found.dtype == np.uint8 and np.array_equal(found, expected)


@pytest.mark.parametrize("transform", TRANSFORMS)
def test_arrays_are_treated_as_pictures_are(transform):
    pixels = np.asarray(noise(96, 80))
    expected = np.asarray(THEIRS[transform](Image.fromarray(pixels))).transpose(2, 0, 1)
    columns = np.asfortranarray(pixels)  # as STL10 has them
    assert np.array_equal(decode(pixels, transform, "image"), expected)
    assert np.array_equal(decode(columns, transform, "image"), expected)


def test_of_an_animation_the_first_picture_is_read():
    first, second = noise(20, 20).convert("P"), noise(21, 20).convert("P").resize((20, 20))
    content = encoded(first, "GIF", save_all=True, append_images=[second])
    assert np.array_equal(decode(content, "none", "image"), np.asarray(first.convert("RGB")).transpose(2, 0, 1))


def test_the_camera_is_not_turned_back():
    exif = Image.Exif()
    exif[0x0112] = 6  # turned by 90 degrees, which torchvision takes no notice of
    content = encoded(noise(30, 20), "PNG", exif=exif)
    assert decode(content, "none", "image").shape == (3, 20, 30)


def test_a_decoder_reads_rows_in_the_order_asked_for_also_when_sent():
    pictures = [encoded(noise(width, 20), "PNG") for width in range(30, 36)]
    decoder = Decoder(pictures, list("abcdef"), "crop")
    rows = np.array([4, 0, 4])
    expected = np.stack([decode(pictures[row], "crop", "x") for row in rows])
    assert np.array_equal(decoder(rows), expected)
    assert np.array_equal(pickle.loads(pickle.dumps(decoder))(rows), expected)


WHOLE = encoded(noise(60, 60), "JPEG")


@pytest.mark.parametrize("content", [b"", b"<html>Not found</html>", WHOLE[:len(WHOLE) // 2], WHOLE[:20],
                                     encoded(noise(60, 60), "PNG")[:-3000], encoded(noise(60, 60), "GIF")[:400]])
def test_what_is_no_whole_picture_is_named(content, tmp_path):
    path = tmp_path / "file.jpg"
    path.write_bytes(content)
    for source in (content, path):
        with pytest.raises(UnreadableImageError, match="cats/01.jpg") as caught:
            Decoder([source], ["cats/01.jpg"], "crop")(np.array([0]))
        assert "\n" not in str(caught.value) and " at 0x" not in str(caught.value)


class Damaged(list):
    """Images whose bytes cannot be had, as those of a damaged page, chunk or tar."""

    def __getitem__(self, row):
        raise OSError(self.why)


@pytest.mark.parametrize("why", ["cannot inflate\nthe page", ""])
def test_bytes_that_cannot_be_had_are_named(why):
    damaged = Damaged()
    damaged.why = why
    with pytest.raises(UnreadableImageError, match="cats/01.jpg") as caught:
        Decoder(damaged, ["cats/01.jpg"], "crop")(np.array([0]))
    assert "\n" not in str(caught.value) and "()" not in str(caught.value)


def test_an_image_of_another_size_is_named_where_one_is_expected():
    pictures = [encoded(noise(*size), "PNG") for size in ((32, 32), (31, 32), (32, 40), (40, 40))]
    decoder = Decoder(pictures, list("abcd"), "none", 32)
    assert decoder(np.array([0, 0])).shape == (2, 3, 32, 32)
    for row, found in ((1, "b: found 31 x 32"), (2, "c: found 32 x 40"), (3, "d: found 40 x 40")):
        with pytest.raises(UnreadableImageError, match=f"{found} pixels, expected 32 x 32"):
            decoder(np.array([0, row]))
    assert Decoder(pictures, list("abcd"), "crop", 224)(np.arange(4)).shape == (4, 3, 224, 224)


def test_a_picture_that_is_gone_is_named(tmp_path):
    for path in (tmp_path / "gone.jpg", tmp_path):
        with pytest.raises(UnreadableImageError, match="cats/01.jpg"):
            decode(path, "crop", "cats/01.jpg")


@pytest.mark.filterwarnings("ignore")  # Pillow's, of odd headers
@settings(deadline=None, max_examples=100)
@given(data=st.data(), kind=st.sampled_from(["JPEG", "PNG", "GIF", "WEBP", "TIFF"]))
def test_damage_gives_a_picture_or_the_one_error(data, kind):
    content = bytearray(encoded(noise(12, 9), kind))
    for _ in range(data.draw(st.integers(1, 4))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    try:
        assert decode(bytes(content), "none", "image").shape[0] == 3
    except UnreadableImageError:
        pass
