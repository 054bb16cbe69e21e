"""Small datasets in the genuine formats of the sixteen: file names, annotations and traps; the pictures are noise."""

import io
import json
import pickle
import struct
import tarfile
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from scipy.io import savemat

#: A few classes of each, spelled as its own files spell them.
CLASSES: dict[str, tuple[str, ...]] = {
    "ImageNet": ("n01440764", "n01443537", "n02105855", "n03710637"),
    "CIFAR10": ("airplane", "automobile", "bird", "cat"),
    "CIFAR100": ("apple", "aquarium_fish", "baby", "maple_tree"),
    "STL10": ("airplane", "bird", "car", "cat"),
    "Caltech101": ("Faces", "Faces_easy", "Motorbikes", "accordion", "yin_yang"),
    "Caltech256": ("001.ak47", "002.american-flag", "003.backpack", "004.baseball-bat"),
    "OxfordPets": ("Abyssinian", "american_bulldog", "basset_hound", "Bengal"),
    "StanfordCars": ("AM General Hummer SUV 2000", "Acura RL Sedan 2012", "Ram C/V Cargo Van Minivan 2012"),
    "Food101": ("apple_pie", "beef_tartare", "cup_cakes"),
    "Flowers102": ("1", "2", "3", "4", "5"),
    "FGVCAircraft": ("707-320", "747-400", "DHC-8-100", "F/A-18"),
    "SUN397": ("/a/abbey", "/a/apartment_building/outdoor", "/b/bar", "/c/church/indoor", "/c/church/outdoor"),
    "DTD": ("banded", "bubbly", "zigzagged"),
    "PCAM": ("0", "1"),
    "HatefulMemes": ("0", "1"),
    "EuroSAT": ("AnnualCrop", "Forest", "HerbaceousVegetation", "SeaLake"),
}
#: What a file that ends in .jpg may really be.
KINDS = (("RGB", "JPEG"), ("L", "JPEG"), ("CMYK", "JPEG"), ("P", "GIF"), ("RGBA", "PNG"), ("P", "PNG"), ("RGB", "WEBP"))


class Maker:
    """Pictures of noise, each another one, of 8 to 40 pixels a side; ``kinds`` take turns."""

    def __init__(self, classes: Sequence[str], per_class: int, seed: int = 0):
        self.classes, self.per_class = tuple(classes), per_class
        self.rng, self.made = np.random.default_rng(seed), 0

    def pixels(self, height: int, width: int) -> np.ndarray:
        return self.rng.integers(0, 256, (height, width, 3), np.uint8)

    def picture(self) -> bytes:
        mode, kind = KINDS[self.made % len(KINDS)]
        self.made += 1
        image, file = Image.fromarray(self.pixels(*self.rng.integers(8, 41, 2))), io.BytesIO()
        if mode == "RGBA":
            image.putalpha(Image.fromarray(self.rng.integers(0, 256, image.size[::-1], np.uint8)))
        image.convert(mode).save(file, kind)
        return file.getvalue()

    def shuffled(self) -> list[int]:
        """The label of each image of a split, in no order."""
        return self.rng.permutation(np.repeat(np.arange(len(self.classes)), self.per_class)).tolist()

    def numbers(self, count: int, most: int) -> list[int]:
        """Different numbers from 1, in no order."""
        return (self.rng.choice(most, count, replace=False) + 1).tolist()

    def lines(self, lines: Sequence[str]) -> bytes:
        """A text file with these lines in no order."""
        return "".join(f"{lines[number]}\n" for number in self.rng.permutation(len(lines))).encode()


def build(name: str, root: Path, annotated: Sequence[str] | None = None, per_class: int = 2, *, strays: bool = True,
          seed: int = 0) -> None:
    """Write the dataset ``name`` below ``root``, ``per_class`` images a class in each of its splits.

    The traps that torchvision reads too are always there; with ``strays`` also files that make its classes stumble.
    The files are created in no order.
    """
    maker = Maker(CLASSES[name] if annotated is None else annotated, per_class, seed)
    files = BUILDERS[name](maker)
    if strays:
        files |= _strays(list(files))
    paths = list(files)
    for number in maker.rng.permutation(len(paths)):
        path = root / paths[number]
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(files[paths[number]])


def _strays(paths: list[str]) -> dict[str, bytes]:
    """What file managers leave: beside the first and the last file, and a folder above."""
    found = {}
    for path in (Path(min(paths)), Path(max(paths))):
        for folder in {path.parent, path.parent.parent} - {Path(".")}:
            found |= {f"{folder.as_posix()}/{name}": b"stray" for name in (".DS_Store", "Thumbs.db", "README.txt")}
        found[f"{path.parent.as_posix()}/._{path.name}"] = b"stray"
    return {path: content for path, content in found.items() if path not in paths}


# folders that are classes

def _imagenet(maker: Maker) -> dict[str, bytes]:
    labels = maker.shuffled()
    wnids = [maker.classes[label] for label in labels]
    files = {f"val/{wnid}/ILSVRC2012_val_{number:08d}.JPEG": maker.picture() for number, wnid in enumerate(wnids, 1)}
    for wnid in maker.classes:
        files |= {f"train/{wnid}/{wnid}_{number}.JPEG": maker.picture()
                  for number in maker.numbers(maker.per_class, 20_000)}
    meta = io.BytesIO()
    torch.save(({wnid: (f"the first name of {wnid}", "another") for wnid in maker.classes}, wnids), meta)
    return files | {"meta.bin": meta.getvalue()}


def _caltech101(maker: Maker) -> dict[str, bytes]:
    return {f"caltech101/101_ObjectCategories/{name}/image_{number:04d}.jpg": maker.picture()
            for name in ("BACKGROUND_Google", *maker.classes) for number in range(1, maker.per_class + 1)}


def _caltech256(maker: Maker) -> dict[str, bytes]:
    top = "caltech256/256_ObjectCategories"
    files = {f"{top}/{name}/{place:03d}_{number:04d}.jpg": maker.picture()
             for place, name in enumerate(maker.classes, 1) for number in range(1, maker.per_class + 1)}
    return files | {f"{top}/{maker.classes[0]}/RENAME2": b"#!/bin/sh\n",
                    f"{top}/{maker.classes[-1]}/greg/vision309/001_0001.jpg": maker.picture()}


def _eurosat(maker: Maker) -> dict[str, bytes]:
    return {f"eurosat/2750/{name}/{name}_{number}.jpg": maker.picture()
            for name in maker.classes for number in maker.numbers(maker.per_class, 3000)}


def _sun397(maker: Maker) -> dict[str, bytes]:
    letters = np.array(list("abcdefghijklmnopqrstuvwxyz"))
    files = {f"SUN397{name}/sun_{''.join(maker.rng.choice(letters, 16))}.jpg": maker.picture()
             for name in maker.classes for _ in range(maker.per_class)}
    return files | {"SUN397/ClassName.txt": "".join(f"{name}\n" for name in maker.classes).encode()}


# annotation files

def _oxford_pets(maker: Maker) -> dict[str, bytes]:
    top, listed = "oxford-iiit-pet", {"trainval": [], "test": []}
    for place, name in enumerate(maker.classes, 1):
        for number, at in enumerate(maker.numbers(2 * maker.per_class, 250)):
            listed["trainval" if number % 2 else "test"].append(f"{name}_{at} {place} {1 + name[0].islower()} {place}")
    header = b"#Image CLASS-ID SPECIES BREED ID\n"
    files = {f"{top}/annotations/{part}.txt": maker.lines(lines) for part, lines in listed.items()}
    files[f"{top}/annotations/list.txt"] = header + maker.lines(listed["trainval"] + listed["test"])
    files |= {f"{top}/images/{line.split()[0]}.jpg": maker.picture() for lines in listed.values() for line in lines}
    return files | {f"{top}/images/{maker.classes[0]}_100.mat": b"not an image"}


def _mat(**arrays) -> bytes:
    file = io.BytesIO()
    savemat(file, arrays)
    return file.getvalue()


def _cells(texts: Sequence[str]) -> np.ndarray:
    """A row of MATLAB cells."""
    cells = np.empty((1, len(texts)), object)
    cells[0] = list(texts)
    return cells


def _stanford_cars(maker: Maker) -> dict[str, bytes]:
    top, boxes = "stanford_cars", ("bbox_x1", "bbox_y1", "bbox_x2", "bbox_y2")
    files = {f"{top}/devkit/cars_meta.mat": _mat(class_names=_cells(maker.classes))}
    for part, path in (("train", "devkit/cars_train_annos.mat"), ("test", "cars_test_annos_withlabels.mat")):
        labels = maker.shuffled()
        rows = np.empty((1, len(labels)), [(field, object) for field in (*boxes, "class", "fname")])
        for row, label in enumerate(labels):
            rows[0, row] = (np.uint16(1), np.uint16(2), np.uint16(30), np.uint16(40), np.uint8(label + 1),
                            f"{row + 1:05d}.jpg")
        files |= {f"{top}/{path}": _mat(annotations=rows)}
        files |= {f"{top}/cars_{part}/{row + 1:05d}.jpg": maker.picture() for row in range(len(labels))}
    unlabelled = rows[[*boxes, "fname"]].astype([(field, object) for field in (*boxes, "fname")])
    return files | {f"{top}/devkit/cars_test_annos.mat": _mat(annotations=unlabelled)}


def _food101(maker: Maker) -> dict[str, bytes]:
    files = {"food-101/meta/classes.txt": "\n".join(maker.classes).encode()}
    for part in ("train", "test"):
        listed = {maker.classes[place]: [f"{maker.classes[place]}/{number}"
                                         for number in maker.numbers(maker.per_class, 4_000_000)]
                  for place in maker.rng.permutation(len(maker.classes))}
        files |= {f"food-101/images/{image}.jpg": maker.picture() for images in listed.values() for image in images}
        files[f"food-101/meta/{part}.json"] = json.dumps(listed).encode()
        files[f"food-101/meta/{part}.txt"] = "\n".join(sum(listed.values(), [])).encode()
    return files


def _flowers102(maker: Maker) -> dict[str, bytes]:
    labels = np.array(maker.shuffled() + maker.shuffled() + maker.shuffled())
    splits = np.split(np.arange(1, len(labels) + 1), 3)
    train, valid, test = (maker.rng.permutation(part).astype(np.uint16)[None] for part in splits)
    files = {f"flowers-102/jpg/image_{number:05d}.jpg": maker.picture() for number in range(1, len(labels) + 1)}
    return files | {"flowers-102/imagelabels.mat": _mat(labels=(labels + 1).astype(np.uint8)[None]),
                    "flowers-102/setid.mat": _mat(trnid=train, valid=valid, tstid=test)}


def _fgvc_aircraft(maker: Maker) -> dict[str, bytes]:
    top = "fgvc-aircraft-2013b/data"
    files, listed = {f"{top}/variants.txt": "".join(f"{name}\n" for name in maker.classes).encode()}, {}
    numbers = iter(maker.numbers(3 * maker.per_class * len(maker.classes), 2_500_000))
    for part in ("train", "val", "test"):
        listed[part] = [f"{next(numbers):07d} {maker.classes[label]}" for label in maker.shuffled()]
    listed["trainval"] = listed["train"] + listed["val"]
    files |= {f"{top}/images_variant_{part}.txt": maker.lines(lines) for part, lines in listed.items()}
    return files | {f"{top}/images/{line[:7]}.jpg": maker.picture() for lines in listed.values() for line in lines}


def _dtd(maker: Maker) -> dict[str, bytes]:
    listed, files = {}, {"dtd/dtd/images/.directory": b"[Dolphin]\n"}
    for name in maker.classes:
        numbers = maker.numbers(3 * maker.per_class, 200)
        for place, number in enumerate(numbers):
            listed.setdefault(("train", "val", "test")[place % 3], []).append(f"{name}/{name}_{number:04d}.jpg")
    for part, other in (("train", "val"), ("val", "test"), ("test", "train")):
        files[f"dtd/dtd/labels/{part}1.txt"] = maker.lines(listed[part])
        files[f"dtd/dtd/labels/{part}2.txt"] = maker.lines(listed[other])
    return files | {f"dtd/dtd/images/{path}": maker.picture() for paths in listed.values() for path in paths}


def _hateful_memes(maker: Maker) -> dict[str, bytes]:
    files, parts = {}, ("train", "dev_seen", "test_seen", "test_unseen")
    numbers = iter(maker.numbers(len(parts) * maker.per_class * len(maker.classes), 9999))
    for part in parts:
        lines = []
        for row, label in enumerate(maker.shuffled()):
            number = f"{next(numbers):05d}"
            line = {"id": number if row % 2 else int(number), "img": f"img/{number}.png", "label": label, "text": "…"}
            lines.append(json.dumps(line).replace("/", "\\/"))
            files[f"hateful_memes/img/{number}.png"] = maker.picture()
        files[f"hateful_memes/{part}.jsonl"] = "\n".join(lines).encode()
    return files


# arrays

class _Python2Pickler(pickle._Pickler):
    """Writes texts and bytes as Python 2 wrote its strings, in which the genuine batches are."""

    dispatch = pickle._Pickler.dispatch.copy()

    def save_string(self, text: str | bytes) -> None:
        raw = text if isinstance(text, bytes) else text.encode("latin1")
        self.write(pickle.BINSTRING + struct.pack("<i", len(raw)) + raw)
        self.memoize(text)

    dispatch[str] = dispatch[bytes] = save_string


def python2_pickle(value: object) -> bytes:
    """``value`` as Python 2 and NumPy 1 pickled it."""
    file = io.BytesIO()
    _Python2Pickler(file, protocol=2).dump(value)
    return file.getvalue().replace(b"cnumpy._core.multiarray\n", b"cnumpy.core.multiarray\n")


def _batch(maker: Maker, of: list[int], **more) -> bytes:
    planes = np.stack([maker.pixels(32, 32).transpose(2, 0, 1).reshape(-1) for _ in of])
    names = [f"{maker.classes[label]}_s_{row:06d}.png" for row, label in enumerate(of)]
    return python2_pickle({"data": planes, "batch_label": "a batch", "filenames": names} | more)


def _cifar10(maker: Maker) -> dict[str, bytes]:
    top, labels = "cifar-10-batches-py", maker.shuffled()
    parts = {f"data_batch_{number + 1}": labels[number::5] or labels[:1] for number in range(5)}
    parts["test_batch"] = maker.shuffled()
    files = {f"{top}/{part}": _batch(maker, numbers, labels=numbers) for part, numbers in parts.items()}
    meta = {"num_cases_per_batch": len(labels), "label_names": list(maker.classes), "num_vis": 3072}
    return files | {f"{top}/batches.meta": python2_pickle(meta), f"{top}/readme.html": b"<meta>"}


def _cifar100(maker: Maker) -> dict[str, bytes]:
    files = {}
    for part in ("train", "test"):
        labels = maker.shuffled()
        files[f"cifar-100-python/{part}"] = _batch(maker, labels, fine_labels=labels,
                                                   coarse_labels=[label // 5 for label in labels])
    meta = {"fine_label_names": list(maker.classes), "coarse_label_names": ["all"]}
    return files | {"cifar-100-python/meta": python2_pickle(meta), "cifar-100-python/file.txt~": b""}


def _stl10(maker: Maker) -> dict[str, bytes]:
    files = {"stl10_binary/class_names.txt": "\n".join(maker.classes).encode(),
             "stl10_binary/unlabeled_X.bin": maker.pixels(96, 96).tobytes(),
             "stl10_binary/fold_indices.txt": b"0 1\n"}
    for part in ("train", "test"):
        labels = maker.shuffled()
        files[f"stl10_binary/{part}_X.bin"] = b"".join(maker.pixels(96, 96).transpose(2, 1, 0).tobytes()
                                                       for _ in labels)
        files[f"stl10_binary/{part}_y.bin"] = bytes(label + 1 for label in labels)
    return files


def _pcam(maker: Maker) -> dict[str, bytes]:
    import h5py

    files = {}
    for part in ("train", "valid", "test"):
        labels = np.array(maker.shuffled(), np.uint8).reshape(-1, 1, 1, 1)
        images = np.stack([maker.pixels(96, 96) for _ in labels])
        for key, array in (("x", images), ("y", labels)):
            file = io.BytesIO()
            with h5py.File(file, "w") as h5:
                h5.create_dataset(key, data=array, compression="gzip")
            files[f"pcam/camelyonpatch_level_2_split_{part}_{key}.h5"] = file.getvalue()
    return files


BUILDERS: dict[str, Callable[[Maker], dict[str, bytes]]] = {
    "ImageNet": _imagenet, "CIFAR10": _cifar10, "CIFAR100": _cifar100, "STL10": _stl10, "Caltech101": _caltech101,
    "Caltech256": _caltech256, "OxfordPets": _oxford_pets, "StanfordCars": _stanford_cars, "Food101": _food101,
    "Flowers102": _flowers102, "FGVCAircraft": _fgvc_aircraft, "SUN397": _sun397, "DTD": _dtd, "PCAM": _pcam,
    "HatefulMemes": _hateful_memes, "EuroSAT": _eurosat,
}


# shards of the Hugging Face hub

def build_parquet(folder: Path, classes: Sequence[str] | None, labels: Sequence[int], *, part: str = "test",
                  files: int = 2, image: str = "image", label: str = "label", as_struct: bool = True) -> None:
    """``data/test-00000-of-00002.parquet`` and so on, in groups of two rows; ``classes`` go into the metadata."""
    import pyarrow
    import pyarrow.parquet

    maker = Maker((), 0)
    rows = [{"image": {"bytes": maker.picture(), "path": None}, "label": number} for number in labels]
    features = {label: {"_type": "ClassLabel", "names": list(classes)} if classes else {"_type": "Value"}}
    metadata = {"huggingface": json.dumps({"info": {"features": {image: {"_type": "Image"}} | features}})}
    kind = pyarrow.struct([("bytes", pyarrow.binary()), ("path", pyarrow.string())]) if as_struct else pyarrow.binary()
    schema = pyarrow.schema([(image, kind), (label, pyarrow.int64())], metadata)
    (folder / "data").mkdir(parents=True, exist_ok=True)
    for number in range(files):
        chosen = rows[number * len(rows) // files:(number + 1) * len(rows) // files]
        columns = {image: [row["image"] if as_struct else row["image"]["bytes"] for row in chosen],
                   label: [row["label"] for row in chosen]}
        pyarrow.parquet.write_table(pyarrow.table(columns, schema), row_group_size=2,
                                    where=folder / f"data/{part}-{number:05d}-of-{files:05d}.parquet")


def build_wds(folder: Path, classes: Sequence[str], labels: Sequence[int], *, part: str = "test",
              files: int = 2) -> None:
    """``test/0.tar`` and so on, with an image and its label a key, and the lists beside them."""
    maker = Maker((), 0)
    (folder / part).mkdir(parents=True, exist_ok=True)
    (folder / "classnames.txt").write_text("".join(f"{text}\n" for text in classes), encoding="utf-8")
    (folder / "zeroshot_classification_templates.txt").write_text("a photo of a {c}.\n", encoding="utf-8")
    (folder / part / "nshards.txt").write_text(f"{files}\n", encoding="utf-8")
    for number in range(files):
        with tarfile.open(folder / part / f"{number}.tar", "w") as tar:
            for row in range(number * len(labels) // files, (number + 1) * len(labels) // files):
                suffix = ("jpg", "png", "webp")[row % 3]
                add_member(tar, f"s{row:07d}.cls", str(labels[row]).encode())
                add_member(tar, f"s{row:07d}.{suffix}", maker.picture())


def add_member(tar: tarfile.TarFile, name: str, content: bytes) -> None:
    """A file in a tar."""
    member = tarfile.TarInfo(name)
    member.size = len(content)
    tar.addfile(member, io.BytesIO(content))
