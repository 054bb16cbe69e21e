"""Every plot and image grid of the book: each function returns a matplotlib Figure that carries its own alt text.

Images are float tensors [N, 3, H, W] in [0, 1]; accuracies are in percent. Figures are white, readable without
colour (markers and words repeat what a colour says), and made without pyplot, so that drawing one changes no state.
"""

import io
import itertools
import math
import textwrap
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np
import torch
from matplotlib.figure import Figure
from matplotlib.offsetbox import AnnotationBbox, OffsetImage
from matplotlib.ticker import LogLocator, NullLocator

if TYPE_CHECKING:
    from IPython.display import Image

    from zsar.study import Estimate
    from zsar.trainer import History

BLUE, ORANGE, GREEN, PURPLE, GREY = "#0072B2", "#D55E00", "#009E73", "#AA4499", "#666666"  # after Okabe and Ito
COLOURS, MARKERS = (BLUE, ORANGE, GREEN, PURPLE, GREY), ("o", "s", "^", "D", "x")
#: How ``verdict_matrix`` shows each verdict: sign, colour of the field, colour of the sign.
VERDICT_SIGNS = {"pass": ("\u2713", "#D5ECE4", "black"), "warning": ("!", "#F0E442", "black"),
                 "failure": ("\u2717", ORANGE, "white"), "not run": ("\u2013", "#EEEEEE", "0.4")}


def alt_text(figure: Figure) -> str:
    """The text that stands for the figure where it cannot be seen."""
    return figure.get_label()


def encode(figure: Figure, kind: str = "png", dpi: int = 100) -> bytes:
    """The figure as a ``"png"`` (plots) or ``"jpeg"`` (pictures) file."""
    file = io.BytesIO()
    options = {"pil_kwargs": {"quality": 85}} if kind == "jpeg" else {"metadata": {"Description": alt_text(figure)}}
    figure.savefig(file, format=kind, dpi=dpi, facecolor="white", bbox_inches="tight", pad_inches=0.06, **options)
    return file.getvalue()


def show(figure: Figure, kind: str = "png", dpi: int = 100) -> "Image":
    """The figure as a cell's result, with its alt text, whatever matplotlib backend is set."""
    from IPython.display import Image

    return Image(encode(figure, kind, dpi), format=kind, alt=alt_text(figure))


def magnify(perturbation: torch.Tensor) -> torch.Tensor:
    """A perturbation [N, 3, H, W] as pictures: grey where nothing changed, each stretched to fill [0, 1]."""
    largest = perturbation.abs().amax(dim=(1, 2, 3), keepdim=True).clamp_min(1e-12)
    return 0.5 + perturbation / (2 * largest)


def image_grid(images: Sequence[torch.Tensor], titles: Sequence[str] = (), columns: int = 8) -> Figure:
    """N images, ``columns`` to a row, each under its title (long ones are broken into lines)."""
    rows, columns = math.ceil(len(images) / columns), min(columns, len(images))
    titles = ["\n".join(textwrap.wrap(title, 20)) for title in titles]
    lines = max((title.count("\n") + 1 for title in titles), default=0)
    figure, axes = _pictures(rows, columns, titles=0.12 * lines)
    for i, image in enumerate(images):
        _picture(axes[i // columns, i % columns], image)
        if titles:
            axes[i // columns, i % columns].set_title(titles[i], fontsize=7.5, pad=3)
    said = ", ".join(title.replace("\n", " ") for title in titles)
    return _labelled(figure, f"{len(images)} pictures in a grid" + (f": {said}." if titles else "."))


def contact_sheet(rows: Mapping[str, torch.Tensor], columns: int = 12) -> Figure:
    """The first ``columns`` images of every task, a row a task with its name at the left; any sizes."""
    figure, axes = _pictures(len(rows), columns)
    for line, (name, images) in zip(axes, rows.items(), strict=True):
        for axis, image in zip(line, images, strict=False):
            _picture(axis, image)
        line[0].text(-0.12, 0.5, name, transform=line[0].transAxes, ha="right", va="center", fontsize=11)
    return _labelled(figure, f"Contact sheet, a row of {columns} pictures for each of: {', '.join(rows)}.")


def attack_strip(clean: Sequence[torch.Tensor], adversarial: Sequence[torch.Tensor], before: Sequence[str],
                 after: Sequence[str]) -> Figure:
    """Three rows: the images, their perturbations magnified, the attacked images; labels before and after; any sizes.

    A label that changed is printed in bold orange behind a cross, so that colour alone says nothing.
    """
    figure, axes = _pictures(3, len(clean), titles=0.16)
    for column, (image, attacked) in enumerate(zip(clean, adversarial, strict=True)):
        change, = magnify((attacked - image)[None])
        for axis, shown in zip(axes[:, column], (image, change, attacked), strict=True):
            _picture(axis, shown)
        fooled = before[column] != after[column]
        axes[0, column].set_title(before[column], fontsize=8, pad=3)
        axes[2, column].set_title(("\u2717 " if fooled else "") + after[column], fontsize=8, pad=3,
                                  color=ORANGE if fooled else "black", fontweight="bold" if fooled else "normal")
    for axis, name in zip(axes[:, 0], ("image", "perturbation,\nmagnified", "attacked"), strict=True):
        axis.text(-0.12, 0.5, name, transform=axis.transAxes, ha="right", va="center", fontsize=9)
    changes = "; ".join(f"{a} becomes {b}" if a != b else f"{a} stays" for a, b in zip(before, after, strict=True))
    return _labelled(figure, f"{len(clean)} pictures, the perturbation added to each, magnified, and the attacked "
                             f"pictures, which look the same. Predictions: {changes}.")


def accuracy_dots(names: Sequence[str], series: Mapping[str, Sequence[tuple[float, float, float]]]) -> Figure:
    """A line a task, a marker a series, with bars: ``series[label][i]`` is (accuracy, low, high) in percent."""
    figure, axis = _plot(7.4, 0.9 + 0.27 * len(names))
    rows = np.arange(len(names))[::-1]
    for (label, values), colour, marker, shift in zip(series.items(), COLOURS, MARKERS, _shifts(len(series)),
                                                      strict=False):
        value, low, high = np.array(values, dtype=float).T
        axis.errorbar(value, rows + shift, xerr=_bars(value, low, high), fmt=marker, color=colour, markersize=5,
                      elinewidth=1.4, label=label)
    axis.set(yticks=rows, yticklabels=names, xlim=(-2, 102), ylim=(-0.7, len(names) - 0.3),
             xlabel="accuracy in percent, with 95 % interval")
    axis.grid(axis="x", color="0.9")
    axis.legend(loc="lower center", bbox_to_anchor=(0.5, 1.0), ncols=len(series), frameon=False, fontsize=9)
    return _labelled(figure, "Dot chart of accuracy in percent. " + " ".join(
        f"{label}: " + ", ".join(f"{n} {v[0]:.0f}" for n, v in zip(names, values, strict=True)) + "."
        for label, values in series.items()))


def eps_curves(eps_255: Sequence[float], series: Mapping[str, Sequence[tuple[float, float, float]]],
               faint: Mapping[str, Sequence[float]] | None = None) -> Figure:
    """Accuracy against eps in grey levels: a curve with its 95 % band a series, single tasks ``faint`` behind."""
    figure, axis = _plot(6.4, 3.8)
    for values in (faint or {}).values():
        axis.plot(eps_255, values, color="0.8", linewidth=0.8, zorder=1)
    for (label, values), (colour, marker, line) in zip(series.items(), _styles(), strict=False):
        value, low, high = np.array(values, dtype=float).T
        axis.plot(eps_255, value, marker=marker, color=colour, linestyle=line, label=label, zorder=3)
        axis.fill_between(eps_255, low, high, color=colour, alpha=0.18, linewidth=0, zorder=2)
    axis.set(xlabel="eps in grey levels (of 255)", ylabel="accuracy in percent", ylim=(-2, 102), xticks=eps_255)
    axis.set_xticklabels([f"{eps:g}" for eps in eps_255])
    axis.grid(color="0.92")
    if len(series) > len(COLOURS):  # too many to stand among the curves
        figure.legend(loc="outside right upper", frameon=False, fontsize=9)
    else:
        axis.legend(frameon=False, fontsize=9)
    return _labelled(figure, "Curves of accuracy in percent against eps in grey levels. " + " ".join(
        f"{label}: " + ", ".join(f"{v[0]:.0f} at {e:g}" for e, v in zip(eps_255, values, strict=True)) + "."
        for label, values in series.items()))


def heatmap(values: torch.Tensor, rows: Sequence[str], columns: Sequence[str], form: str = "{:.2f}",
            images: Sequence[torch.Tensor] = ()) -> Figure:
    """A matrix [R, C] with its numbers written in, NaN as a dash; ``images`` are put beside the rows' names."""
    values = values.detach().cpu().numpy()
    figure, axis = _plot(1.6 + 0.62 * len(columns), 1.0 + 0.46 * len(rows))
    axis.imshow(values, cmap="Blues", aspect="auto")
    known = values[~np.isnan(values)]
    middle = (known.min() + known.max()) / 2 if known.size else 0
    for (r, c), value in np.ndenumerate(values):
        axis.text(c, r, "–" if np.isnan(value) else form.format(value), ha="center", va="center", fontsize=8,
                  color="white" if value > middle else "black")
    axis.set_xticks(range(len(columns)), columns, rotation=40, ha="left", rotation_mode="anchor", fontsize=9)
    axis.set_yticks(range(len(rows)), rows, fontsize=9)
    axis.tick_params(top=True, bottom=False, labeltop=True, labelbottom=False, length=0, pad=4)
    for r, image in enumerate(images):
        picture = OffsetImage(image.detach().cpu().permute(1, 2, 0).numpy(), zoom=28 / image.shape[-1])
        axis.add_artist(AnnotationBbox(picture, (0, r), xycoords=("axes fraction", "data"), xybox=(-20, 0),
                                       boxcoords="offset points", frameon=False, annotation_clip=False))
    if len(images):
        axis.tick_params(axis="y", pad=40)
    strongest = "; ".join(f"{row}: {'missing' if np.isnan(line).all() else columns[int(np.nanargmax(line))]}"
                          for row, line in zip(rows, values, strict=True))
    return _labelled(figure, f"Matrix of {len(rows)} rows and {len(columns)} columns. Largest in each row: "
                             f"{strongest}.")


def verdict_matrix(rows: Mapping[str, Mapping[str, str]]) -> Figure:
    """A row a model or mistake, a column a check: ``rows[name][check]`` is a verdict of ``zsar.evaluate.TrustReport``.

    Each verdict has a sign of its own beside its colour: a tick, an exclamation mark, a cross, a dash. A check that a
    row does not have is left white.
    """
    checks = list(dict.fromkeys(check for row in rows.values() for check in row))
    figure, axis = _plot(2.6 + 0.42 * len(checks), 1.5 + 0.36 * len(rows))
    for (y, row), (x, check) in itertools.product(enumerate(rows.values()), enumerate(checks)):
        sign, face, ink = VERDICT_SIGNS[row[check]] if check in row else ("", "white", "black")
        axis.fill_between([x - 0.47, x + 0.47], y - 0.46, y + 0.46, color=face, linewidth=0)
        axis.text(x, y, sign, ha="center", va="center", fontsize=10, color=ink, fontweight="bold")
    axis.set(xlim=(-0.5, len(checks) - 0.5), ylim=(len(rows) - 0.5, -0.5))
    axis.set_xticks(range(len(checks)), checks, rotation=40, ha="left", rotation_mode="anchor", fontsize=9)
    axis.set_yticks(range(len(rows)), rows, fontsize=9)
    axis.tick_params(top=True, bottom=False, labeltop=True, labelbottom=False, length=0, pad=4)
    axis.spines[:].set_visible(False)
    figure.text(0.5, -0.01, "    ".join(f"{sign} {verdict}" for verdict, (sign, *_) in VERDICT_SIGNS.items()),
                ha="center", va="top", fontsize=9)
    said = [f"{name}: " + (", ".join(f"{check} {verdict}" for check, verdict in row.items()
                                     if verdict in ("warning", "failure")) or "no warning, no failure")
            for name, row in rows.items()]
    return _labelled(figure, f"Matrix of verdicts, {len(rows)} rows and {len(checks)} checks. {'; '.join(said)}.")


def probability_bars(names: Sequence[str], series: Mapping[str, Sequence[float]],
                     xlabel: str = "probability") -> Figure:
    """Bars of the probabilities (0 to 1) of each class, or of other shares, a colour and a hatch for every series."""
    figure, axis = _plot(6.4, 0.9 + 0.34 * len(names))
    rows, height = np.arange(len(names))[::-1], 0.8 / len(series)
    for (label, values), colour, hatch, shift in zip(series.items(), COLOURS, ("", "//", "..", "xx"),
                                                     _shifts(len(series), 0.8), strict=False):
        axis.barh(rows + shift, values, height, color=colour, hatch=hatch, edgecolor="white", label=label)
    axis.set(yticks=rows, yticklabels=names, xlim=(0, 1), xlabel=xlabel)
    axis.legend(loc="lower center", bbox_to_anchor=(0.5, 1.0), ncols=len(series), frameon=False, fontsize=9)
    return _labelled(figure, f"Bars of {xlabel}. " + " ".join(
        f"{label}: " + ", ".join(f"{n} {p:.2f}" for n, p in zip(names, values, strict=True)) + "."
        for label, values in series.items()))


def tradeoff(points: "Mapping[str, tuple[Estimate, Estimate]]", paths: Sequence[Sequence[str]] = ()) -> Figure:
    """Clean against robust accuracy: ``points[name]`` is (clean, robust), a cross as wide and high as their intervals.

    Each of ``paths`` joins points by their names with a line, the first solid, others dotted; names that are not among
    the points are passed over.
    """
    figure, axis = _plot(7.4, 5.6)
    paths = [[name for name in path if name in points] for path in paths]
    for i, path in enumerate(paths):
        line = np.array([[value.value for value in points[name]] for name in path]).reshape(-1, 2)
        axis.plot(*line.T, color="0.55", linewidth=1.2, linestyle=":" if i else "-", zorder=1)
    for (name, (clean, robust)), (colour, marker, _) in zip(points.items(), _styles(), strict=False):
        axis.errorbar(clean.value, robust.value, xerr=_bars(*_range(clean)), yerr=_bars(*_range(robust)), fmt=marker,
                      color=colour, markersize=6, elinewidth=0.9, zorder=2, label=name)
    axis.margins(0.12)
    axis.set(xlabel="clean accuracy in percent", ylabel="robust accuracy in percent")
    axis.grid(color="0.93")
    _name_points(figure, axis, {name: (clean.value, robust.value) for name, (clean, robust) in points.items()})
    joined = "".join(f" A line joins {', '.join(path)}." for path in paths if len(path) > 1)
    return _labelled(figure, "Chart of clean (across) against robust accuracy (up) in percent. " + "; ".join(
        f"{name}: {clean.value:.0f} clean, {robust.value:.0f} robust" for name, (clean, robust) in points.items())
        + "." + joined)


def step_curves(series: Mapping[str, Sequence[tuple[float, float]]], xlabel: str,
                ylabel: str = "accuracy in percent", doubling: bool = False) -> Figure:
    """A curve with markers for each of ``series``, a sequence of (x, y) of its own, which may be empty.

    ``doubling``: twice as much is as far everywhere on the x axis.
    """
    figure, axis = _plot(6.8, 3.8)
    for (label, points), (colour, marker, line) in zip(series.items(), _styles(), strict=False):
        axis.plot(*np.array(points, dtype=float).reshape(-1, 2).T, marker=marker, linestyle=line, color=colour,
                  markersize=5, label=label)
    axis.set(xlabel=xlabel, ylabel=ylabel)
    if doubling:
        axis.set_xscale("log", base=2)
        axis.xaxis.set_major_formatter("{x:g}")
    axis.grid(color="0.92")
    if not any(len(points) for points in series.values()):
        axis.text(0.5, 0.5, "not measured yet", transform=axis.transAxes, ha="center", color="0.4")
    if series:
        figure.legend(loc="outside right upper", frameon=False, fontsize=9)
    return _labelled(figure, f"Curves of {ylabel} against {xlabel}. " + " ".join(
        f"{label}: {', '.join(f'{y:.3g} at {x:g}' for x, y in points) or 'not measured yet'}."
        for label, points in series.items()))


def prompted_pictures(images: torch.Tensor, frame: torch.Tensor, prompted: torch.Tensor) -> Figure:
    """A pad prompt ``frame`` [3, S, S], magnified, then above each other N pictures and what the model sees of them.

    ``prompted`` [N, 3, S, S] may leave [0, 1]; what is outside is shown as black or white.
    """
    figure, axes = _pictures(2, len(images) + 1, titles=0.16)
    _picture(axes[0, 0], magnify(frame[None])[0])
    axes[0, 0].set_title("prompt, magnified", fontsize=8, pad=3)
    for column, pair in enumerate(zip(images, prompted, strict=True), start=1):
        for axis, image in zip(axes[:, column], pair, strict=True):
            _picture(axis, image)
    axes[0, 1].set_title("pictures", fontsize=8, pad=3, loc="left")
    axes[1, 1].set_title("with the prompt", fontsize=8, pad=3, loc="left")
    size = frame.shape[-1]
    width = int((frame.abs().sum(0)[:, size // 2] > 0).long().cumprod(0).sum())
    return _labelled(figure, f"A visual prompt, magnified: a frame {width} pixels wide on a picture of {size}. Beside "
                             f"it {len(images)} pictures in a row, and "
                             "below them the same pictures with the prompt added.")


def crossing(panels: "Mapping[str, Mapping[str, Sequence[Estimate | None]]]", at: Sequence[str]) -> Figure:
    """Do two lines cross? A panel each of ``panels``, in it a line a series over the places ``at``, with intervals.

    A missing estimate leaves its place empty, and is named missing in the alt text.
    """
    figure = Figure(figsize=(7.4, 3.6), facecolor="white", layout="constrained")
    words = []
    for axis, (title, lines) in zip(figure.subplots(1, len(panels), squeeze=False)[0], panels.items(), strict=True):
        for shift, ((name, found), (colour, marker, style)) in zip(_shifts(len(lines), 0.12),
                                                                   zip(lines.items(), _styles(), strict=False),
                                                                   strict=True):
            known = [(i - shift, estimate) for i, estimate in enumerate(found) if estimate]
            bars = np.hstack([_range(estimate) for _, estimate in known]) if known else np.empty((3, 0))
            axis.errorbar([x for x, _ in known], bars[0], yerr=_bars(*bars), marker=marker, linestyle=style,
                          color=colour, markersize=6, elinewidth=1.4, label=name)
            words.append(f"{title}, {name}: " + ", ".join(
                f"{place} {f'{estimate.value:.1f}' if estimate else 'missing'}"
                for place, estimate in zip(at, found, strict=True)) + ".")
        if not any(any(found) for found in lines.values()):
            axis.text(0.5, 0.5, "not measured yet", transform=axis.transAxes, ha="center", color="0.4")
        axis.set(title=title, xlim=(-0.4, len(at) - 0.6), ylabel="accuracy in percent")
        axis.set_xticks(range(len(at)), at)
        axis.spines[["top", "right"]].set_visible(False)
        axis.grid(axis="y", color="0.92")
    figure.legend(*axis.get_legend_handles_labels(), loc="outside lower center", ncols=2, frameon=False, fontsize=9)
    return _labelled(figure, "Lines that may cross, accuracy in percent. " + " ".join(words))


def change_panels(names: Sequence[str], panels: "Mapping[str, Mapping[str, Sequence[tuple | None]]]",
                  columns: int = 4) -> Figure:
    """What methods change: a panel each, in it a line a task from the reference's accuracy (hollow) to the method's.

    ``panels[method][series][i]`` is (reference in percent or None, Estimate of the method) of task ``names[i]``, None
    where it is missing; bars are 95 % intervals.
    """
    columns, words = min(columns, len(panels)), []
    rows = math.ceil(len(panels) / columns)
    figure = Figure(figsize=(1.5 + 2.1 * columns, 0.9 + (0.5 + 0.2 * max(4, len(names))) * rows), facecolor="white",
                    layout="constrained")
    axes, at = figure.subplots(rows, columns, squeeze=False, sharex=True, sharey=True), np.arange(len(names))[::-1]
    for axis in axes.flat[len(panels):]:
        axis.axis("off")
    for place, (axis, (method, series)) in enumerate(zip(axes.flat, panels.items(), strict=False)):
        for (label, pairs), colour, marker, shift in zip(series.items(), COLOURS, MARKERS, _shifts(len(series), 0.5),
                                                         strict=False):
            known = [(y + shift, *pair) for y, pair in zip(at, pairs, strict=True) if pair]
            _changes(axis, known, label, colour, marker)
            both = [(before, after.value) for _, before, after in known if before is not None]
            words.append(f"{method}, {label}: " + ("{:.0f} to {:.0f} on average.".format(*np.mean(both, axis=0)) if both
                                                   else "nothing to compare."))
        axis.set(xlim=(-3, 103), ylim=(-0.6, len(names) - 0.4), yticks=at, yticklabels=names)
        axis.set_title(method, fontsize=9)
        axis.tick_params(labelsize=8, labelbottom=place + columns >= len(panels))
        axis.spines[["top", "right"]].set_visible(False)
        axis.grid(axis="x", color="0.92")
    words_below = ("accuracy in percent: hollow the original,", "filled the method with its 95 % interval")
    figure.supxlabel(("\n" if columns < 3 else " ").join(words_below), fontsize=9)
    figure.legend(*axes.flat[0].get_legend_handles_labels(), loc="outside upper center", ncols=2, frameon=False,
                  fontsize=9)
    return _labelled(figure, f"A panel a method, a line for each of {len(names)} tasks from the accuracy of the "
                             f"original to that of the method, in percent. {' '.join(words)}")


def training_curves(history: "History") -> Figure:
    """The loss of every step with its mean over ten, beside clean and robust accuracy on held-out images."""
    figure = Figure(figsize=(8.2, 3.0), facecolor="white", layout="constrained")
    left, right = figure.subplots(1, 2)
    steps, losses = np.array(history.losses, dtype=float).reshape(-1, 2).T
    left.plot(steps, losses, color="0.75", linewidth=0.8)
    if len(losses) >= 10:
        left.plot(steps[9:], np.convolve(losses, np.ones(10) / 10, "valid"), color=BLUE)
    for kind, colour, marker in (("clean", BLUE, "o"), ("robust", ORANGE, "s")):
        right.plot([look["step"] for look in history.held_out], [look[kind] for look in history.held_out], color=colour,
                   marker=marker, label=kind)
    left.set(xlabel="step", ylabel="loss, and its mean over ten")
    right.set(xlabel="step", ylabel="held-out accuracy in percent", xlim=left.get_xlim(), ylim=(-2, 102))
    right.legend(frameon=False, fontsize=9)
    for axis in (left, right):
        axis.spines[["top", "right"]].set_visible(False)
        axis.grid(color="0.92")
    loss = f": loss {losses[0]:.3g} at the first, {losses[-1]:.3g} at the last" if len(losses) else ""
    looked = "".join(f"; held-out source {look['clean']:.1f} % clean, {look['robust']:.1f} % robust"
                     for look in history.held_out[-1:])
    return _labelled(figure, f"Curves of a training after {history.step} steps{loss}{looked}.")


#: For ``pulls``: the marker of a loss's targets, where they stand (degrees, distance from the centre), to which of them
#: training draws an image, whether they learn and come to meet it, and the same in words.
PULLS = {
    "clean": ("s", {"u_y": (138, 1), "u_k": (8, 1), "u_j": (172, 1)}, ["u_y"], False,
              "no attack; the texts stand still"),
    "adv": ("D", {"w_y": (140, .66), "w_k": (14, .7), "w_j": (165, .5)}, ["w_y"], True,
            "rows of a head that learns:\nthey come to meet the image"),
    "adv-fixed": ("X", {"v_y": (138, 1), "v_k": (8, 1), "v_j": (172, 1)}, ["v_y"], False,
                  "fixed directions that mean nothing:\nonly the image can move"),
    "coadv": ("D", {"w_y": (140, 1), "w_k": (8, 1), "w_j": (172, 1)}, ["w_y"], True,
              "learned unit vectors:\nthey come to meet the image"),
    "imgcoadv": ("o", {"z": (92, 1), "z_i": (138, 1), "z_k": (8, 1), "z_j": (168, 1)}, ["z", "z_i"], False,
                 "clean images of the batch,\nof the same class or another"),
    "tecoa": ("s", {"u_y": (138, 1), "u_k": (8, 1), "u_j": (172, 1)}, ["u_y"], False, "the texts stand still"),
    "fare": ("*", {"F_0(x)": (122, 1.1)}, ["F_0(x)"], False,
             "where the original had\nthe clean image; no classes"),
}


def schedules(panels: Mapping[str, Sequence[tuple[int, float, float]]], xlabel: str = "time") -> Figure:
    """Who works when: a panel each, in it a line a rank with a bar for each (rank, start, end), and the end marked."""
    ranks, end = (max(bar[i] for bars in panels.values() for bar in bars) for i in (0, 2))
    figure = Figure(figsize=(7.4, len(panels) * (0.7 + 0.22 * (ranks + 1))), facecolor="white", layout="constrained")
    axes, said = figure.subplots(len(panels), 1, squeeze=False, sharex=True)[:, 0], []
    for axis, (title, bars) in zip(axes, panels.items(), strict=True):
        rank, start, stop = np.array(bars, dtype=float).T
        axis.barh(rank, stop - start, left=start, height=0.75, color=BLUE, edgecolor="white", linewidth=0.8)
        axis.axvline(stop.max(), color=ORANGE, linestyle="--")
        axis.set(xlim=(0, 1.04 * end), ylim=(ranks + 0.6, -0.6), yticks=range(ranks + 1), ylabel="rank")
        axis.set_title(f"{title}: the last one ends at {stop.max():g}", fontsize=10, loc="left")
        axis.spines[["top", "right"]].set_visible(False)
        last = [stop[rank == r].max(initial=0) for r in range(ranks + 1)]
        said.append(f"{title}: ranks end at {', '.join(f'{at:g}' for at in last)}.")
    axes[-1].set_xlabel(xlabel)
    return _labelled(figure, f"Bars of work, a line for each of {ranks + 1} ranks. {' '.join(said)}")


def pulls(losses: Sequence[str], columns: int = 3) -> Figure:
    """What each loss (a key of ``PULLS``) pulls together, drawn on the unit circle: a panel a loss.

    Orange: the attack moves an image's embedding from z to z_a. Blue: training draws it to these targets. Grey: targets
    that it is held away from. Green: targets that learn, and come to meet it.
    """
    columns = min(columns, len(losses))
    rows = math.ceil(len(losses) / columns)
    figure = Figure(figsize=(3.1 * columns, 2.2 * rows), facecolor="white", layout="constrained")
    for axis in figure.subplots(rows, columns, squeeze=False).flat:
        axis.axis("off")
    for axis, name in zip(figure.axes, losses, strict=False):
        _pull(axis, name, *PULLS[name])
    said = "; ".join(f"{name}: {' '.join(PULLS[name][-1].split())}" for name in losses)
    return _labelled(figure, f"What each loss draws the embedding of an image to, on the unit circle. {said}.")


def against_texts(panels: Mapping[str, tuple[torch.Tensor, torch.Tensor]]) -> Figure:
    """Where images stand among the texts: a panel a model, with cosines [N, 2] of clean and of attacked images.

    Across: the cosine with the text of the own class; up: the largest with another. Right answers lie below the line.
    """
    columns, said = min(3, len(panels)), []
    rows, values = math.ceil(len(panels) / columns), torch.cat([one for pair in panels.values() for one in pair])
    span = [values.min().item() - .05, values.max().item() + .05]
    figure = Figure(figsize=(2.6 * columns, 2.7 * rows), facecolor="white", layout="constrained")
    axes = figure.subplots(rows, columns, squeeze=False, sharex=True, sharey=True)
    for axis in axes.flat:
        axis.axis("off")
    for axis, (name, pair) in zip(axes.flat, panels.items(), strict=False):
        axis.axis("on")
        axis.plot(span, span, color="0.7", linewidth=1, zorder=0)
        for cosines, label, colour, marker in zip(pair, ("clean", "attacked"), (BLUE, ORANGE), ("o", "x"), strict=True):
            axis.plot(*cosines.cpu().T.numpy(), marker, color=colour, markersize=4, alpha=.6, label=label)
        axis.set_title(name, fontsize=10, fontweight="bold")
        axis.set(xlim=span, ylim=span, aspect="equal")
        below = [100 * (cosines[:, 0] > cosines[:, 1]).float().mean().item() for cosines in pair]
        said.append(f"{name}: {below[0]:.0f} % of the clean and {below[1]:.0f} % of the attacked images below it")
    figure.supxlabel("cosine with the text of its own class", fontsize=9)
    figure.supylabel("largest cosine with another text", fontsize=9)
    figure.legend(*figure.axes[0].get_legend_handles_labels(), loc="outside upper center", ncols=2, frameon=False)
    return _labelled(figure, "Each image's cosine with its own text against the largest with another, and the line on "
                             f"which they are equal. {'; '.join(said)}.")


def gains(measured: Mapping[str, tuple[float, float, float]], counted: Mapping[str, float]) -> Figure:
    """How many times as fast each step made a program: (median, low, high) of the clock, and the operations saved."""
    figure, axis = _plot(7.4, 1.1 + 0.36 * len(measured))
    rows, (up, down) = np.arange(len(measured))[::-1], _shifts(2)
    value, low, high = np.array(list(measured.values()), dtype=float).T
    axis.axvline(1, color="0.6", linewidth=1)
    axis.errorbar(value, rows + up, xerr=_bars(value, low, high), fmt=MARKERS[0], color=BLUE, markersize=6,
                  elinewidth=1.4, label="measured, with its spread")
    axis.plot([counted[name] for name in measured], rows + down, MARKERS[2], color=ORANGE, markersize=6,
              label="counted operations")
    axis.set(xscale="log", yticks=rows, yticklabels=list(measured), ylim=(-0.7, len(measured) - 0.3),
             xlabel="times as fast as before this step; times fewer operations")
    axis.xaxis.set_major_locator(LogLocator(base=10, subs=(1, 1.2, 1.5, 2, 3, 5, 7)))
    axis.xaxis.set_major_formatter("{x:g}")
    axis.xaxis.set_minor_locator(NullLocator())
    axis.grid(axis="x", color="0.92")
    axis.legend(loc="lower center", bbox_to_anchor=(0.5, 1.0), ncols=2, frameon=False, fontsize=9)
    return _labelled(figure, "Dots, a line a step: how many times as fast it made the program, and how many times "
                             "fewer operations there are. " + "; ".join(
        f"{name}: {found[0]:.2f} measured, {counted[name]:.2f} counted" for name, found in measured.items()) + ".")


def roofline(peak: float, bandwidth: float, points: Mapping[str, tuple[float, float]]) -> Figure:
    """What a machine can reach, and what programs do: ``points[name]`` is (operations a byte, operations a second).

    The roof is that of Williams et al. 2009: the smaller of ``peak``, in operations a second, and ``bandwidth``, in
    bytes a second, times operations a byte.
    """
    figure, axis = _plot(7.4, 4.4)
    ridge, places = peak / bandwidth, [place for place, _ in points.values()]
    line = np.array([min(*places, ridge) / 2, ridge, 2 * max(*places, ridge)])
    axis.plot(line, np.minimum(peak, bandwidth * line) / 1e9, color="0.4", linewidth=1.5, zorder=1)
    for (name, (place, speed)), (colour, marker, _) in zip(points.items(), _styles(), strict=False):
        axis.plot(place, speed / 1e9, marker, color=colour, markersize=7, label=name)
    axis.set(xscale="log", yscale="log", xlabel="operations for each byte that is moved",
             ylabel="billion operations a second")
    for side in (axis.xaxis, axis.yaxis):
        side.set_major_locator(LogLocator(base=10, subs=(1, 2, 5)))
        side.set_major_formatter("{x:g}")
        side.set_minor_locator(NullLocator())
    axis.grid(color="0.92")
    axis.legend(loc="lower right", frameon=False, fontsize=9)
    return _labelled(figure, f"A roof that rises with {bandwidth / 1e9:.3g} GB/s up to {ridge:.3g} operations a byte, "
                             f"and is flat at {peak / 1e9:.3g} billion operations a second from there on. " + "; ".join(
        f"{name}: {speed / min(peak, bandwidth * place):.0%} of the roof at {place:.3g} operations a byte"
        for name, (place, speed) in points.items()) + ".")


def _labelled(figure: Figure, alt: str) -> Figure:
    figure.set_label(alt)
    return figure


def _plot(width: float, height: float):
    figure = Figure(figsize=(width, height), facecolor="white", layout="constrained")
    axis = figure.add_subplot()
    axis.spines[["top", "right"]].set_visible(False)
    return figure, axis


def _pictures(rows: int, columns: int, titles: float = 0.0):
    """A bare grid of square pictures, ``titles`` of a picture's height left free above each row."""
    side = min(1.15, 9.0 / columns)
    figure = Figure(figsize=(side * columns, side * rows * (1 + titles)), facecolor="white")
    axes = figure.subplots(rows, columns, squeeze=False,
                           gridspec_kw={"wspace": 0.05, "hspace": 0.05 + titles,
                                        "left": 0, "right": 1, "top": 1, "bottom": 0})
    for axis in axes.flat:
        axis.axis("off")
    return figure, axes


def _picture(axis, image: torch.Tensor) -> None:
    axis.imshow(image.detach().cpu().clamp(0, 1).permute(1, 2, 0).numpy(), interpolation="nearest")
    axis.axis("off")


def _bars(value: np.ndarray, low: np.ndarray, high: np.ndarray) -> np.ndarray:
    return np.maximum(0, np.stack([value - low, high - value]))


def _shifts(n: int, room: float = 0.4) -> np.ndarray:
    """Offsets that set n markers of one row apart, the first on top."""
    return (n - 1 - 2 * np.arange(n)) / (2 * n) * room


def _styles():
    """Colour, marker and line of one series after another, without end; no two of twenty-five are the same."""
    lines = ("-", "--", ":", "-.", "-")
    yield from itertools.cycle((COLOURS[i], MARKERS[(i + shift) % 5], lines[shift])
                               for shift, i in itertools.product(range(5), range(5)))


def _range(found: "Estimate") -> np.ndarray:
    return np.array([[found.value], [found.low], [found.high]])


def _name_points(figure: Figure, axis, places: Mapping[str, tuple[float, float]]) -> None:
    """Write each name beside its point, where it covers the fewest points and names, judged in points of the page."""
    size, scale = 8, 72 / figure.dpi
    figure.draw_without_rendering()
    spots = {name: axis.transData.transform(place) * scale for name, place in places.items()}
    left, bottom, right, top = np.array(axis.bbox.extents) * scale
    taken = [(x - 4, y - 4, x + 4, y + 4) for x, y in spots.values()]
    for name, (x, y) in spots.items():
        w, h = 0.62 * size * len(name), 1.2 * size
        boxes = [(x + dx, y + dy, x + dx + w, y + dy + h)
                 for reach in (6, 16, 28)
                 for dx, dy in ((reach, 2), (-reach - w, 2), (reach, -h - 2), (-reach - w, -h - 2),
                                (-w / 2, reach), (-w / 2, -reach - h))]
        best = min(boxes, key=lambda box: sum(_overlap(box, other) for other in taken)
                   + 3 * (w * h - _overlap(box, (left, bottom, right, top))))
        taken.append(best)
        far = math.hypot(max(best[0] - x, 0, x - best[2]), max(best[1] - y, 0, y - best[3])) > 12
        axis.annotate(name, places[name], (best[0] - x, best[1] + 2 - y), textcoords="offset points", fontsize=size,
                      arrowprops={"arrowstyle": "-", "color": "0.7", "linewidth": 0.6} if far else None)


def _overlap(a: tuple, b: tuple) -> float:
    """The area that two boxes (left, bottom, right, top) have in common."""
    return max(0, min(a[2], b[2]) - max(a[0], b[0])) * max(0, min(a[3], b[3]) - max(a[1], b[1]))


def _pull(axis, name: str, marker: str, targets: dict, pulled: list[str], learn: bool, words: str) -> None:
    around = np.radians(np.arange(-3, 184))
    axis.plot(np.cos(around), np.sin(around), color="0.8", linewidth=1, zorder=0)
    image, attacked = _at(92, 1), _at(40, .8 if name == "fare" else 1)
    clean_name, attacked_name = ("F(x)", "F(x_a)") if name == "fare" else ("z", "z_a")
    if name == "clean":
        attacked = image
    else:
        _arrow(axis, image, attacked, ORANGE, "attack", (66, 1.34), bend=-.35)
        _mark(axis, attacked, "o", ORANGE, attacked_name)
    if "z" not in targets:
        _mark(axis, image, "o", "black", clean_name)
    for label, (angle, radius) in targets.items():
        place, near = _at(angle, radius), label in pulled
        _mark(axis, place, marker, BLUE if near else GREY, label)
        if near:
            _arrow(axis, attacked, place, BLUE, "training" if label == pulled[-1] else "", (94, .33))
        if near and learn:
            _arrow(axis, place, place + .62 * (image - place), GREEN, "learns", (122, 1.42), bend=-.3)
    axis.set(xlim=(-1.4, 1.4), ylim=(-.52, 1.42), aspect="equal")
    axis.set_title(name, fontsize=10, fontweight="bold", pad=3)
    axis.text(0, -.14, words, ha="center", va="top", fontsize=8.5)


def _changes(axis, known: Sequence[tuple], label: str, colour: str, marker: str) -> None:
    both = np.array([(y, before, after.value) for y, before, after in known if before is not None]).reshape(-1, 3).T
    axis.hlines(*both, color=colour, linewidth=1, alpha=.5, zorder=1)
    axis.plot(both[1], both[0], marker, color=colour, markerfacecolor="white", markersize=4, zorder=2)
    bars = np.hstack([_range(after) for _, _, after in known]) if known else np.empty((3, 0))
    axis.errorbar(bars[0], [y for y, *_ in known], xerr=_bars(*bars), fmt=marker, color=colour, markersize=4,
                  elinewidth=0.8, zorder=3, label=label)


def _at(angle: float, radius: float) -> np.ndarray:
    return radius * np.array([math.cos(math.radians(angle)), math.sin(math.radians(angle))])


def _mark(axis, place: np.ndarray, marker: str, colour: str, label: str) -> None:
    axis.plot(*place, marker=marker, color=colour, markersize=7, zorder=3)
    away = (15 if len(label) < 5 else 19) * place / np.linalg.norm(place)
    axis.annotate(f"${label}$", place, away, textcoords="offset points", ha="center", va="center", fontsize=9,
                  color=colour)


def _arrow(axis, start: np.ndarray, end: np.ndarray, colour: str, word: str, at: tuple, bend: float = 0) -> None:
    axis.annotate("", end, start, arrowprops={"arrowstyle": "-|>", "color": colour, "shrinkA": 5, "shrinkB": 5,
                                              "connectionstyle": f"arc3,rad={bend}"})
    axis.text(*_at(*at), word, color=colour, fontsize=8.5, ha="center", va="center")
