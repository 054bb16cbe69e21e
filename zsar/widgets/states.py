"""The states of the book's own figures: an attack at one eps, a picture under one sentence or in a frame, a point
between towers.
"""

from collections.abc import Mapping, Sequence

import torch
from markupsafe import Markup

from zsar.figures import magnify
from zsar.results import Estimate
from zsar.widgets.fragments import Bar, Picture, bars, pictures, tradeoff_line
from zsar.widgets.live import State


def attack_state(image: torch.Tensor, attacked: torch.Tensor, before: torch.Tensor, after: torch.Tensor,
                 names: Sequence[str], truth: int, eps_255: float) -> State:
    """An image [3, H, W], the perturbation, the attacked image, and the probabilities [K] of both."""
    change = f"magnified {127.5 / eps_255:.3g} times" if eps_255 else "nothing yet"
    shown = pictures([Picture(image, "the picture", f"A picture of {names[truth]}", "jpeg"),
                      Picture(magnify((attacked - image)[None])[0], f"what is added, {change}",
                              "Coloured noise" if eps_255 else "An even grey", "jpeg"),
                      Picture(attacked, "the sum", f"The picture of {names[truth]} with the noise added", "jpeg")])
    old, new = int(before.argmax()), int(after.argmax())
    verdict = f"is now called {names[new]}" if new != old else f"is still called {names[new]}"
    sentence = (f"At eps {eps_255:g}/255 the {names[truth]} {verdict}, with {_percent(after[new])}; before the attack "
                f"it was called {names[old]}, with {_percent(before[old])}.")
    return State(shown + _probabilities({"before, %": before, "after, %": after}, names, truth), sentence)


def template_state(image: torch.Tensor, probabilities: torch.Tensor, names: Sequence[str], truth: int,
                   template: str) -> State:
    """An image [3, H, W] and the probabilities [K] of its classes when their names stand in a template."""
    first, second = probabilities.topk(2).indices.tolist()
    shown = pictures([Picture(image, names[truth], f"A picture of {names[truth]}")])
    sure, less = (_percent(probabilities[k]) for k in (first, second))
    sentence = (f"With \u201c{template}\u201d the {names[truth]} is called {names[first]}, with {sure}; the next is "
                f"{names[second]}, with {less}.")
    return State(shown + _probabilities({"probability, %": probabilities}, names, truth, len(names)), sentence)


def prompt_state(image: torch.Tensor, prompted: torch.Tensor, bare: torch.Tensor, framed: torch.Tensor,
                 names: Sequence[str], truth: int, frame: str, attack: str | None = None) -> State:
    """An image [3, H, W] and what a model with a pad prompt is shown of it [3, S, S], both in [0, 1]; the probabilities
    [K] that the bare model and the prompted one give ``image``. frame, attack: an adjective for each.
    """
    what = f"{names[truth]}, under the {attack} attack," if attack else names[truth]
    shown = pictures([Picture(image, "what the bare tower is shown", f"A picture, {what.rstrip(',')}", "jpeg"),
                      Picture(prompted, f"in the {frame} frame", f"The picture with the {frame} frame added", "jpeg")])
    old, new = int(bare.argmax()), int(framed.argmax())
    sentence = (f"The {what} is called {names[old]} by the bare model, with {_percent(bare[old])}; in the {frame} "
                f"frame it is called {names[new]}, with {_percent(framed[new])}.")
    return State(shown + _probabilities({"bare, %": bare, "framed, %": framed}, names, truth), sentence)


def interpolation_state(curve: Mapping[float, tuple[Estimate, Estimate]], w: float) -> State:
    """A point of a curve, (clean, robust) accuracy by weight, beside its ends; and what a coin would reach there."""
    ends, (clean, robust) = (curve[0], curve[1]), curve[w]
    coin = [(1 - w) * one.value + w * other.value for one, other in zip(*ends, strict=True)]
    rows = {f"w = {at:g}": [Bar.of(found) for found in curve[at]] for at in sorted({0, w, 1})}
    sentence = (f"At w = {w:g}: {clean}\u00a0% clean, {robust}\u00a0% robust accuracy. The coin would have "
                f"{coin[0]:.1f}\u00a0% and {coin[1]:.1f}\u00a0%.")
    line = tradeoff_line({f"w = {at:g}": pair for at, pair in curve.items()}, f"w = {w:g}")
    return State(line + bars(["weight", "clean, %", "robust, %"], rows, bold=f"w = {w:g}"), sentence)


def _probabilities(columns: Mapping[str, torch.Tensor], names: Sequence[str], truth: int, most: int = 5) -> Markup:
    """Bars of the likeliest classes in the order of the first column; the right one is in bold and always among them.
    """
    largest = torch.stack(list(columns.values())).amax(0)
    largest[truth] = 2
    order = next(iter(columns.values())).argsort(descending=True).tolist()
    chosen = set(largest.topk(min(most, len(names))).indices.tolist())
    rows = {names[k]: [Bar(100 * float(values[k])) for values in columns.values()] for k in order if k in chosen}
    return bars(["class", *columns], rows, bold=names[truth])


def _percent(share: torch.Tensor) -> str:
    return f"{100 * float(share):.1f}\u00a0%"
