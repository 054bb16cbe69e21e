"""What is estimated for a device that nobody timed is the formula that the book states, on stored numbers."""

import json

import pytest

from zsar.bench import estimates
from zsar.errors import UnknownNameError
from zsar.paths import data_path

#: The chapters that run on the profile that the reader chooses.
FOLLOW = {"welcome", "zero-shot-clip", "breaking-clip", "loss-variants", "finetuning-or-prompts",
          "price-of-robustness"}


def test_the_share_is_what_was_measured_over_the_peak_of_the_same_device():
    row = estimates.measured()["rows"][0]
    flops = estimates.measured()["flops"]
    assert "H100" in estimates.measured()["provenance"]["device"] and row["settings"]["peer_precision"] == "fp32"
    speed = row["peer"]["images_x_steps_per_second"]  # a step of theirs is a pass there and back, and no more
    assert estimates.utilisation() == pytest.approx(2 * speed * flops["image"] / 67e12, rel=0.01)
    assert 0.2 < estimates.utilisation("bf16") < estimates.utilisation() < 1


def test_a_way_back_costs_one_pass_to_the_pixels_and_two_to_the_weights():
    assert estimates.operations({"images": 5}, 10, 7) == 50
    assert estimates.operations({"images": 5, "pixel_gradients": 2}, 10, 7) == 70
    assert estimates.operations({"images": 5, "weight_gradients": 2, "prompts": 1}, 10, 7) == 97


def test_seconds_are_operations_over_peak_and_share():
    assert estimates.seconds(8.1e12 * estimates.utilisation()) == pytest.approx(1)
    assert estimates.seconds(1e15, estimates.H100) < estimates.seconds(1e15)
    assert 605e6 == estimates.memory(0) < estimates.memory(256) < estimates.T4.memory


def test_a_device_without_a_data_sheet_here_is_refused():
    assert estimates.get_device("T4") is estimates.T4
    with pytest.raises(UnknownNameError, match="unknown device 'p100'"):
        estimates.get_device("p100")


def test_what_chapters_ask_for_is_stored_with_where_it_comes_from():
    counted = json.loads(data_path("results", "chapter-passes.json").read_text(encoding="utf-8"))
    assert {"device", "commit", "torch", "date"} <= set(counted["provenance"])
    assert counted["flops"]["image"] > 1e6
    assert set(counted["chapters"]) >= FOLLOW, "python tools/count_passes.py counts them"
    for name, passes in counted["chapters"].items():
        assert passes["cuda"].get("images", 0) >= passes["cpu"].get("images", 0), name  # filled up further
        assert passes["cpu"].get("pixel_gradients", 0) <= passes["cpu"].get("images", 0), name
