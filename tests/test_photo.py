import io
import json

import numpy as np
import pytest
import torch
from PIL import Image, PngImagePlugin

from zsar import photo
from zsar.attacks import cross_entropy, pgd
from zsar.clip import ZeroShotClassifier
from zsar.errors import AttackSettingsError, ClassNamesError, OutputError, PhotoError, VocabularyError
from zsar.photo import attack_photo, read_photo

NAMES = ["cat", "dog", "car", "frog"]


def picture(width: int = 40, height: int = 30) -> Image.Image:
    """A smooth colourful picture."""
    y, x = np.mgrid[:height, :width] / max(width, height)
    return Image.fromarray((255 * np.stack([x, y, 1 - x], axis=-1)).round().astype(np.uint8))


def levels(path) -> np.ndarray:
    """What read_photo sees, as uint8 [H, W, 3]."""
    image, _ = read_photo(path)
    assert image.dtype == torch.float32 and image.shape[:2] == (1, 3) and image.min() >= 0 and image.max() <= 1
    return (image[0].permute(1, 2, 0) * 255).round().byte().numpy()


@pytest.fixture
def path(tmp_path):
    picture().save(tmp_path / "photo.png")
    return tmp_path / "photo.png"


# reading

def test_a_plain_picture_is_read_exactly(path):
    assert np.array_equal(levels(path), np.asarray(picture()))


@pytest.mark.parametrize(("mode", "name"), [("L", "grey.jpg"), ("1", "bits.png"), ("P", "palette.png"),
                                            ("CMYK", "print.jpg"), ("P", "palette.gif"), ("YCbCr", "film.tif")])
def test_every_mode_becomes_rgb(mode, name, tmp_path):
    picture().convert(mode).save(tmp_path / name)
    expected = np.asarray(Image.open(tmp_path / name).convert("RGB"))
    assert np.array_equal(levels(tmp_path / name), expected)


@pytest.mark.parametrize("mode", ["RGBA", "LA", "PA"])
def test_transparency_is_shown_on_white(mode, tmp_path):
    image = picture().convert("RGBA")
    image.putalpha(Image.fromarray(np.repeat(np.uint8([[0] * 20 + [255] * 20]), 30, axis=0)))
    image.convert("LA" if mode == "LA" else "RGBA").save(tmp_path / "see.png")
    if mode == "PA":
        image.quantize(64).save(tmp_path / "see.png")
    found = levels(tmp_path / "see.png")
    assert (found[:, :20] == 255).all() and found[:, 20:].std() > 10


def test_sixteen_bits_are_scaled_not_clipped(tmp_path):
    values = np.linspace(0, 65535, 20 * 30).reshape(20, 30)
    for name in ("deep.png", "deep.tif"):
        Image.fromarray(values.astype(np.uint16)).save(tmp_path / name)
        assert np.array_equal(levels(tmp_path / name)[..., 0], (values.astype(np.uint16) / 257).round())
    Image.fromarray((values / 65535).astype(np.float32)).save(tmp_path / "float.tif")
    assert np.abs(levels(tmp_path / "float.tif")[..., 1] - values / 257).max() <= 0.51


def test_exif_turns_the_picture(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6  # turn right
    picture().save(tmp_path / "turned.png", exif=exif)
    assert np.array_equal(levels(tmp_path / "turned.png"), np.rot90(np.asarray(picture()), -1))
    assert read_photo(tmp_path / "turned.png")[1] == (30, 40)


def test_the_first_frame_of_an_animation(tmp_path):
    frames = [picture(), picture().transpose(Image.Transpose.FLIP_LEFT_RIGHT)]
    frames[0].save(tmp_path / "moving.png", save_all=True, append_images=frames[1:])
    assert np.array_equal(levels(tmp_path / "moving.png"), np.asarray(picture()))


def test_a_huge_picture_is_reduced_to_the_limit(tmp_path, monkeypatch):
    monkeypatch.setattr(photo, "OWN_PIXELS", 300)
    picture(80, 60).save(tmp_path / "huge.png")
    image, size = read_photo(tmp_path / "huge.png")
    assert size == (80, 60) and image.shape == (1, 3, 15, 20)


def bomb() -> bytes:
    """A PNG of 30,000 x 30,000 black pixels in its header, and next to nothing behind it."""
    file = io.BytesIO()
    picture(8, 8).save(file, "PNG")
    data = bytearray(file.getvalue())
    data[16:24] = (30_000).to_bytes(4, "big") * 2
    data[29:33] = PngImagePlugin._crc32(data[12:29]).to_bytes(4, "big")
    return bytes(data)


def bad_files() -> dict[str, tuple[bytes, str]]:
    jpeg = io.BytesIO()
    picture(400, 300).save(jpeg, "JPEG")
    dot, line = io.BytesIO(), io.BytesIO()
    picture(1, 1).save(dot, "PNG")
    picture(1000, 10).save(line, "PNG")
    return {"notes.jpg": (b"these are words\n" * 50, "cannot read"), "empty.png": (b"", "cannot read"),
            "half.jpg": (jpeg.getvalue()[:len(jpeg.getvalue()) // 2], "cannot read.*truncated"),
            "dot.png": (dot.getvalue(), "1 x 1 pixels: expected at least 8"),
            "line.png": (line.getvalue(), "1000 x 10 pixels.*crop"), "bomb.png": (bomb(), "bomb")}


@pytest.mark.parametrize("name", bad_files())
def test_bad_pictures(name, tmp_path):
    content, message = bad_files()[name]
    (tmp_path / name).write_bytes(content)
    with pytest.raises(PhotoError, match=message) as caught:
        read_photo(tmp_path / name)
    assert "\n" not in str(caught.value) and name in str(caught.value)


def test_no_picture_there(tmp_path):
    for place in (tmp_path / "none.jpg", tmp_path):
        with pytest.raises(PhotoError, match="no photograph at"):
            read_photo(place)


# attacking

def test_the_saved_picture_is_what_the_record_says(path, tmp_path, tiny_clip):
    record = attack_photo(path, NAMES, clip=tiny_clip, out=tmp_path / "out", eps_255=12, steps=10)
    saved = {kind: tmp_path / "out" / name for kind, name in record["files"].items()}
    assert json.loads(saved["record"].read_text()) == record
    assert Image.open(saved["figure"]).size[0] > 1000
    adversarial, size = read_photo(saved["adversarial"])
    change = levels(saved["adversarial"]).astype(int) - np.asarray(picture()).astype(int)
    assert size == (40, 30) and np.abs(change).max() == record["largest_change_255"] <= 12
    probabilities = ZeroShotClassifier(tiny_clip, NAMES)(adversarial).softmax(1)[0]
    assert np.allclose(list(record["after"].values()), probabilities, atol=1e-6)
    assert record["label_after"] == NAMES[probabilities.argmax()]
    assert record["success"] == (record["label_after"] != record["label_before"]) and record["success"]
    assert record["digest"] == tiny_clip.digest and record["caveat"] is None


def test_rounding_costs_the_attack_nothing(path, tmp_path, tiny_clip):
    """Whole steps from an 8-bit picture: the PNG holds the very image that the attack found."""
    record = attack_photo(path, NAMES, clip=tiny_clip, out=tmp_path, eps_255=5, steps=7)
    clean, _ = read_photo(path)
    seen = torch.tensor([NAMES.index(record["label_before"])])
    found = pgd(cross_entropy(ZeroShotClassifier(tiny_clip, NAMES), seen), clean, eps=5 / 255, alpha=1 / 255, steps=7,
                random_start=False, micro_batch=1)
    saved, _ = read_photo(tmp_path / record["files"]["adversarial"])
    assert (saved - found).abs().max() < 1e-6


def test_a_target_is_reached_or_not_claimed(path, tmp_path, tiny_clip):
    first = attack_photo(path, NAMES, clip=tiny_clip, out=tmp_path, eps_255=0, steps=1)
    assert not first["success"] and first["largest_change_255"] == 0 and first["before"] == first["after"]
    assert "did not change the label" in photo.describe(first, tmp_path)
    target = next(name for name in NAMES if name != first["label_before"])
    for eps_255 in (1, 60):
        record = attack_photo(path, NAMES, clip=tiny_clip, out=tmp_path, eps_255=eps_255, steps=20, target=target)
        assert record["success"] == (record["label_after"] == target)
        assert ("success: " in photo.describe(record, tmp_path)) and (
            record["success"] != ("no success" in photo.describe(record, tmp_path)))
        assert record["after"][target] > record["before"][target]
    assert record["success"]
    with pytest.raises(ClassNamesError, match="already sees"):
        attack_photo(path, NAMES, clip=tiny_clip, out=tmp_path, target=first["label_before"])


def test_only_what_the_model_sees_is_changed(tmp_path, tiny_clip):
    picture(60, 20).save(tmp_path / "wide.png")
    record = attack_photo(tmp_path / "wide.png", NAMES, clip=tiny_clip, out=tmp_path, eps_255=4, steps=3)
    change = levels(tmp_path / record["files"]["adversarial"]).astype(int) - np.asarray(picture(60, 20)).astype(int)
    assert not change[:, :15].any() and not change[:, -15:].any() and change[:, 25:35].any()


def test_the_matplotlib_backend_is_left_alone(path, tmp_path, tiny_clip):
    import matplotlib

    before = matplotlib.rcParams._get_backend_or_none()
    attack_photo(path, NAMES, clip=tiny_clip, out=tmp_path, steps=1)
    assert matplotlib.rcParams._get_backend_or_none() == before


@pytest.mark.parametrize(("changes", "error", "message"), [
    ({"classnames": []}, ClassNamesError, "no class names"), ({"classnames": ["cat"]}, ClassNamesError, "only one"),
    ({"classnames": ["cat", "Cat"]}, ClassNamesError, "duplicate"),
    ({"classnames": ["cat", "carr"]}, VocabularyError, "'carr'.*car"),
    ({"eps_255": -1}, AttackSettingsError, "eps = -1"), ({"eps_255": 256}, AttackSettingsError, "eps = 256"),
    ({"eps_255": 0.5}, AttackSettingsError, "8-bit picture"), ({"steps": 0}, AttackSettingsError, "steps = 0"),
    ({"alpha_255": 300}, AttackSettingsError, "alpha = 300"), ({"target": "dogg"}, ClassNamesError, "'dogg'.*dog")])
def test_bad_requests(changes, error, message, path, tmp_path, tiny_clip):
    arguments = {"classnames": NAMES, "clip": tiny_clip, "out": tmp_path / "out"} | changes
    with pytest.raises(error, match=message):
        attack_photo(path, **arguments)
    assert not list((tmp_path / "out").glob("*"))


def test_a_folder_that_cannot_be_written(path, tmp_path, tiny_clip):
    with pytest.raises(OutputError, match="cannot write into the folder"):
        attack_photo(path, NAMES, clip=tiny_clip, out=path)
