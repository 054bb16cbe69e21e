"""The record of ``python -m zsar bench`` as text for a terminal."""

from itertools import groupby

COLUMNS = ["compared with", "ours", "peer", "", "ratio", "of the rate", "MB ours, peer", "agreement"]


def table(record: dict) -> str:
    """Comparisons by their number of classes, sweeps, and below them the settings."""
    lines = []
    for classes, rows in groupby(record["rows"], lambda row: row["settings"]["classes"]):
        rows = list(rows)
        lines += [_title(rows[0]["settings"], classes, record["settings"]["steps"]),
                  *_aligned([COLUMNS, *map(_cells, rows)]), ""]
    lines += [_rates(record), *_scaling(record.get("scaling", ())), *_accelerator(record)]
    return "\n".join([*lines, _settings(record)])


def _title(settings: dict, classes: int, steps: int) -> str:
    return ", ".join([
        settings["model"], f"{classes} classes", f"{settings['images']} images of {settings['size']} px",
        f"PGD-{steps} at eps {settings['eps_255']:g}/255", f"ours {settings['micro_batch']} images at a time",
        f"ours in {settings['precision']}{' and compiled' * settings['compiled']}"])


def _cells(row: dict) -> list[str]:
    name = row["name"] + _how(row)
    if row["ours"] is None:
        return [name, "", "", "not timed", "", "", "", f"DIFFERS: {agreement(row['agreement'])}"]
    ours, peer = row["ours"], row["peer"]
    memory = ", ".join("?" if side["memory_bytes"] is None else f"{side['memory_bytes'] / 1e6:,.0f}"
                       for side in (ours, peer))
    shares = ", ".join("?" if side["share_of_matrix_rate"] is None else f"{side['share_of_matrix_rate']:.0%}"
                       for side in (ours, peer))
    return [name, _number(ours["images_x_steps_per_second"]), _number(peer["images_x_steps_per_second"]), row["unit"],
            f"{row['ratio']:.2f}x", shares, memory, agreement(row["agreement"])]


def _how(row: dict) -> str:
    """What a reader must know of a peer: another precision, prompts in parts."""
    settings = row["settings"]
    said = [settings["peer_precision"]] if settings["peer_precision"] != settings["precision"] else []
    if settings["classes"] > settings.get("chunk", settings["classes"]):
        said.append(f"{settings['chunk']} prompts at a time")
        said += ["1 step"] if settings.get("attack") else []
    return f" ({', '.join(said)})" if said else ""


def agreement(found: dict) -> str:
    """How far two sides are apart, in words."""
    if "largest_update" in found:
        return (f"weights apart by {found['largest_difference_of_weights']:.1e}, of an update of up to "
                f"{found['largest_update']:.1e}")
    if found["equal_pixels"] == 1:
        return "every pixel the same, bit for bit"
    return (f"{1e6 * (1 - found['equal_pixels']):,.0f} in a million pixels differ, by up to "
            f"{found['largest_difference_255']:.2g} grey levels; loss {found['loss']:.3f}, {found['peer_loss']:.3f}, "
            f"of an image apart by {found['largest_loss_difference']:.1g} at most; {found['correctness_differs']} of "
            f"{found['images']} differ in being fooled")


def _number(value: float) -> str:
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


def _aligned(rows: list[list[str]]) -> list[str]:
    """Rows of words in columns: numbers to the right, words to the left."""
    widths, right = [max(map(len, column)) for column in zip(*rows, strict=True)], {1, 2, 4, 5, 6}
    return ["  ".join(word.rjust(width) if place in right else word.ljust(width)
                      for place, (word, width) in enumerate(zip(row, widths, strict=True))).rstrip() for row in rows]


def _rates(record: dict) -> str:
    rates = (f"{rate / 1e12:.3g} TFLOP/s in {name}" for name, rate in record["matrix_flops_per_second"].items())
    return (f"the rate: of one large matrix product on this machine, {', '.join(rates)}; a side's share is of that of "
            "its own precision")


def _scaling(rows: list[dict]) -> list[str]:
    lines = []
    for varied, points in groupby(rows, lambda row: row["varied"]):
        points = list(points)
        sides = [side for side in ("ours", "torchattacks") if side in points[0]]
        words = [[f"images x steps/s by {varied}", *sides]]
        words += [[str(point[varied]), *(_number(point[side]) for side in sides)] for point in points]
        lines += ["", *_aligned([list(column) for column in zip(*words, strict=True)])]
    return [*lines, ""] if lines else []


def _accelerator(record: dict) -> list[str]:
    lines = []
    if batches := record.get("batches"):
        best, precision = batches[0], record["rows"][0]["settings"]["precision"]
        speed, rate = best["images_x_steps_per_second"], record["matrix_flops_per_second"][precision]
        lines.append(f"best batch {best['batch']}: {speed:,.0f} images x steps/s, "
                     f"{2 * record['flops']['ours'] * speed / rate:.0%} of the rate in {precision}")
    if "sign_agreement_bf16" in record:
        lines.append(f"signs of gradients in bf16 and fp32: {100 * record['sign_agreement_bf16']:.2f} % the same")
    lines += [f"robust accuracy of {found['model']}, {found['images']} images: {found['robust']['bf16']:.2f} % by "
              f"gradients in bf16, {found['robust']['fp32']:.2f} % in fp32" for found in record.get("robust_bf16", ())]
    return lines


def _settings(record: dict) -> str:
    """Repeats and their spread, the machine and the versions."""
    sides = [row[side] for row in record["rows"] if row["ours"] for side in ("ours", "peer")]
    spread = max((side["spread"][1] / side["spread"][0] - 1 for side in sides), default=0)
    repeats = sorted({side["repeats"] for side in sides})
    place, threads, other = record["provenance"], record["threads"], record["torchattacks"]
    return ", ".join([
        f"medians of {' or '.join(map(str, repeats))} repeats after a warm-up (a peer's single one: without)",
        f"the slowest up to {100 * spread:.0f} % above the fastest; {place['device']}",
        f"{threads} thread{'s' * (threads > 1)}", f"torch {place['torch']}",
        *([f"torchattacks {other}"] if other else []), place["commit"]])
