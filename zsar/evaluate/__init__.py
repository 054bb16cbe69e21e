"""How accurate a classifier is, clean and attacked (``accuracy``), and whether the number can be trusted (``trust``, of
the ``checks`` of an ``audit``; ``faults`` are what they have to catch); ``python -m zsar evaluate`` (``command``).
"""

from zsar.evaluate.accuracy import TOGETHER, Answers, Room, answer, correct, evaluate_dataset, predict, unit_rows
from zsar.evaluate.command import (
    add_arguments,
    add_data_arguments,
    add_model_arguments,
    add_speed_arguments,
    check_workers,
    dataset_list,
    load_all,
    run,
    summary,
)
from zsar.evaluate.trust import Finding, TrustReport, trust

__all__ = [
    "TOGETHER", "Answers", "Finding", "Room", "TrustReport", "add_arguments", "add_data_arguments",
    "add_model_arguments", "add_speed_arguments", "answer", "check_workers", "correct", "dataset_list",
    "evaluate_dataset", "load_all", "predict", "run", "summary", "trust", "unit_rows",
]
