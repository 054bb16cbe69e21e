"""What is known of each of the sixteen datasets, as data: ``data/datasets/<name>.json``, a file a dataset."""

import json
from dataclasses import dataclass
from functools import cache

from zsar.errors import unknown_name
from zsar.paths import data_path
from zsar.profiles import SIXTEEN

PROTOCOLS = ("tecoa16", "cb")


@dataclass(frozen=True)
class Source:
    """A place that a dataset can be had from.

    kind: ``archive`` (files of the original layout behind addresses), ``parquet`` or ``wds`` (shards on the Hugging Face
    hub, ``address`` the repository), ``manual`` (``steps`` say what to do). size in bytes, None where it is not known;
    ``files``: name -> {"address", "md5" or "sha256", "size"}; ``verified``: whether size and checksums were checked
    against the genuine files when the manifest was written.
    """

    kind: str
    address: str
    size: int | None
    files: dict[str, dict]
    steps: tuple[str, ...]
    verified: bool


@dataclass(frozen=True)
class Protocol:
    """How a protocol evaluates a dataset: its split, texts, and where they come from.

    ``classnames`` stand in the order of the labels and are what is put into ``templates``; ``unverified`` names what
    could not be checked against the genuine files; ``duplicates`` are texts that several classes share.
    """

    split: str
    images: int
    classnames: tuple[str, ...]
    templates: tuple[str, ...]
    classnames_source: str
    templates_source: str
    unverified: tuple[str, ...]
    duplicates: tuple[str, ...]


@dataclass(frozen=True)
class Manifest:
    """A dataset. ``annotated``: the classes as its own files spell them, in the order of the labels.

    size: side of the image that is attacked, in pixels; transform: ``none`` (files are of that size), ``crop`` (shorter
    side to 256, centre crop of 224) or ``stretch`` (to 224 x 224). train_images: in the training split, None where the
    protocol has none.
    """

    name: str
    title: str
    citation: str
    licence: str
    terms: str
    homepage: str
    size: int
    transform: str
    annotated: tuple[str, ...]
    train_images: int | None
    traps: tuple[str, ...]
    sources: tuple[Source, ...]
    protocols: dict[str, Protocol]


@cache
def get_manifest(name: str) -> Manifest:
    """The manifest of one of the sixteen. Raises UnknownNameError with the nearest names."""
    if name not in SIXTEEN:
        raise unknown_name("dataset", name, SIXTEEN)
    record = json.loads(data_path("datasets", f"{name}.json").read_text(encoding="utf-8"))
    sources = tuple(Source(**_tuples(source)) for source in record.pop("sources"))
    protocols = {key: Protocol(**_tuples(value)) for key, value in record.pop("protocols").items()}
    return Manifest(**_tuples(record), sources=sources, protocols=protocols)


def _tuples(record: dict) -> dict:
    """JSON's lists as tuples, so that nobody changes what is shared."""
    return {key: tuple(value) if isinstance(value, list) else value for key, value in record.items()}
