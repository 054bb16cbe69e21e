"""What is known of each of the sixteen datasets, as data: ``data/datasets/<name>.json``, a file a dataset."""

import json
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from zsar.errors import DatasetError, unknown_name
from zsar.paths import data_path
from zsar.profiles import SIXTEEN

PROTOCOLS = ("tecoa16", "cb")
KINDS = ("archive", "parquet", "wds", "manual")
TRANSFORMS = ("none", "crop", "stretch")


@dataclass(frozen=True)
class Source:
    """A place that a dataset can be had from.

    kind: ``archive`` (files of the original layout behind addresses), ``parquet`` or ``wds`` (shards on the Hugging
    Face hub, ``address`` the repository), ``manual`` (``steps`` say what to do). size in bytes, None if not known;
    ``files``: path below the data folder, where an archive is unpacked too -> {"address", "md5" or "sha256", "size"},
    and "inner", the archives that come out of it and are unpacked there as well, where there are any; ``verified``:
    whether size and checksums were checked against the genuine files when the manifest was written.
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
    """The manifest of one of the sixteen.

    Raises UnknownNameError with the nearest names, and DatasetError for a file that is missing or broken.
    """
    if name not in SIXTEEN:
        raise unknown_name("dataset", name, SIXTEEN)
    return read_manifest(data_path("datasets", f"{name}.json"))


def read_manifest(path: Path) -> Manifest:
    """A manifest from its file. Raises DatasetError where that is missing, no manifest, or contradicts itself."""
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
        sources = tuple(Source(**_tuples(source)) for source in record.pop("sources"))
        protocols = {key: Protocol(**_tuples(value)) for key, value in record.pop("protocols").items()}
        manifest = Manifest(**_tuples(record), sources=sources, protocols=protocols)
        wrong = next(_faults(manifest, path.stem), None)
    except (OSError, ValueError, LookupError, TypeError, AttributeError) as error:
        wrong = " ".join(f"{type(error).__name__} {error}".split())[:150]
    if wrong:
        raise DatasetError(f"cannot use the manifest {path}: {wrong}; take the file as it was published")
    return manifest


def shared_names(classnames: Sequence[str]) -> list[str]:
    """The texts that several classes share in lower case: CLIP's tokenizer knows no other."""
    return sorted(name for name, count in Counter(map(str.lower, classnames)).items() if count > 1)


def _faults(manifest: Manifest, name: str) -> Iterator[str]:
    """What in a manifest contradicts the name of its file, the formats, or itself."""
    if manifest.name != name:
        yield f"it is of {manifest.name!r}, expected {name!r}"
    if manifest.transform not in TRANSFORMS:
        yield f"its transform is {manifest.transform!r}, expected one of {', '.join(TRANSFORMS)}"
    if len(set(manifest.annotated)) != len(manifest.annotated):
        yield "its files name a class twice, expected different names"
    if kinds := [source.kind for source in manifest.sources if source.kind not in KINDS]:
        yield f"a source is of the kind {kinds[0]!r}, expected one of {', '.join(KINDS)}"
    if sorted(manifest.protocols) != sorted(PROTOCOLS):
        yield f"it has the protocols {', '.join(manifest.protocols)}, expected {', '.join(PROTOCOLS)}"
    for key, protocol in manifest.protocols.items():
        for fault in _protocol_faults(protocol, len(manifest.annotated)):
            yield f"{key} {fault}"


def _protocol_faults(protocol: Protocol, classes: int) -> Iterator[str]:
    if len(protocol.classnames) != classes:
        yield f"has {len(protocol.classnames)} class names, expected one for each of {classes} classes"
    if not protocol.templates:
        yield "has no template, expected at least one"
    if bad := [text for text in protocol.templates if text.count("{}") != 1 or text.count("{") + text.count("}") != 2]:
        yield f"has the template {bad[0]!r}, expected one {{}} in it"
    if list(protocol.duplicates) != (shared := shared_names(protocol.classnames)):
        yield f"reports the duplicate names {list(protocol.duplicates)}, found {shared}"


def _tuples(record: dict) -> dict:
    """JSON's lists as tuples, so that nobody changes what is shared."""
    return {key: tuple(value) if isinstance(value, list) else value for key, value in record.items()}
