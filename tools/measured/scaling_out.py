"""*Scaling out*: what its cells counted, and the recorded speed of one device."""

import json

from measured import printed
from zsar.paths import data_path

PAGE = "scaling-out"


def numbers() -> dict[str, float]:
    """Counted costs, shares of the recorded device's matrix product, and shares of time for adding up gradients."""
    record = {name: json.loads(data_path("results", f"{name}-h200.json").read_text())
              for name in ("evaluation", "step-1000")}
    shares = [record["evaluation"]["pgd-10"]["share_of_matrix_rate"],
              record["evaluation"]["pgd-100"]["share_of_matrix_rate"], record["step-1000"]["share_of_peak"]]

    def adding_up(gpus: int) -> float:
        compute, talk = (printed(PAGE, rf"^{gpus} +[\d.]+ +([\d.]+) +([\d.]+) +[\d.]+$", group) for group in (1, 2))
        return 100 * talk / (compute + talk)

    return {"prompts, times as dear": printed(PAGE, r"^pad\+token +([\d.]+) +[\d.]+ +[\d.]+$")
            / printed(PAGE, r"^finetune +([\d.]+) +[\d.]+ +[\d.]+$"),
            "least share": 100 * min(shares), "most share": 100 * max(shares),
            "outside the attack": 100 * record["evaluation"]["pgd-100"]["share_outside_the_attack"],
            "adding up on 8": adding_up(8), "adding up on 64": adding_up(64),
            "GPU-hours": printed(PAGE, r"^as measured +(\d+) GPU-hours"),
            "GPU-hours promised": printed(PAGE, r"^as a matrix product +(\d+) GPU-hours")}
