"""*Make it fast*: what its cells counted and timed, and the record of an H100."""

import json

from measured import printed
from zsar.paths import data_path

PAGE = "make-it-fast"
NOT_MEASURED: dict[str, str] = {}


def numbers() -> dict[str, float]:
    """Shares of operations by the count, what fp16 leaves of the signs, and the ratios and roofs of the H100."""
    record = json.loads(data_path("results", "bench-h100.json").read_text())
    rows = {row["name"]: row for row in record["rows"] if row["settings"]["peer_precision"] == "fp32"}
    ours = [100 * row["ours"]["share_of_matrix_rate"] for row in record["rows"]]
    attacks = [share for share, row in zip(ours, record["rows"], strict=True) if "attack" in row["settings"]]
    roofs = record["matrix_flops_per_second"]
    best = 2 * record["flops"]["ours"] * record["batches"][0]["images_x_steps_per_second"] / roofs["bf16"]
    counted = {name: printed(PAGE, rf"^{name} +[\d.]+ +[\d.]+ +[\d.]+ +([\d.]+)$")
               for name in ("a picture", "a prompt", "a picture, ViT-B/32", "a prompt, ViT-B/32")}
    return {
        "prompt of a picture": 100 * counted["a prompt"] / counted["a picture"],
        "prompt of a picture, ViT-B/32": 100 * counted["a prompt, ViT-B/32"] / counted["a picture, ViT-B/32"],
        "class token saves": 100 * (1 - 1 / printed(PAGE, r"^class token only, last block .*?([\d.]+)x$")),
        "signs in bf16": printed(PAGE, r"^signs that agree: ([\d.]+)%"),
        "signs in fp16, batch of 512": printed(PAGE, r"512: '(\d+) % of the signs'"),
        "torchattacks, of its roof": 100 * rows["torchattacks' PGD"]["peer"]["share_of_matrix_rate"],
        "roof of bf16, times": roofs["bf16"] / roofs["fp32"], "torchattacks, times": rows["torchattacks' PGD"]["ratio"],
        "ours, least": min(attacks), "ours, most": max(100 * best, *attacks),
        "training, most": max(set(ours) - set(attacks)),
        "released attack, times": rows["released code's attack"]["ratio"],
        "released attack here, times": _on_a_processor("released code's attack")}


def _on_a_processor(name: str) -> float:
    """How many times as fast as a row of the bench the drawn CLIP's was, by the record that the page shows."""
    rows = json.loads(data_path("results", "bench-cpu.json").read_text())["rows"]
    return next(row["ratio"] for row in rows if row["name"] == name)
