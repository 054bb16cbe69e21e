"""What a store says, shown: the table in the paper's layout, figures, numbers of others beside ours, and a page of all.

``Scores(store)`` reads; a chapter shows the pieces by calling functions with it, ``write_report`` puts all on a page.
"""

from zsar.report.drawings import against_eps, clean_against_robust, over_datasets
from zsar.report.explorer import explorer
from zsar.report.page import write_report
from zsar.report.reported import Beside, ours, reported
from zsar.report.scores import Score, Scores
from zsar.report.tables import Table, paper_table, per_class_table

__all__ = ["Beside", "Score", "Scores", "Table", "against_eps", "clean_against_robust", "explorer", "ours",
           "over_datasets", "paper_table", "per_class_table", "reported", "write_report"]
