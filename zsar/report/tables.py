"""The table in the paper's layout, methods by datasets, as text for a terminal, a paper, a web page or a notebook."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import pandas

from zsar.attacks import describe_attack
from zsar.errors import StoreError
from zsar.report.html import render
from zsar.report.scores import Scores, absent, mean_name
from zsar.results import Estimate, Key
from zsar.results.tables import CLEAN, ORIGINAL

CONSTANT = "constant predictor"
LATEX = str.maketrans({"\\": r"\textbackslash{}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}",
                       **{c: "\\" + c for c in "&%$#_{}"}})
MARKDOWN = str.maketrans({c: "\\" + c for c in "\\|*_`<>[]"})
SHADES = (2, 5, 10, 20, 40)  # points of difference from the original at which a colour becomes stronger


@dataclass(frozen=True)
class Entry:
    """A number of the table. difference: from the original CLIP's, in points; headers: the cells it rests on."""

    accuracy: Estimate
    difference: float | None = None
    best: bool = False
    headers: tuple[dict, ...] = ()

    @property
    def shade(self) -> str:
        """How the difference is coloured: ``gain-1`` to ``gain-5``, ``loss-1`` to ``loss-5``, or not."""
        strength = sum(abs(self.difference or 0) >= limit for limit in SHADES)
        return f"{'gain' if self.difference > 0 else 'loss'}-{strength}" if strength else ""

    @property
    def signed(self) -> str:
        """The difference with its sign, in points."""
        return f"{round(self.difference, 1) + 0.0:+.1f}".replace("-", "\u2212")

    @property
    def bounds(self) -> str:
        """The interval; empty for what has none."""
        known = self.accuracy.low < self.accuracy.high
        return f"{self.accuracy.low:.1f} to {self.accuracy.high:.1f}" if known else ""

    @property
    def words(self) -> str:
        """What is said of the number where a pointer rests on it."""
        seeds = sorted({header["key"]["seed"] for header in self.headers})
        parts = [f"{self.accuracy.value:.2f} %", self.bounds and f"95 % interval {self.bounds}",
                 f"{self.accuracy.images:,} images", seeds and f"seed {', '.join(map(str, seeds))}",
                 "" if self.difference is None else f"{self.signed} points from the original"]
        return "; ".join(filter(None, parts))

    @property
    def anchor(self) -> str:
        """The id of the first cell that the number rests on."""
        return Key(**self.headers[0]["key"]).id


@dataclass(frozen=True)
class Line:
    """A row of the table: an entry a dataset, and means, None where it ``lacks`` a dataset that others have."""

    name: str
    entries: tuple[Entry | None, ...]
    means: tuple[Entry | None, ...]
    lacks: tuple[str, ...] = ()


@dataclass(frozen=True, repr=False)
class Table:
    """Accuracies under one attack in percent. ``means`` names the columns behind those of the datasets."""

    attack: str
    title: str
    datasets: tuple[str, ...]
    means: tuple[str, ...]
    lines: tuple[Line, ...]
    constant: Line | None
    notes: tuple[str, ...]

    @property
    def rows(self) -> tuple[Line, ...]:
        """The methods, and the constant predictor below them."""
        return self.lines + ((self.constant,) if self.constant else ())

    @property
    def legend(self) -> str:
        """What the colours mean; empty where there are none."""
        compared = any(entry and entry.difference is not None for line in self.lines for entry in line.entries)
        return compared * ("Below a number: its difference from the original CLIP in points; blue where it gained, "
                           "orange where it lost, stronger from " + ", ".join(map(str, SHADES)) + " points on")

    def __repr__(self) -> str:
        return self.to_markdown()  # a notebook keeps this beside the HTML

    def _repr_html_(self) -> str:
        return render("table.html", table=self)

    def to_text(self) -> str:
        """For a terminal, turned: a row a dataset, a column a method; * is the highest of a row."""
        columns = {line.name: _texts(line, "{}*", "–") for line in self.rows}
        index = [*self.datasets, *(row for mean in self.means for row in (mean, "  95 %"))]
        notes = [note.replace("Bold", "*", 1) for note in self.notes]
        return "\n".join([self.title, pandas.DataFrame(columns, index).to_string(), *notes])

    def to_markdown(self) -> str:
        """For a README or an issue."""
        head = ["method", *self.datasets, *(column for mean in self.means for column in (mean, "95 %"))]
        lines = [[escape_markdown(cell) for cell in head], ["---", *["---:"] * (len(head) - 1)]]
        lines += [[escape_markdown(line.name), *_texts(line, "**{}**", "–")] for line in self.rows]
        title, *notes = map(escape_markdown, (self.title, *self.notes))
        return "\n".join([f"**{title}**", "", *(f"| {' | '.join(line)} |" for line in lines), "",
                          *(f"- {note}" for note in notes)])

    def to_latex(self) -> str:
        """A table environment; its document loads booktabs and graphicx."""
        heads = [rf"\rotatebox{{90}}{{{escape_latex(name)}}}" for name in (
            *self.datasets, *(column for mean in self.means for column in (mean, "95 %")))]
        rules = len(self.lines), len(self.rows)
        body = [" & ".join([escape_latex(line.name), *_texts(line, r"\textbf{{{}}}", "--")]) + r" \\"
                for line in self.rows]
        if rules[0] < rules[1]:
            body.insert(rules[0], r"\midrule")
        caption = " ".join(escape_latex(text) + "." for text in (self.title, *self.notes))
        return "\n".join([
            "% needs \\usepackage{booktabs,graphicx}", r"\begin{table}", r"\centering", r"\footnotesize",
            r"\setlength{\tabcolsep}{2.5pt}", rf"\caption{{{caption}}}",
            rf"\begin{{tabular}}{{l{'r' * len(heads)}}}", r"\toprule", " & ".join(["method", *heads]) + r" \\",
            r"\midrule", *body, r"\bottomrule", r"\end{tabular}", r"\end{table}"])


def escape_latex(text: str) -> str:
    """Text with what LaTeX would take for a command escaped."""
    return text.translate(LATEX)


def escape_markdown(text: str) -> str:
    """Text that markdown leaves as it is, also in a table."""
    return text.translate(MARKDOWN)


def _texts(line: Line, bold: str, missing: str) -> list[str]:
    """The numbers of a row; behind each mean its interval."""
    def number(entry: Entry | None) -> str:
        text = missing if entry is None else f"{entry.accuracy.value:.1f}"
        return bold.format(text) if entry and entry.best else text

    return [number(entry) for entry in line.entries] + [
        text for entry in line.means for text in (number(entry), entry and entry.bounds or missing)]


def paper_table(scores: Scores, attack: str = CLEAN) -> Table:
    """Every method on every dataset under an attack (``none``: clean), as in Mao et al. (2023), table 1.

    The mean, named by what it is of, and the mean without the tasks of two classes, in which guessing is right half the
    time; a method has them only if it has every dataset of the table. The last row is a predictor that always answers
    with the most frequent class: no attack changes its answer, so a robust mean near its own means nothing. Raises
    StoreError for an attack that the store has no cell of.
    """
    datasets = scores.datasets(attack)
    if not datasets:
        raise StoreError(f"no cell of {scores.store.folder} has the attack {attack}; there are "
                         f"{', '.join(scores.settings)}")
    two = scores.two_class(datasets)
    groups = {mean_name(datasets): datasets}
    if two and len(two) < len(datasets):
        groups["without two-class"] = [name for name in datasets if name not in two]
    lines = [_line(scores, method, attack, datasets, list(groups.values())) for method in scores.tested(attack)]
    constant = _constant(scores, datasets, list(groups.values()))
    kind = "Clean accuracy" if attack == CLEAN else f"Robust accuracy: {describe_attack(scores.settings[attack])}"
    lines = _compared(lines)
    return Table(attack, f"{kind}, in percent", tuple(datasets), tuple(groups), tuple(lines), constant,
                 tuple(_notes(scores, attack, datasets, two, lines, constant)))


def per_class_table(scores: Scores, attack: str = CLEAN) -> Table | None:
    """The mean of the classes' accuracies for datasets where that is customary; None where there are none of these."""
    datasets = [dataset for dataset in scores.datasets(attack)
                if any((score := scores.score(method, dataset, attack)) and score.per_class is not None
                       for method in scores.methods)]
    if not datasets:
        return None
    lines = []
    for method in scores.methods:
        found = [scores.score(method, dataset, attack) for dataset in datasets]
        if any(found):
            entries = [score and Entry(_exactly(score.per_class, score.accuracy.images), headers=score.headers)
                       for score in found]
            lines.append(Line(method, tuple(entries), ()))
    kind = "clean" if attack == CLEAN else describe_attack(scores.settings[attack])
    return Table(attack, f"Mean of the classes' accuracies, {kind}, in percent", tuple(datasets), (),
                 tuple(_compared(lines)), None, ())


def _line(scores: Scores, method: str, attack: str, datasets: list[str], groups: list[list[str]]) -> Line:
    found = [scores.score(method, dataset, attack) for dataset in datasets]
    means = [scores.mean(method, attack, group) for group in groups]
    return Line(method, tuple(score and Entry(score.accuracy, headers=score.headers) for score in found),
                tuple(mean and Entry(mean) for mean in means), tuple(scores.lacks(method, attack, datasets)))


def _constant(scores: Scores, datasets: list[str], groups: list[list[str]]) -> Line:
    def entry(names: Sequence[str]) -> Entry:
        return Entry(_exactly(sum(map(scores.constant, names)) / len(names),
                              sum(len(scores.tasks[name].ids) for name in names)))

    return Line(CONSTANT, tuple(entry([name]) for name in datasets), tuple(map(entry, groups)))


def _exactly(value: float, images: int) -> Estimate:
    """A number without an interval."""
    return Estimate(value, value, value, 1, images)


def _compared(lines: list[Line]) -> list[Line]:
    """The lines with the best of each column marked, and differences from the original, where it is there."""
    original = next((line for line in lines if line.name == ORIGINAL), None)

    def column(entries: list[Entry | None], of_original: Entry | None) -> list[Entry | None]:
        values = [entry.accuracy.value for entry in entries if entry]
        marked = []
        for entry in entries:
            if entry:
                differs = None if entry is of_original or not of_original else \
                    entry.accuracy.value - of_original.accuracy.value
                entry = replace(entry, difference=differs,
                                best=entry.accuracy.value == max(values) > min(values))
            marked.append(entry)
        return marked

    for field in ("entries", "means"):
        columns = [column(list(entries), original and getattr(original, field)[i])
                   for i, entries in enumerate(zip(*(getattr(line, field) for line in lines), strict=True))]
        lines = [replace(line, **{field: tuple(entries[i] for entries in columns)}) for i, line in enumerate(lines)]
    return lines


def _seeds_left_out(line: Line) -> str:
    """Where not every dataset has every seed, of how many seeds the mean is."""
    most, mean = max(entry.accuracy.seeds for entry in line.entries), line.means[0]
    if mean is None:
        return f"{line.name} has no mean, for its datasets have no seed in common"
    return f"The mean of {line.name} is of seeds that all its datasets have, {mean.accuracy.seeds} of {most}" * (
        mean.accuracy.seeds < most)


def _notes(scores: Scores, attack: str, datasets: list[str], two: list[str], lines: list[Line],
           constant: Line) -> list[str]:
    """What a reader of the table has to know, a sentence each, without a full stop."""
    notes = ["Bold: the highest of a column, also where intervals overlap"]
    if missing := absent(datasets):
        notes.append(f"The {mean_name(datasets)} is without {', '.join(missing)}")
    notes += [f"{line.name} has no mean, for it lacks {', '.join(line.lacks)}" for line in lines if line.lacks]
    notes += [said for line in lines if not line.lacks and (said := _seeds_left_out(line))]
    if two and len(two) < len(datasets):
        notes.append(f"Two classes: {', '.join(two)}")
    settings = scores.settings.get(attack, {})
    if settings.get("attack") == "pgd" and settings["alpha_255"] >= settings["eps_255"]:
        notes.append("Steps as long as eps, as in the paper: PGD jumps from edge to edge and overstates robustness; "
                     f"read it beside a finer attack, such as pgd-{settings['steps']}-worst@{settings['eps_255']:g}")
    near = [line.name for line in lines if attack != CLEAN and line.means[0]
            and line.means[0].accuracy.low <= constant.means[0].accuracy.value]
    if near:
        notes.append("Not above the constant predictor, which no attack changes, by more than the interval: "
                     f"{', '.join(near)}")
    if not any(line.name == ORIGINAL for line in lines):
        notes.append("The original CLIP was not measured, so that there are no differences from it")
    images = sorted({len(scores.tasks[dataset].ids) for dataset in datasets})
    span = f"{images[0]:,}" if len(images) == 1 else f"{images[0]:,} to {images[-1]:,}"
    seeds = sorted({header["key"]["seed"] for line in lines for entry in line.entries if entry
                    for header in entry.headers})
    notes.append(f"{span} test images a dataset; seed{'s' * (len(seeds) > 1)} {', '.join(map(str, seeds))}; intervals "
                 f"hold {'images and seeds' if len(seeds) > 1 else 'the choice of images alone'}")
    return notes
