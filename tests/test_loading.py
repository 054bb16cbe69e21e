"""Batches: the same bits with and without worker processes, and what cannot be read is named and left out."""

import numpy as np
import pytest
import torch
from made_up import made_up
from PIL import Image
from real_fixtures import build, build_parquet, build_wds
from torch.utils.data import ConcatDataset, DataLoader

from zsar import distributed
from zsar.datasets import batches, load_dataset
from zsar.datasets.base import ImageDataset
from zsar.datasets.loading import default_workers
from zsar.datasets.manifest import get_manifest
from zsar.datasets.own import load_own, own_packed_as, own_packed_folder
from zsar.datasets.packed import pack
from zsar.datasets.real.images import Decoder
from zsar.errors import UnreadableImageError

CPU = torch.device("cpu")


@pytest.fixture
def photos(tmp_path):
    """Twelve files of two classes, some of which a test may break."""
    random = np.random.RandomState(0)
    for i in range(12):
        folder = tmp_path / ("cat", "dog")[i % 2]
        folder.mkdir(exist_ok=True)
        Image.fromarray(random.randint(0, 256, (40 + i, 300, 3), np.uint8)).save(folder / f"{i:02d}.png")
    return tmp_path


def truncate(path):
    path.write_bytes(path.read_bytes()[:200])


@pytest.mark.parametrize("workers", [0, 2])
def test_batches_are_the_images_in_the_order_asked_for(workers, photos):
    dataset = load_own(photos, "test")
    rows = [[3, 1], [0, 11, 5], [3]]
    images, labels = dataset.stack()
    found = list(batches(dataset, rows, CPU, workers=workers))
    for batch, asked in zip(found, rows, strict=True):
        assert batch.rows.tolist() == asked and batch.unreadable == {}
        assert torch.equal(batch.images, images[asked]) and torch.equal(batch.labels, labels[asked])


@pytest.mark.parametrize("workers", [0, 2])
def test_unreadable_images_are_left_out_and_named(workers, photos):
    truncate(photos / "cat" / "04.png")
    (photos / "dog" / "05.png").write_text("no image")
    dataset = load_own(photos, "test")
    broken = {dataset.ids.index(name) for name in ("cat/04.png", "dog/05.png")}
    found = list(batches(dataset, torch.arange(12).split(5), CPU, workers=workers))
    assert {row for batch in found for row in batch.unreadable} == broken
    assert all(dataset.ids[row] in reason for batch in found for row, reason in batch.unreadable.items())
    assert [row for batch in found for row in batch.rows.tolist()] == [row for row in range(12) if row not in broken]
    assert all(len(batch.images) == len(batch.labels) == len(batch.rows) for batch in found)
    with pytest.raises(UnreadableImageError, match="cat/04.png"):
        list(batches(dataset, torch.arange(12).split(5), CPU, workers=workers, strict=True))


def test_a_batch_of_nothing_readable_is_empty(photos):
    truncate(photos / "cat" / "04.png")
    dataset = load_own(photos, "test")
    row = dataset.ids.index("cat/04.png")
    batch, = batches(dataset, [[row]], CPU)
    assert len(batch.rows) == len(batch.images) == 0 and list(batch.unreadable) == [row]


def test_workers_are_for_decoding_on_an_accelerator(monkeypatch):
    files = ImageDataset("files", "test", ["a", "b"], ["{}"], torch.zeros(1), ["a"], Decoder([b""], ["a"], "none"))
    assert default_workers(files, torch.device("cuda")) >= 1
    monkeypatch.setattr(distributed, "ranks_here", lambda: 99)
    assert default_workers(files, torch.device("cuda")) == 1  # for each of the many ranks here
    assert default_workers(files, CPU) == default_workers(made_up(4), torch.device("cuda")) == 0


def every_kind(root, photos):
    """A dataset of every kind of reader, below ``root``."""
    for name in ("EuroSAT", "CIFAR10", "STL10", "PCAM"):  # class folders, pickles, plain bytes, HDF5
        build(name, root, get_manifest(name).annotated, per_class=1)
        yield load_dataset(name, root=root, partial=True)
    for name, folder, build_shards in (("OxfordPets", "parquet", build_parquet), ("DTD", "wds", build_wds)):
        classes = get_manifest(name).annotated
        build_shards(root / folder / name, classes, list(range(len(classes))))
        yield load_dataset(name, root=root, partial=True)
    own = load_own(photos, "test")
    pack(own, own_packed_folder(root, photos, "test"), own_packed_as(photos, "test"))
    yield from (own, load_dataset(str(photos), root=root), load_dataset("DrawnCIFAR10"))


def test_a_process_started_by_spawn_reads_what_is_read_here(photos, tmp_path_factory):
    """One process for every kind of reader, which shares nothing with this one, as on macOS and Windows."""
    every = list(every_kind(tmp_path_factory.mktemp("root"), photos))
    assert [(dataset.layout, dataset.decodes) for dataset in every] == [
        *[("files", True)] * 4, ("parquet", True), ("wds", True), ("own", True), ("own", False), ("drawn", False)]
    together = ConcatDataset(every)
    rows = [[end - 1, end - len(dataset)] for dataset, end in zip(every, together.cumulative_sizes, strict=True)]
    loader = DataLoader(together, batch_sampler=rows, num_workers=1, multiprocessing_context="spawn")
    for (images, labels), dataset in zip(loader, every, strict=True):
        expected = dataset.select(np.array([len(dataset) - 1, 0])).stack()
        assert torch.equal(images, expected[0]) and torch.equal(labels, expected[1])
