"""The measured numbers in the prose of *The command line*."""

import json

from zsar.paths import data_path

NOT_MEASURED = {"600 MB": "the size of OpenAI's weights of ViT-B/32"}


def numbers() -> dict[str, float]:
    """How many times as fast PGD of ViT-B/32 in bf16 is as torchattacks' in fp32, at equal results."""
    record = json.loads(data_path("results", "bench-h100.json").read_text(encoding="utf-8"))
    row = next(row for row in record["rows"] if row["name"] == "torchattacks' PGD")
    return {"h100 over torchattacks": row["ratio"]}
