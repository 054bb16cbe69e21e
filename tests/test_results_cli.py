"""zsar results: what a store holds, filtered, compared, merged and carried elsewhere, and what is wrong with it."""

import csv
import io
import json
import os
import re
import subprocess
import sys
import tempfile

import numpy as np
import pytest
from scipy import stats
from stored import ATTACK, first, put, task

from zsar import __main__ as cli
from zsar.errors import ClassNamesError, StoreError
from zsar.paths import data_path
from zsar.results import Key, Store, holm, paired
from zsar.results import sealed as sealed_module
from zsar.results.comparison import cell_file, compare, mean_difference
from zsar.results.tables import method_names, rows, select

TASK = task("DrawnDTD", [0, 1, 2, 0, 1, 2, 0, 1, 2, 0])
BINARY = task("DrawnPCAM", [0, 1] * 5, ("healthy tissue", "tumour"))


@pytest.fixture
def store(tmp_path) -> Store:
    """Two methods on two tasks, clean and attacked."""
    store = Store(tmp_path / "store")
    for of, hits in ((TASK, (9, 1, 7, 4)), (BINARY, (8, 0, 6, 5))):
        for (method, attack), right in zip((("clip", "none"), ("clip", ATTACK), ("tecoa:finetune", "none"),
                                            ("tecoa:finetune", ATTACK)), hits, strict=True):
            put(store, of, method, attack, first(right))
    return store


def output(capsys, *words: object) -> str:
    """What ``zsar results`` prints where all is well."""
    assert cli.main(["results", *map(str, words)]) == 0
    return capsys.readouterr().out


def error(capsys, *words: object) -> str:
    """Its one line of error."""
    assert cli.main(["results", *map(str, words)]) == 2
    captured = capsys.readouterr()
    assert captured.out == "" and captured.err.count("\n") == 1
    return captured.err


def words_of(text: str) -> list[list[str]]:
    return [line.split() for line in text.splitlines()]


@pytest.fixture
def many_attacks(store) -> Store:
    """Both methods under attacks that have no step size, no iterate, and some no steps."""
    for attack in ("apgd-ce-100@4", "apgd-ce-100@8", "apgd-t-100@4", "square-5000@4", "ensemble@4"):
        for method, right in (("clip", 1), ("tecoa:finetune", 3)):
            put(store, TASK, method, attack, first(right))
    return store


@pytest.mark.parametrize("words", [
    ("show", "STORE"), ("show", "STORE", "--attack", "ensemble@4"), ("report", "STORE"),
    ("compare", "tecoa:finetune", "clip", "--store", "STORE"),
    *(("export", "STORE", form) for form in ("csv", "json", "latex", "markdown"))])
def test_attacks_of_every_kind_are_told(many_attacks, capsys, words):
    text = output(capsys, *(many_attacks.folder if word == "STORE" else word for word in words))
    if words[0] == "report":
        text = (many_attacks.folder / "report.html").read_text()
        assert "Mean accuracy against eps, apgd-ce-100, with" in text
    assert "ensemble" in text
    if words[-1] in ("csv", "json"):
        rows = json.loads(text)["rows"] if words[-1] == "json" else list(csv.DictReader(io.StringIO(text)))
        row = next(row for row in rows if row["attack"] == "square-5000@4" and row["method"] == "clip")
        assert [float(row[name]) for name in ("eps_255", "steps", "accuracy")] == [4, 5000, 10]
        assert not row["alpha_255"] and not row["iterate"]


# show

def test_rows_stand_in_the_order_of_the_paper(store, capsys):
    head, *lines = words_of(output(capsys, "show", store.folder))
    assert head[:5] == ["method", "dataset", "attack", "seed", "images"]
    assert [line[:2] for line in lines] == [["clip", "DrawnDTD"], ["clip", "DrawnPCAM"], ["tecoa:finetune", "DrawnDTD"],
                                            ["tecoa:finetune", "DrawnPCAM"]]
    assert lines[0][2:9] == [ATTACK, "0", "10", "90.0", "59.6-98.2", "10.0", "1.8-40.4"]


@pytest.mark.parametrize(("words", "methods", "attacks"), [
    (["--method", "clip"], {"clip"}, {ATTACK}), (["--attack", "none"], {"clip", "tecoa:finetune"}, {"none"}),
    (["--attack", ATTACK, "--dataset", "DrawnPCAM, DrawnDTD"], {"clip", "tecoa:finetune"}, {ATTACK}),
    (["--seed", "0", "--method", "tecoa:finetune,clip"], {"clip", "tecoa:finetune"}, {ATTACK})])
def test_filters(store, capsys, words, methods, attacks):
    head, *lines = words_of(output(capsys, "show", store.folder, *words))
    assert {line[0] for line in lines} == methods and {line[2] for line in lines} == attacks
    assert ("robust" in head) == (attacks == {ATTACK}) and "clean" in head


@pytest.mark.parametrize(("words", "message"), [
    (["--method", "tecoa:finetun"], "unknown method 'tecoa:finetun': expected one of clip, tecoa:finetune"),
    (["--dataset", "DTD"], "unknown dataset 'DTD': expected one of DrawnDTD, DrawnPCAM"),
    (["--attack", "pgd-20"], "unknown attack 'pgd-20'"), (["--seed", "x"], "unknown seed 'x': expected one of 0"),
    (["--seed", " , "], "--seed ' , ': expected names"), (["--seed", ""], "--seed is empty")])
def test_filters_that_name_nothing(store, capsys, words, message):
    assert message in error(capsys, "show", store.folder, *words)


def test_an_unknown_dataset_of_many_has_nearest_names(store, capsys):
    for name in ("DrawnFood101", "DrawnCIFAR10", "DrawnSTL10"):
        put(store, task(name, [0, 1, 2]), "clip", "none", [True] * 3)
    line = error(capsys, "show", store.folder, "--dataset", "DrawnFood11")
    assert re.search(r"unknown dataset 'DrawnFood11': did you mean .*DrawnFood101", line)


def test_no_cell_has_all_that_is_asked(store, capsys):
    put(store, TASK, "fare:finetune", "none", first(8), seed=1)
    line = error(capsys, "show", store.folder, "--method", "clip", "--seed", "1")
    assert "no cell has all of method clip, seed 1: leave one out" in line


def test_unreadable_images_and_means_of_classes_are_shown(tmp_path, capsys):
    store = Store(tmp_path / "store")
    put(store, task("DrawnOxfordPets", [0, 0, 0, 1]), "clip", "none", [True, True, False, True], unreadable=[0])
    assert "clean per class unreadable" in (text := " ".join(output(capsys, "show", store.folder).split()))
    assert "3 66.7 20.8-93.8 75.0 1" in text


def test_a_reader_who_has_seen_enough_is_no_error(store):
    read, write = os.pipe()
    os.close(read)
    done = subprocess.run([sys.executable, "-m", "zsar", "results", "show", str(store.folder)], stdout=write,
                          stderr=subprocess.PIPE, text=True, cwd=data_path().parent)
    os.close(write)
    assert (done.returncode, done.stderr) == (141, "")


def test_two_models_of_one_name_have_a_name_each(store, capsys):
    first_one = next(header["key"]["model"] for header in store.headers() if header["key"]["adaptation"] != "none")
    put(store, TASK, "tecoa:finetune", ATTACK, first(9), model="f" * 64)
    assert {*method_names(store.headers()).values()} == {"clip", "tecoa:finetune (fffffff fp32)",
                                                         f"tecoa:finetune ({first_one[:7]} fp32)"}
    row, = words_of(output(capsys, "show", store.folder, "--method", "tecoa:finetune (fffffff fp32)"))[1:]
    assert row[:3] == ["tecoa:finetune", "(fffffff", "fp32)"] and "90.0" in row
    assert "unknown method" in error(capsys, "compare", "tecoa:finetune", "clip", "--store", store.folder)
    found, _ = compare("tecoa:finetune (fffffff fp32)", "clip", store)
    assert [one.a for one in found] == [90]


def test_other_settings_in_another_seed_are_another_method(tmp_path):
    store = Store(tmp_path)
    put(store, TASK, "tecoa:finetune", "none", first(5), seed=0)
    put(store, TASK, "tecoa:finetune", "none", first(5), seed=1)
    assert {*method_names(store.headers()).values()} == {"tecoa:finetune"}
    put(store, TASK, "tecoa:finetune", "none", first(5), seed=2, steps=20)
    assert len({*method_names(store.headers()).values()}) == 3


def test_rows_of_a_selection_keep_the_names_of_the_whole(store):
    put(store, TASK, "tecoa:finetune", ATTACK, first(9), model="f" * 64)
    headers = store.headers()
    chosen = select(headers, method=["tecoa:finetune (fffffff fp32)"])
    assert [row["method"] for row in rows(chosen, method_names(headers))] == ["tecoa:finetune (fffffff fp32)"]


# compare

def test_mcnemar_by_hand(tmp_path):
    store = Store(tmp_path)
    a, b = np.zeros(20, bool), np.zeros(20, bool)
    a[:11], b[:3], b[11] = True, True, True  # both 3, a alone 8, b alone 1
    of = task("DrawnDTD", [0] * 20)
    put(store, of, "tecoa:finetune", "none", a)
    put(store, of, "clip", "none", b)
    (one,), alone = compare("tecoa:finetune", "clip", store)
    assert (one.paired.only_a, one.paired.only_b, one.paired.images, alone) == (8, 1, 20, 0)
    assert one.paired.p == pytest.approx(2 * (1 + 9) / 2**9)  # at most one of nine fair coins, both sides
    assert one.p_holm == one.paired.p
    assert one.paired.difference == pytest.approx(35) and one.paired.low > 0


def test_holm_by_hand():
    assert holm([.01, .04, .03, .005]) == pytest.approx([.03, .06, .06, .02])
    assert holm([.4, .9]) == [.8, .9]
    assert holm([.6, .7, .8]) == [1, 1, 1]
    assert holm([]) == []


def test_p_values_are_corrected_within_an_attack_and_seed(store):
    found, _ = compare("tecoa:finetune", "clip", store)
    for attack in ("none", ATTACK):
        family = [one for one in found if one.attack == attack]
        assert len(family) == 2
        assert [one.p_holm for one in family] == holm([one.paired.p for one in family])


@pytest.mark.parametrize(("n", "only_a", "only_b"), [(30, .1, .1), (50, .3, .05), (200, .02, .1)])
def test_the_interval_of_a_difference_covers_it(n, only_a, only_b):
    random = np.random.default_rng(0)
    drawn = random.choice(4, size=(800, n), p=[only_a, only_b, .3, .7 - only_a - only_b])
    found = [paired(np.isin(one, (0, 2)), np.isin(one, (1, 2))) for one in drawn]
    covered = np.mean([one.low <= 100 * (only_a - only_b) <= one.high for one in found])
    assert .935 < covered < .99


def test_the_test_is_no_less_strict_than_it_says():
    random = np.random.default_rng(1)
    drawn = random.choice(3, size=(800, 60), p=[.2, .2, .6])
    rejected = np.mean([paired(one == 0, one == 1).p <= .05 for one in drawn])
    assert rejected <= .05 + 2 * np.sqrt(.05 * .95 / 800)
    assert paired(first(9), first(0)).p == pytest.approx(stats.binomtest(9, 9).pvalue)


def test_images_are_matched_by_their_ids(tmp_path, capsys):
    ours, theirs = Store(tmp_path / "ours"), Store(tmp_path / "theirs")
    right_a, right_b = first(6), np.array([1, 0, 1, 0, 1, 0, 1, 0, 1, 0], bool)
    order = [9, 2, 5, 0, 7]
    put(ours, TASK, "tecoa:finetune", "none", right_a, unreadable=[5])
    put(theirs, task("DrawnDTD", [TASK.labels[i] for i in order], ids=tuple(TASK.ids[i] for i in order),
                     templates=("a drawing of a {}",)), "clip", "none", right_b[order])
    (one,), _ = compare("tecoa:finetune", "clip", ours, theirs)
    kept = [9, 2, 0, 7]  # without the one that could not be read
    assert (one.paired.only_a, one.paired.only_b) == (int((right_a & ~right_b)[kept].sum()),
                                                      int((right_b & ~right_a)[kept].sum()))
    assert (one.a, one.b, one.left_out, one.same_texts) == (50, 50, 6, False)
    text = output(capsys, "compare", "tecoa:finetune", "clip", "--store", ours.folder, "--other", theirs.folder)
    assert "DrawnDTD: 6 images that only one of them has, or could not read, are left out" in text
    assert "DrawnDTD: the same classes in other prompts" in text


def test_of_several_choices_of_images_the_shared_one_is_compared(store):
    few = task("DrawnDTD", TASK.labels[:4])
    put(store, few, "clip", "none", first(4, 4))
    found, _ = compare("tecoa:finetune", "clip", store)
    assert {one.paired.images for one in found} == {10}


@pytest.mark.parametrize(("classnames", "message"), [
    (("cat", "dog", "bus"), "3 classes and clip among 3; number 3 is 'car' for the first and 'bus' for the second"),
    (("cat", "dog", "car", "bus"), "among 4; number 4 is no more for the first and 'bus' for the second")])
def test_class_lists_that_differ(tmp_path, capsys, classnames, message):
    store = Store(tmp_path)
    put(store, TASK, "tecoa:finetune", "none", first(5))
    put(store, task("DrawnDTD", TASK.labels, classnames), "clip", "none", first(5))
    with pytest.raises(ClassNamesError, match="evaluate both with the same --protocol"):
        compare("tecoa:finetune", "clip", store)
    assert message in error(capsys, "compare", "tecoa:finetune", "clip", "--store", store.folder)


def test_data_that_differ(tmp_path):
    store = Store(tmp_path)
    put(store, TASK, "tecoa:finetune", "none", first(5))
    put(store, task("DrawnDTD", [1, *TASK.labels[1:]]), "clip", "none", first(5))
    with pytest.raises(StoreError, match="image-0 is 'cat' for tecoa:finetune and 'dog' for clip: these are not"):
        compare("tecoa:finetune", "clip", store)
    put(store, task("DrawnDTD", TASK.labels, ids=tuple("abcdefghij")), "fare:finetune", "none", first(5))
    with pytest.raises(StoreError, match="no image in common, fare:finetune was tested on 10 and clip on 10 others"):
        compare("fare:finetune", "clip", store)


def test_seeds_are_paired_and_never_pooled(store, capsys):
    for seed in (1, 2):
        put(store, TASK, "tecoa:finetune", ATTACK, first(5 + seed), seed=seed)
    put(store, TASK, "clip", ATTACK, first(2), seed=1)
    found, alone = compare("tecoa:finetune", "clip", store)
    assert {(one.attack, one.seed) for one in found} == {("none", 0), (ATTACK, 0), (ATTACK, 1)} and alone == 1
    text = output(capsys, "compare", "tecoa:finetune", "clip", "--store", store.folder)
    assert f"A = tecoa:finetune, B = clip, attack {ATTACK}, seed 1" in text and "seed 2" not in text
    assert "1 cells of either have no partner" in text


def test_the_mean_of_differences(store):
    found, _ = compare("tecoa:finetune", "clip", store)
    attacked = [one for one in found if one.attack == ATTACK]
    mean = mean_difference(attacked)
    assert mean.value == pytest.approx((30 + 50) / 2) and mean.low < 40 < mean.high and mean.images == 20


def test_what_cannot_be_compared(store, tmp_path, capsys):
    put(store, TASK, "fare:finetune", "none", first(5), seed=3)
    line = error(capsys, "compare", "fare:finetune", "clip", "--store", store.folder)
    assert "no attack, seed and dataset in common: fare:finetune has none; seeds 3; DrawnDTD | clip has none" in line
    assert "unknown method in" in error(capsys, "compare", "fare:pad", "clip", "--store", store.folder)
    assert "there is no store" in error(capsys, "compare", "clip", "clip", "--store", store.folder, "--other", "none")
    assert "--store" in error(capsys, "compare", "clip", "clip")


# merge

def test_merging_says_what_it_did(store, tmp_path, capsys):
    other = Store(tmp_path / "other")
    put(other, TASK, "clip", "none", first(7))  # of the store's 9
    put(other, BINARY, "clip", "none", first(8))
    put(other, BINARY, "fare:finetune", "none", first(8))
    text = output(capsys, "merge", store.folder, other.folder)
    assert "1 cells copied, 1 there already, 1 differing" in text
    assert re.search(r"DrawnDTD/none_none_seed-0_\w+\.json: another answer to 2 of its images; that of .*store stays",
                     text)
    assert "fare:finetune" in output(capsys, "show", store.folder)
    new = tmp_path / "new"
    text = output(capsys, "merge", new, store.folder, other.folder)
    assert "9 cells copied" in text and len(Store(new).headers()) == 9


def test_merging_what_cannot_be_merged(store, tmp_path, capsys):
    (tmp_path / "file").write_text("")
    assert "is the store that receives" in error(capsys, "merge", store.folder, store.folder)
    assert "there is no store" in error(capsys, "merge", tmp_path / "new", tmp_path / "none")
    assert not (tmp_path / "new").exists()
    assert "cannot write into the folder" in error(capsys, "merge", tmp_path / "file", store.folder)


# export

def test_csv_holds_every_cell_with_its_provenance(store, tmp_path, capsys):
    path = tmp_path / "rows.csv"
    assert f"{path}: csv of 8 cells" in output(capsys, "export", store.folder, "csv", "--out", path)
    found = list(csv.DictReader(io.StringIO(path.read_text())))
    row, = [row for row in found if (row["method"], row["dataset"], row["attack"]) == ("tecoa:finetune", "DrawnDTD",
                                                                                    ATTACK)]
    assert len(found) == 8
    assert {name: row[name] for name in ("eps_255", "alpha_255", "steps", "iterate", "seed", "images", "hits",
                                         "accuracy", "device", "torch", "commit", "seconds", "passes")} == {
        "eps_255": "4", "alpha_255": "1", "steps": "20", "iterate": "last", "seed": "0", "images": "10", "hits": "4",
        "accuracy": "40", "device": "cpu, x86_64", "torch": "2.14.1", "commit": "abc1234", "seconds": "2",
        "passes": "100"}
    assert len(row["model"]) == 64 and json.loads(row["adaptation"]) == {"steps": 300, "seed": 0}
    assert [row["eps_255"] for row in found if row["attack"] == "none"] == [""] * 4


def test_json_holds_the_same(store, capsys):
    found = json.loads(output(capsys, "export", store.folder, "json", "--dataset", "DrawnPCAM"))["rows"]
    assert len(found) == 4 and {row["dataset"] for row in found} == {"DrawnPCAM"}
    assert sorted(row["accuracy"] for row in found) == [0, 50, 60, 80]


def test_latex_compiles_by_its_structure(store, capsys):
    put(store, task("my_data & 50%{\\x}", [0, 1, 2]), "clip", "none", [True] * 3)
    text = output(capsys, "export", store.folder, "latex")
    assert text.count(r"\begin{table}") == text.count(r"\end{table}") == 2
    assert text.count(r"\begin{tabular}") == text.count(r"\end{tabular}") == 2
    for rule in ("toprule", "bottomrule"):
        assert text.count(rf"\{rule}") == 2
    assert r"\rotatebox{90}{my\_data \& 50\%\{\textbackslash{}x\}}" in text and r"L\_inf" in text
    plain = re.sub(r"\\[&%$#_{}]", "", text)
    assert plain.count("{") == plain.count("}") and "$" not in plain and "_" not in plain
    for tabular in text.split(r"\begin{tabular}")[1:]:
        columns = len(re.match(r"\{(l r*|lr*)\}", tabular)[1])
        lines = [line for line in tabular.splitlines() if line.endswith(r"\\")]
        assert {len(re.findall(r"(?<!\\)&", line)) + 1 for line in lines} == {columns}
    assert r"clip & \textbf{90.0} & \textbf{80.0}" in text and r"constant predictor & 40.0 & 50.0" in text


def test_markdown_has_a_cell_a_column(store, capsys):
    put(store, task("a|b<i>", [0, 1, 2]), "clip", "none", [True] * 3)
    text = output(capsys, "export", store.folder, "markdown")
    assert r"| a\|b\<i\> |" in text
    for table in re.findall(r"(?:^\|.*\n)+", text, re.M):
        assert len({len(re.findall(r"(?<!\\)\|", line)) for line in table.splitlines()}) == 1
    assert "| tecoa:finetune | 70.0 | 60.0 | – | – | – | – | – |" in text
    assert "tecoa:finetune has no mean, for it lacks a" in text


def test_exports_that_cannot_be(store, tmp_path, capsys):
    (tmp_path / "file").write_text("")
    assert "unknown form 'xls': expected one of csv" in error(capsys, "export", store.folder, "xls")
    assert "cannot write" in error(capsys, "export", store.folder, "csv", "--out", tmp_path / "file" / "x.csv")
    assert "it is a folder" in error(capsys, "export", store.folder, "csv", "--out", tmp_path)


# stores that are none, or damaged

COMMANDS = (("show", "{}"), ("export", "{}", "csv"), ("export", "{}", "latex"), ("report", "{}"),
            ("compare", "clip", "tecoa:finetune", "--store", "{}"))


def of(words: tuple[str, ...], folder: object) -> list[str]:
    return [word.format(folder) for word in words]


@pytest.mark.parametrize("words", COMMANDS)
def test_a_folder_that_is_no_store(tmp_path, capsys, words):
    assert "there is no store of results in" in error(capsys, *of(words, tmp_path / "none"))


@pytest.mark.parametrize("words", COMMANDS)
def test_an_empty_store(tmp_path, capsys, words):
    line = error(capsys, *of(words, tmp_path))
    assert "there is no cell in" in line and "zsar reproduce" in line


@pytest.mark.parametrize("words", COMMANDS)
def test_a_store_of_a_later_release(store, monkeypatch, capsys, words):
    monkeypatch.setattr(sealed_module, "FORMAT", 9)
    put(store, TASK, "fare:finetune", "none", first(3))
    monkeypatch.undo()
    assert "has the format 9, this release reads up to 1: install" in error(capsys, *of(words, store.folder))


@pytest.mark.parametrize("words", COMMANDS)
def test_a_cell_whose_first_line_is_damaged(store, capsys, words):
    path = cell_file(store, Key(**store.headers()[0]["key"]))
    path.write_bytes(path.read_bytes()[:40])
    assert f"cannot read the cell {path}" in error(capsys, *of(words, store.folder))


@pytest.mark.parametrize("words", [words for words in COMMANDS if "csv" not in words and "show" not in words])
def test_a_cell_whose_answers_are_damaged(store, capsys, words):
    path = cell_file(store, Key(**store.headers()[0]["key"]))
    lines = path.read_bytes().split(b"\n")
    lines[1] = lines[1].replace(b"unreadable", b"unreadabel")
    path.write_bytes(b"\n".join(lines))
    line = error(capsys, *of(words, store.folder))
    assert f"{path} is damaged" in line and "computes it again" in line


def test_a_read_only_store_is_read_and_not_written(store, monkeypatch, capsys):
    def read_only(*args, **kwargs):
        raise OSError(30, "Read-only file system")

    monkeypatch.setattr(tempfile, "TemporaryFile", read_only)
    assert "DrawnDTD" in output(capsys, "show", store.folder)
    assert "mean of 2" in output(capsys, "compare", "clip", "tecoa:finetune", "--store", store.folder)
    for words in (["report", store.folder], ["merge", store.folder, store.folder]):
        assert "cannot write into the folder" in error(capsys, *words)


def test_a_wrong_command_line(capsys):
    assert "invalid choice: 'shwo'" in error(capsys, "shwo")
    assert "required" in error(capsys)
