"""Numbers from the literature beside those of a store: each source and protocol a table of its own, none averaged."""

from dataclasses import dataclass

import pandas

from zsar.attacks import describe_attack
from zsar.paths import data_path
from zsar.report.html import render
from zsar.report.scores import DRAWN, Scores, mean_name
from zsar.results.tables import CLEAN, ORIGINAL

PROTOCOL = ["source", "backbone", "attack", "eps_255"]
ROW = ["train_set", "method", "adaptation", "note"]


@dataclass(frozen=True, repr=False)
class Beside:
    """Clean and robust accuracy as one source measured them: ``rows[i]`` is (training set, method, note, numbers),
    with (clean, robust) in percent for each of ``datasets``, None where there is none.
    """

    source: str
    protocol: str
    datasets: tuple[str, ...]
    rows: tuple[tuple[str, str, str, tuple[tuple[float | None, float | None] | None, ...]], ...]

    @property
    def noted(self) -> bool:
        """Whether a row has a note."""
        return any(note for _, _, note, _ in self.rows)

    @staticmethod
    def text(pair: tuple[float | None, float | None] | None) -> str:
        """Clean and robust accuracy as they stand in the table."""
        return " / ".join("–" if value is None else f"{value:.1f}" for value in pair or (None, None))

    def __repr__(self) -> str:
        return f"{self.source}: {self.protocol}"

    def _repr_html_(self) -> str:
        return render("beside.html", beside=self)


def reported() -> list[Beside]:
    """What ``data/reported/reported.csv`` holds: a table for each source, backbone, attack and eps."""
    table = pandas.read_csv(data_path("reported", "reported.csv"), dtype=str, keep_default_na=False)
    found = []
    for protocol, group in table.groupby(PROTOCOL, sort=False):
        source, backbone, attack, eps = protocol
        datasets = tuple(group["dataset"].unique())
        rows = []
        for (train_set, method, adaptation, note), line in group.groupby(ROW, sort=False):
            numbers = {row.dataset: (_number(row.clean), _number(row.robust)) for row in line.itertuples()}
            rows.append((train_set or "not adapted", f"{method} {adaptation}".removesuffix(" none"), note,
                         tuple(numbers.get(dataset) for dataset in datasets)))
        found.append(Beside(source, f"{backbone}; {attack}, eps {eps}/255", datasets, tuple(rows)))
    return found


def ours(scores: Scores, attack: str, source: str | None = None) -> Beside:
    """The same of a store, with its own protocol. ``source``: what the adaptations were trained on."""
    datasets = [dataset for dataset in scores.datasets(attack) if dataset in scores.datasets(CLEAN)]
    named, rows = mean_name(datasets), []
    for method in scores.tested(attack):
        numbers = [tuple(score and score.accuracy.value for score in (scores.score(method, dataset, CLEAN),
                                                                      scores.score(method, dataset, attack)))
                   for dataset in datasets]
        mean = tuple(found and found.value for found in (scores.mean(method, CLEAN, datasets),
                                                         scores.mean(method, attack, datasets)))
        trained = "not adapted" if method == ORIGINAL else source or "not recorded"
        rows.append((trained, method, "", (mean, *numbers)))
    images = sum(len(scores.tasks[dataset].ids) for dataset in datasets)
    models = sorted({header["run"].get("model", "?") for header in scores.headers
                     if header["key"]["adaptation"] == "none"})
    seeds = f"seed{'s' * (len(scores.seeds) > 1)} {', '.join(map(str, scores.seeds))}"
    protocol = (f"{', '.join(models) or 'original not measured'}; {describe_attack(scores.settings[attack])}, at each "
                f"dataset's own resolution; {images:,} images in all; {seeds}")
    return Beside("This store", protocol, (named, *datasets), tuple(rows))


def is_drawn(scores: Scores) -> bool:
    """Whether a store has drawn datasets, whose numbers compare with none of the literature's."""
    return not scores.tasks.keys().isdisjoint(DRAWN)


def _number(text: str) -> float | None:
    return float(text) if text else None
