"""What a store holds, from the command line: ``python -m zsar results show|compare|merge|export|report``."""

import argparse
import json
from collections.abc import Callable

import pandas

from zsar.errors import OutputError, ZsarError, unknown_name
from zsar.outputs import writable_file, write_atomically
from zsar.results import Store
from zsar.results.comparison import Comparison, compare, differing, mean_difference
from zsar.results.tables import (
    CLEAN,
    cell_row,
    dataset_place,
    method_names,
    method_place,
    model_of,
    no_cells,
    rows,
    select,
)

FORMS = ("csv", "json", "latex", "markdown")
FILTERS = ("method", "dataset", "attack", "seed")
COLUMNS = ("method", "dataset", "attack", "seed", "images", "clean %", "95 %", "robust %", "95 % ", "clean per class",
           "robust per class", "unreadable", "model")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of ``python -m zsar results``."""
    tasks = parser.add_subparsers(dest="task", required=True, metavar="show|compare|merge|export|report")

    def task(name: str, work: Callable[[argparse.Namespace], str], summary: str) -> argparse.ArgumentParser:
        command = tasks.add_parser(name, help=summary, description=summary, allow_abbrev=False)
        command.set_defaults(work=work)
        return command

    command = task("compare", compare_methods, "two methods image by image, a test a dataset")
    command.add_argument("a", metavar="A", help="a method as the rows of show call it, such as tecoa:finetune")
    command.add_argument("b", metavar="B", help="another, such as clip")
    command.add_argument("--store", required=True, metavar="DIR", help="folder of the store")
    command.add_argument("--other", metavar="DIR", help="the store that B is in (default: that of A)")
    command = task("merge", merge, "bring together the cells of several machines; adapted weights (adapted/) "
                   "stay where they are")
    command.add_argument("out", metavar="OUT", help="store that receives the cells; it may be new")
    command.add_argument("stores", nargs="+", metavar="STORE", help="stores that are read")
    for name, work, summary in (("show", show, "the rows as a table"),
                                ("export", export, "csv, json: a line a cell; latex, markdown: the paper's table"),
                                ("report", report, "a page with tables, figures, and where each number comes from")):
        command = task(name, work, summary)
        command.add_argument("store", metavar="STORE", help="folder of the store")
        if name == "export":
            command.add_argument("form", metavar="|".join(FORMS))
        if name != "show":
            command.add_argument("--out", metavar="FILE", help="file to write (default: " + (
                "the terminal)" if name == "export" else "report.html in the store)"))
        for kind in FILTERS:
            command.add_argument(f"--{kind}", metavar=f"{kind.upper()},...", help=f"only these {kind}s")


def run(args: argparse.Namespace) -> str:
    """Do the task that was asked for."""
    return args.work(args)


def _read(folder: str) -> tuple[Store, list[dict]]:
    """A store that has cells, and their headers. Raises StoreError."""
    store = Store(folder, write=False)
    if not (headers := store.headers()):
        raise no_cells(store.folder)
    return store, headers


def _filters(args: argparse.Namespace) -> dict[str, list[str]]:
    """The filters of a command line. Raises ZsarError for one that names nothing."""
    chosen = {kind: [word.strip() for word in (getattr(args, kind) or "").split(",") if word.strip()]
              for kind in FILTERS}
    if empty := [kind for kind in FILTERS if getattr(args, kind) is not None and not chosen[kind]]:
        raise ZsarError(f"--{empty[0]} {getattr(args, empty[0])!r}: expected names with commas between them")
    return chosen


def show(args: argparse.Namespace) -> str:
    """A row a method, dataset, seed and attack, clean accuracy beside robust."""
    (_, headers), chosen = _read(args.store), _filters(args)
    select(headers, **chosen)  # for what it raises
    attacks = chosen.pop("attack")
    beside = [header for header in select(headers, **chosen)
              if not attacks or header["key"]["attack"] in (CLEAN, *attacks) and attacks != [CLEAN]
              or header["key"]["attack"] in attacks]
    found = [row for row in rows(beside, method_names(headers)) if not attacks or row["attack"] in attacks]
    found.sort(key=lambda row: (method_place(row["method"]), dataset_place(row["dataset"]), row["attack"], row["seed"]))
    table = pandas.DataFrame([_told(row) for row in found]).fillna("")
    return table[[column for column in COLUMNS if column in table]].to_string(index=False)


def _told(row: dict) -> dict[str, str | int]:
    """A row with its numbers as they are shown."""
    told = {"method": row["method"], "dataset": row["dataset"], "attack": row["attack"], "seed": row["seed"],
            "images": row["images"], "model": row["model"][:7]}
    for kind, blank in (("clean", ""), ("robust", " ")):
        if kind in row:
            told |= {f"{kind} %": f"{row[kind]:.1f}", f"95 %{blank}": "{:.1f}-{:.1f}".format(*row[f"{kind}_interval"])}
        if f"{kind}_per_class" in row:
            told[f"{kind} per class"] = f"{row[f'{kind}_per_class']:.1f}"
    if "unreadable" in row:
        told["unreadable"] = row["unreadable"]
    return told


def compare_methods(args: argparse.Namespace) -> str:
    """A test a dataset, and the mean of the differences, for every attack and seed that both methods have."""
    store = Store(args.store, write=False)
    other = Store(args.other, write=False) if args.other else store
    if args.a == args.b and other is store:
        raise ZsarError(f"compare {args.a} {args.b}: the same method twice; name another, or its store by --other")
    found, alone = compare(args.a, args.b, store, other)
    families: dict[tuple[str, int], list[Comparison]] = {}
    for one in sorted(found, key=lambda one: dataset_place(one.dataset)):
        families.setdefault((one.attack, one.seed), []).append(one)
    parts = [_family(args, attack, seed, family) for (attack, seed), family in families.items()]
    parts.append("A - B in points with 95 % intervals; p of McNemar's exact test; p Holm: corrected for the datasets "
                 "of an attack and seed. A seed is compared with the same seed; seeds are never pooled.")
    if alone:
        parts.append(f"{alone} cells of either have no partner with the same attack, seed and dataset")
    return "\n\n".join(parts)


def _family(args: argparse.Namespace, attack: str, seed: int, family: list[Comparison]) -> str:
    """The comparisons of one attack and seed as a table, with their mean."""
    table = pandas.DataFrame([{
        "dataset": one.dataset, "images": one.paired.images, "A %": f"{one.a:.1f}", "B %": f"{one.b:.1f}",
        "A - B": f"{one.paired.difference:+.1f}", "95 %": f"{one.paired.low:+.1f} to {one.paired.high:+.1f}",
        "A alone": one.paired.only_a, "B alone": one.paired.only_b, "p": f"{one.paired.p:.2g}",
        "p Holm": f"{one.p_holm:.2g}"} for one in family])
    mean = mean_difference(family)
    lines = [f"A = {args.a}, B = {args.b}, attack {attack}, seed {seed}", table.to_string(index=False),
             f"mean of {len(family)}: {mean.value:+.1f} ({mean.low:+.1f} to {mean.high:+.1f})"]
    lines += [f"{one.dataset}: {one.left_out} images that only one of them has, or could not read, are left out"
              for one in family if one.left_out]
    lines += [f"{one.dataset}: the same classes in other prompts" for one in family if not one.same_texts]
    return "\n".join(lines)


def merge(args: argparse.Namespace) -> str:
    """Copy what OUT lacks from every store, and say how many; cells of OUT stay as they are."""
    others = [Store(folder, write=False) for folder in args.stores]
    store, lines = Store(args.out), []
    for other in others:
        if other.folder.resolve() == store.folder.resolve():
            raise OutputError(f"{other.folder} is the store that receives: name others")
        told = [f"  {key.path}: another answer to {images} of its images; that of {store.folder} stays"
                for key, images in differing(store, other)]
        counts = store.merge(other)
        lines += [f"{other.folder}: {counts['copied']} cells copied, {counts['here']} there already, "
                  f"{counts['differing']} differing", *told]
    return "\n".join(lines)


def export(args: argparse.Namespace) -> str:
    """The store in another form, on the terminal or in a file."""
    if args.form not in FORMS:
        raise unknown_name("form", args.form, FORMS)
    out = writable_file(args.out) if args.out else None
    store, headers = _read(args.store)
    chosen, names = select(headers, **_filters(args)), method_names(headers)
    if args.form in ("csv", "json"):
        text = _lines([cell_row(header, names[model_of(header)]) for header in chosen], args.form)
    else:
        from zsar.report import Scores, paper_table  # a list need not wait for what draws

        scores = Scores(store, chosen)
        tables = [paper_table(scores, attack) for attack in (CLEAN, *scores.attacks) if scores.datasets(attack)]
        text = "\n\n".join(table.to_latex() if args.form == "latex" else table.to_markdown() for table in tables)
    if not out:
        return text
    write_atomically(out, f"{text}\n".encode())
    return f"{out}: {args.form} of {len(chosen)} cells"


def _lines(cells: list[dict], form: str) -> str:
    """Cells as JSON, or as CSV with the settings of the adaptation in JSON."""
    if form == "json":
        return json.dumps({"rows": cells}, indent=1, ensure_ascii=False)
    table = pandas.DataFrame([row | {"adaptation": json.dumps(row["adaptation"])} for row in cells])
    return table.convert_dtypes().to_csv(index=False).rstrip("\n")


def report(args: argparse.Namespace) -> str:
    """Write the page; its path."""
    from zsar.report import write_report

    store, headers = _read(args.store)
    return str(write_report(store, {}, args.out or store.folder / "report.html",
                            headers=select(headers, **_filters(args))))
