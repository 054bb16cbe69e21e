"""What passes cost on a device that nobody has timed here: operations over its peak, at the share that another reached.

Seconds = operations / (peak of the device x utilisation), with utilisation = operations a second that were measured
on an H100 over its peak. Peaks are those of the makers' data sheets, dense, and no device keeps them for long. An
estimate, until somebody times it.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass

from zsar.errors import unknown_name
from zsar.paths import data_path


@dataclass(frozen=True)
class Device:
    """``peak``: operations a second by precision, of matrix products; ``memory``: bytes."""

    name: str
    peak: Mapping[str, float]
    memory: float
    source: str


T4 = Device("NVIDIA T4", {"fp32": 8.1e12, "fp16": 65e12}, 16e9,
            "NVIDIA T4 Tensor Core GPU, data sheet: 8.1 TFLOPS fp32, 65 TFLOPS mixed precision, 16 GB; no bfloat16")
H100 = Device("NVIDIA H100 SXM", {"fp32": 67e12, "bf16": 989e12}, 80e9,
              "NVIDIA H100 Tensor Core GPU, data sheet, SXM: 67 TFLOPS fp32, 989 TFLOPS bfloat16 without sparsity")
DEVICES = {"t4": T4, "h100": H100}


def get_device(name: str) -> Device:
    """Raises UnknownNameError."""
    if name.lower() not in DEVICES:
        raise unknown_name("device", name, DEVICES)
    return DEVICES[name.lower()]


def measured() -> dict:
    """The benchmark on an H100 that utilisation is taken from: PGD-10 of ViT-B/32, 256 pictures, 1,000 classes."""
    return json.loads(data_path("results", "bench-h100.json").read_text(encoding="utf-8"))


def utilisation(precision: str = "fp32") -> float:
    """The share of an H100's peak that PGD of ViT-B/32 reached, in fp32 (by torchattacks) or bf16 (ours, compiled)."""
    record = measured()
    side = record["rows"][0]["ours" if precision == "bf16" else "peer"]
    return side["share_of_matrix_rate"] * record["matrix_flops_per_second"][precision] / H100.peak[precision]


def operations(passes: Mapping[str, float], image: float, prompt: float = 0) -> float:
    """Floating-point operations of ``passes``, as ``tools/count_passes.py`` counts them.

    image, prompt: operations of a forward pass through each tower. A pass back to the pixels costs one more, one back
    to the weights two.
    """
    turns = passes.get("images", 0) + passes.get("pixel_gradients", 0) + 2 * passes.get("weight_gradients", 0)
    return turns * image + passes.get("prompts", 0) * prompt


def seconds(operations: float, device: Device = T4) -> float:
    """An estimate, in float32: T4s have no bfloat16, and fp16 is not offered, for gradients of pixels vanish in it."""
    return operations / (device.peak["fp32"] * utilisation())


def memory(batch: int, trained: bool = False, weights: float = 605e6, tower: float = 88e6) -> float:
    """Bytes, an estimate: the weights of ViT-B/32, and for each picture of the largest batch that has a gradient what
    torchattacks' PGD took on the H100 for one of 256.

    Where its image tower of ``tower`` numbers is trained, also a copy of it, its gradient and AdamW's two moments.
    """
    return weights + 16 * tower * trained + batch * measured()["rows"][0]["peer"]["memory_bytes"] / 256


def of_chapter(counted: Mapping[str, Mapping]) -> dict[str, float]:
    """``t4 minutes`` and ``t4 memory`` (GB) of a chapter on the profile ``colab``, from its row of counted passes."""
    on_gpu, flops = counted["cuda"], measured()["flops"]
    passes = {**on_gpu, "prompts": counted["cpu"].get("prompts", 0)}
    batch = max((n for kind, n in on_gpu.items() if kind.startswith("largest_batch_of") and "grad" in kind), default=0)
    return {"t4 minutes": seconds(operations(passes, flops["image"], flops["prompt"])) / 60,
            "t4 memory": memory(batch, on_gpu.get("weight_gradients", 0) > 0) / 1e9}
