"""Counts what each chapter asks of its CLIP, into ``data/results/chapter-passes.json``; chapters may be named.

Each is run as the build runs it, one at a time, in a kernel whose startup file listens to every image tower and text
table: images forwards, those whose pixels get a gradient, those from which weights do (an update of a training), and
prompts. An attack fills its micro-batches up, to 20 pictures on a processor and to 256 on CUDA, so both are counted:
``cpu`` as it was, ``cuda`` as it would be. What a page does in processes of its own is not seen.
"""

import json
import os
import sys
import tempfile
from datetime import date
from pathlib import Path

import nbformat
from build_book import chapters, name_of
from execute import ROOT, code_cells, environment, run

TARGET = ROOT / "data/results/chapter-passes.json"
STARTUP = '''
import atexit, json, os, sys
from collections import Counter

import torch
from open_clip.transformer import VisionTransformer

import zsar.adapt, zsar.reproduce
from zsar.attacks import engine

_found, _on_gpu, _share = Counter(), Counter(), [1]


class _Own(int):
    pass


engine.MICRO_BATCH["cpu"] = _Own(engine.MICRO_BATCH["cpu"])  # and no other 20: what a page asks for it gets anywhere


def _filled(n, device):
    size = engine.MICRO_BATCH[device]
    return -(-n // size) * size


def _wrap(function, images_of):
    def wrapped(*args, **kwargs):
        n, size = images_of(*args, **kwargs)
        own = n and (size is None or isinstance(size, _Own))  # an evaluation hands the device's own size on
        _share[0] = _filled(n, "cuda") / _filled(n, "cpu") if own else 1
        try:
            return function(*args, **kwargs)
        finally:
            _share[0] = 1
    for module in list(sys.modules.values()):
        if getattr(module, function.__name__, None) is function:
            setattr(module, function.__name__, wrapped)


_wrap(engine.for_each, lambda work, n, device, size=None, together=False: (n, size))
_wrap(engine.all_logits, lambda classifier, images, micro_batch=None: (len(images), micro_batch))


def _listen(module, inputs, output):
    if isinstance(module, VisionTransformer):
        n = len(inputs[0])
        kinds = ["images"]
        if output.requires_grad:
            kinds.append("pixel_gradients" if inputs[0].requires_grad else "weight_gradients")
        for kind in kinds:
            _found[kind] += n
            _on_gpu[kind] += n * _share[0]
        largest = f"largest_batch_of_{kinds[-1]}"
        filled = engine.MICRO_BATCH["cuda"] if _share[0] != 1 else n
        _found[largest], _on_gpu[largest] = max(_found[largest], n), max(_on_gpu[largest], filled)
    elif isinstance(module, torch.nn.Embedding):
        _found["prompts"] += len(inputs[0])


def _write():
    on_gpu = {name: round(n) for name, n in _on_gpu.items()}
    with open(os.environ["ZSAR_PASSES"], "w") as file:
        json.dump({"cpu": _found, "cuda": on_gpu}, file)


torch.nn.modules.module.register_module_forward_hook(_listen)
atexit.register(_write)
'''


def count(path: Path) -> tuple[nbformat.NotebookNode, dict]:
    """The executed notebook, and what it asked of its CLIP."""
    with tempfile.TemporaryDirectory() as folder:
        startup, found = Path(folder, "profile_default/startup/count.py"), Path(folder, "passes.json")
        startup.parent.mkdir(parents=True)
        startup.write_text(STARTUP)
        os.environ.update({"IPYTHONDIR": folder, "ZSAR_PASSES": str(found)})
        return run(path), json.loads(found.read_text())


def follows_profile(path: Path) -> bool:
    """Whether a chapter runs on the profile that the reader chooses, or on the drawn world wherever it runs."""
    return any("= get_profile()" in cell.source for cell in code_cells(nbformat.read(path, as_version=4)))


def main(names: list[str]) -> None:
    """Counts the chapters that are named, or all; what was counted of others is kept, with its own commit and day."""
    from zsar.bench.timing import image_flops, prompt_flops
    from zsar.clip import load_clip
    from zsar.outputs import write_json
    from zsar.results import provenance

    os.environ.update(environment())
    clip = load_clip(device="cpu")
    made = provenance(clip) | {"date": date.today().isoformat()}
    paths = {name_of(path): path for path in chapters()}
    if unknown := set(names) - set(paths):
        sys.exit(f"no chapter is called {unknown.pop()!r}: expected some of {', '.join(paths)}")
    kept = json.loads(TARGET.read_text())["chapters"] if TARGET.exists() else {}
    for name in names or paths:
        kept[name] = count(paths[name])[1] | {"follows_profile": follows_profile(paths[name]), "provenance": made}
        print(name, kept[name], flush=True)
    write_json(TARGET, {"chapters": kept, "flops": {"image": image_flops(clip, 48), "prompt": prompt_flops(clip)},
                        "provenance": made})


if __name__ == "__main__":
    main(sys.argv[1:])
