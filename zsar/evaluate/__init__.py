"""How accurate a classifier is, clean and attacked (``accuracy``); ``python -m zsar evaluate`` (``command``)."""

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

__all__ = [
    "TOGETHER", "Answers", "Room", "add_arguments", "add_data_arguments", "add_model_arguments",
    "add_speed_arguments", "answer", "check_workers", "correct", "dataset_list", "evaluate_dataset", "load_all",
    "predict", "run", "summary", "unit_rows",
]
