"""The report: numbers by hand, means that say what they are of, a page that stands alone and escapes what it shows."""

import html.parser
import re
from pathlib import Path
from urllib.parse import unquote

import numpy as np
import pandas
import pytest
from stored import ATTACK, first, put, task

from zsar import report
from zsar.errors import OutputError, StoreError
from zsar.figures import alt_text
from zsar.paths import data_path
from zsar.profiles import SIXTEEN
from zsar.report import Scores, drawings, page, paper_table, per_class_table, reported, write_report
from zsar.report.scores import DRAWN, mean_name
from zsar.report.tables import Entry
from zsar.results import Estimate, Store, estimate, interval

DTD = task("DrawnDTD", [0, 1, 2, 0, 1, 2, 0, 1, 2, 0])
PCAM = task("DrawnPCAM", [0, 1, 0, 0, 1, 0, 1, 0, 0, 1], ("healthy tissue", "tumour"))
PETS = task("DrawnOxfordPets", [0] * 8 + [1] * 2, ("cat", "dog"))
METHODS = ("clip", "tecoa:finetune")


def filled(folder: Path, hits: dict, **options) -> Store:
    """A store in which ``hits[method, attack]`` gives how many of the first of ten images of each dataset are right."""
    store = Store(folder)
    for (method, attack), of_dataset in hits.items():
        for of, right in of_dataset.items():
            put(store, of, method, attack, first(right), **options)
    return store


@pytest.fixture
def store(tmp_path) -> Store:
    return filled(tmp_path / "store", {("clip", "none"): {DTD: 9, PCAM: 8}, ("clip", ATTACK): {DTD: 1, PCAM: 0},
                                       ("tecoa:finetune", "none"): {DTD: 7, PCAM: 6},
                                       ("tecoa:finetune", ATTACK): {DTD: 4, PCAM: 5}})


def values(line) -> list[float | None]:
    return [entry and round(entry.accuracy.value, 6) for entry in (*line.entries, *line.means)]


# numbers

def test_the_table_by_hand(store):
    table = paper_table(Scores(store), ATTACK)
    assert (table.datasets, table.means) == (("DrawnDTD", "DrawnPCAM"), ("mean of 2 of 16", "without two-class"))
    assert [line.name for line in table.rows] == ["clip", "tecoa:finetune", "constant predictor"]
    assert [values(line) for line in table.rows] == [[10, 0, 5, 10], [40, 50, 45, 40], [40, 60, 50, 40]]
    tecoa = table.lines[1]
    assert [entry.difference for entry in (*tecoa.entries, *tecoa.means)] == pytest.approx([30, 50, 40, 30])
    assert all(entry.difference is None for entry in table.lines[0].entries)
    assert [entry.best for entry in tecoa.entries] == [True, True]
    assert (tecoa.entries[0].accuracy.low, tecoa.entries[0].accuracy.high) == interval(4, 10)
    expected = estimate([first(4)[None] * 1.0, first(5)[None] * 1.0])
    assert tecoa.means[0].accuracy == expected


def test_seeds_are_one_score_with_the_interval_of_both(tmp_path):
    store = Store(tmp_path)
    for seed, hits in enumerate((4, 6, 8)):
        put(store, DTD, "tecoa:finetune", ATTACK, first(hits), seed=seed)
    score = Scores(store).score("tecoa:finetune", "DrawnDTD", ATTACK)
    found = estimate([np.stack([first(hits) for hits in (4, 6, 8)]) * 1.0])
    assert score.accuracy.value == pytest.approx(60) and len(score.headers) == 3
    assert (score.accuracy.low, score.accuracy.high) == (max(0, found.low), min(100, found.high))
    assert "seeds 0, 1, 2; intervals hold images and seeds" in paper_table(Scores(store), ATTACK).notes[-1]


def test_an_image_that_one_seed_could_not_read_counts_in_none(tmp_path):
    store = Store(tmp_path)
    put(store, DTD, "tecoa:finetune", ATTACK, first(5), unreadable=[0])
    put(store, DTD, "tecoa:finetune", ATTACK, first(5), seed=1)
    assert Scores(store).score("tecoa:finetune", "DrawnDTD", ATTACK).accuracy.value == pytest.approx(100 * 4 / 9)


def test_a_mean_is_of_the_seeds_that_all_datasets_have(tmp_path):
    store = filled(tmp_path, {("tecoa:finetune", "none"): {DTD: 5, PCAM: 5}})
    put(store, DTD, "tecoa:finetune", "none", first(10), seed=1)
    table = paper_table(Scores(store))
    assert values(table.lines[0])[:3] == [75, 50, 50]
    assert "The mean of tecoa:finetune is of seeds that all its datasets have, 1 of 2" in table.notes
    other = Store(tmp_path / "other")
    put(other, DTD, "tecoa:finetune", "none", first(5), seed=0)
    put(other, PCAM, "tecoa:finetune", "none", first(5), seed=1)
    table = paper_table(Scores(other))
    assert table.lines[0].means[0] is None
    assert "tecoa:finetune has no mean, for its datasets have no seed in common" in table.notes


def test_a_method_without_all_datasets_has_no_mean(store):
    put(store, DTD, "fare:finetune", ATTACK, first(3))
    table = paper_table(Scores(store), ATTACK)
    fare = next(line for line in table.lines if line.name == "fare:finetune")
    assert values(fare) == [30, None, None, 30] and fare.lacks == ("DrawnPCAM",)
    assert "fare:finetune has no mean, for it lacks DrawnPCAM" in table.notes
    assert "fare:finetune" not in [line.name for line in paper_table(Scores(store)).lines]


@pytest.mark.parametrize(("datasets", "name"), [
    (SIXTEEN, "mean of 16"), (DRAWN, "mean of 16"), (SIXTEEN[3:], "mean of 13 of 16"), (["./photos"], "mean of 1"),
    (["./photos", *DRAWN], "mean of 17"), (["./photos", "DTD"], "mean of 2 of 17")])
def test_a_mean_says_what_it_is_of(datasets, name):
    assert mean_name(datasets) == name


def test_what_is_missing_of_the_sixteen_is_named(tmp_path):
    store = filled(tmp_path, {("clip", "none"): {task(name, DTD.labels): 5 for name in DRAWN[3:]}})
    table = paper_table(Scores(store))
    assert table.means[0] == "mean of 13 of 16" and table.datasets == DRAWN[3:]
    assert "The mean of 13 of 16 is without DrawnImageNet, DrawnCIFAR10, DrawnCIFAR100" in table.notes


def test_two_class_tasks_are_known_by_their_classes(store):
    assert "Two classes: DrawnPCAM" in paper_table(Scores(store)).notes
    store = filled(store.folder / "one", {("clip", "none"): {PCAM: 8}})
    assert paper_table(Scores(store)).means == ("mean of 1 of 16",)


def test_robust_means_near_the_constant_predictor_are_named(store):
    note, = [note for note in paper_table(Scores(store), ATTACK).notes if "constant" in note]
    assert note.endswith("clip, tecoa:finetune")
    assert not [note for note in paper_table(Scores(store)).notes if "constant" in note]


@pytest.mark.parametrize(("attack", "said"), [("pgd-100@1:1", True), ("pgd-100@1:0.25", False), ("pgd-5@1:2", True)])
def test_steps_as_long_as_eps_are_said_to_flatter(attack, said, tmp_path):
    notes = paper_table(Scores(filled(tmp_path, {("clip", attack): {DTD: 1}})), attack).notes
    assert any("overstates robustness; read it beside" in note for note in notes) == said


def test_the_table_in_a_terminal(store):
    lines = paper_table(Scores(store), ATTACK).to_text().splitlines()
    assert lines[1].split() == ["clip", "tecoa:finetune", "constant", "predictor"]
    assert lines[2].split() == ["DrawnDTD", "10.0", "40.0*", "40.0"] and any(line.startswith("*:") for line in lines)


def test_without_the_original_there_are_no_differences(tmp_path):
    table = paper_table(Scores(filled(tmp_path, {("tecoa:finetune", "none"): {DTD: 7}})))
    assert table.legend == "" and table.lines[0].entries[0].difference is None and not table.lines[0].entries[0].best
    assert "The original CLIP was not measured, so that there are no differences from it" in table.notes


def test_means_of_classes_where_they_are_customary(store):
    assert per_class_table(Scores(store)) is None
    put(store, PETS, "clip", "none", first(8))
    put(store, PETS, "tecoa:finetune", "none", [1] * 4 + [0] * 4 + [1] * 2)
    table = per_class_table(Scores(store))
    assert table.datasets == ("DrawnOxfordPets",) and [values(line) for line in table.rows] == [[50], [75]]
    assert table.lines[1].entries[0].bounds == ""  # the interval of the accuracy is another one


def test_one_choice_of_images_and_the_other_is_said(store):
    put(store, task("DrawnDTD", DTD.labels[:4]), "clip", "none", first(4, 4))
    scores = Scores(store)
    assert scores.score("clip", "DrawnDTD", "none").accuracy.value == 90
    assert len(scores.left_out) == 1 and "1 cells of another choice of images, classes or prompts (4 images" in \
        scores.left_out[0]


def test_methods_without_an_attack_are_not_beside_it(store):
    put(store, DTD, "fare:finetune", "none", first(5))
    scores = Scores(store)
    assert "fare" not in alt_text(report.over_datasets(scores, ATTACK))
    assert [row[1] for row in report.ours(scores, ATTACK).rows] == list(METHODS)


def test_no_difference_is_less_than_nothing():
    assert Entry(Estimate(50, 40, 60, 1, 10), -.04).signed == "+0.0"
    assert Entry(Estimate(50, 40, 60, 1, 10), -3.21).signed == "\u22123.2"


@pytest.mark.parametrize(("difference", "shade"), [
    (None, ""), (0, ""), (1.9, ""), (-1.9, ""), (2, "gain-1"), (-5, "loss-2"), (19.9, "gain-3"), (-20, "loss-4"),
    (80, "gain-5")])
def test_colours_of_differences(difference, shade):
    assert Entry(Estimate(50, 40, 60, 1, 10), difference).shade == shade


def test_an_attack_that_was_not_run(store):
    with pytest.raises(StoreError, match="has the attack pgd-20@8:2; there are none, pgd-20@4:1"):
        paper_table(Scores(store), "pgd-20@8:2")


# figures

def test_figures_say_what_the_store_says(store):
    scores = Scores(store)
    assert f"tecoa:finetune, {ATTACK}: 5 to 45 on average." in alt_text(report.over_datasets(scores, ATTACK))
    assert "tecoa:finetune: 65 clean, 45 robust" in alt_text(report.clean_against_robust(scores, ATTACK))


def test_lines_of_an_interpolation():
    methods = ["clip", "tecoa:finetune", "fare:finetune", "tecoa:finetune@0.5", "tecoa:finetune@0.25"]
    assert drawings.interpolations(methods) == [["clip", "tecoa:finetune@0.25", "tecoa:finetune@0.5", "tecoa:finetune"]]


def test_curves_over_eps(store):
    for eps, hits in ((2, 6), (8, 1)):
        for of in (DTD, PCAM):
            put(store, of, "tecoa:finetune", f"pgd-20@{eps}:{eps / 4:g}", first(hits))
    put(store, DTD, "tecoa:finetune", "fgsm@4", first(3))
    scores = Scores(store)
    assert drawings.attack_kinds(scores) == {"pgd-20, step 0.25 x eps": {2: "pgd-20@2:0.5", 4: ATTACK,
                                                                         8: "pgd-20@8:2"}}
    figure, = report.against_eps(scores).values()
    assert alt_text(figure).endswith("tecoa:finetune: 65 at 0, 60 at 2, 45 at 4, 10 at 8.")


@pytest.mark.parametrize(("draw", "words"), [
    (lambda scores: report.over_datasets(scores, ATTACK), "reproduce --methods tecoa:finetune --out"),
    (lambda scores: report.clean_against_robust(scores, ATTACK), f"reproduce --attacks none,{ATTACK} --out"),
    (report.against_eps, "reproduce --attacks none,pgd-20@2:0.5,pgd-20@4:1,pgd-20@8:2 --out")])
def test_what_cannot_be_drawn_names_the_command(tmp_path, draw, words):
    scores = Scores(filled(tmp_path, {("clip", ATTACK): {DTD: 1}}))
    with pytest.raises(StoreError, match=re.escape(words)):
        draw(scores)


# numbers of others

def test_reported_numbers_stand_once_each_with_their_protocol():
    table = pandas.read_csv(data_path("reported", "reported.csv"), dtype=str, keep_default_na=False)
    groups = reported()
    assert sum(pair is not None for group in groups for *_, pairs in group.rows for pair in pairs) == len(table)
    assert len({(group.source, group.protocol) for group in groups}) == len(groups) == \
        len(table.groupby(["source", "backbone", "attack", "eps_255"]))
    fare = next(group for group in groups if group.source.startswith("FARE") and "eps 4/255" in group.protocol)
    assert [(trained, method, note[:7], pairs[0]) for trained, method, note, pairs in fare.rows][1:3] == [
        ("ImageNet", "TeCoA FT", "authors", (54.6, 3.4)), ("ImageNet", "TeCoA FT", "re-run:", (70.3, 8.0))]


def test_ours_stand_with_a_protocol_of_their_own(store):
    beside = report.ours(Scores(store), ATTACK, "DrawnImageNet")
    assert beside.protocol.endswith("PGD-20, L_inf, eps 4/255, alpha 1/255, last iterate, at each dataset's own "
                                    "resolution; 20 images in all; seed 0")
    assert beside.datasets == ("mean of 2 of 16", "DrawnDTD", "DrawnPCAM")
    assert beside.rows[1][:2] == ("DrawnImageNet", "tecoa:finetune")
    assert [beside.text(pair) for pair in beside.rows[1][3]] == ["65.0 / 45.0", "70.0 / 40.0", "60.0 / 50.0"]
    assert beside.text(None) == "– / –" and beside.text((50.0, None)) == "50.0 / –"


# the page

class Elements(html.parser.HTMLParser):
    """All start tags with their attributes, the text, and whether tags close in the order they were opened."""

    VOID = {"meta", "img", "br", "link", "input"}

    def __init__(self, text: str):
        super().__init__()
        self.tags, self.open, self.words = [], [], []
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        self.tags.append((tag, dict(attributes)))
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.words.append(data)

    def all(self, *names: str) -> list[dict]:
        return [attributes for tag, attributes in self.tags if tag in names]

    @property
    def text(self) -> str:
        return " ".join(" ".join(self.words).split())


SETTINGS = {"profile": "drawn", "model": "drawn", "methods": ["clip", "tecoa:finetune", "adv:finetune"],
            "missing": ["DrawnSTL10"], "training_steps": None}


def written(store: Store, settings: dict = SETTINGS, **options) -> tuple[str, Elements]:
    text = write_report(store, settings, store.folder / "report.html", **options).read_text(encoding="utf-8")
    return text, Elements(text)


def test_the_page_is_whole_and_needs_nothing_else(store):
    text, found = written(store)
    assert found.open == [] and len(text) < 3e6
    assert not re.search(r"https?://|//cdn|@import|url\(|<script|<link", text)
    assert found.all("table") and len(found.all("table")) == len(found.all("caption"))
    assert all(th.get("scope") in ("col", "row") for th in found.all("th"))
    assert all(len(img["alt"]) > 40 and img["src"].startswith("data:image/png;base64,") for img in found.all("img"))
    ids = [attributes["id"] for _, attributes in found.tags if "id" in attributes]
    assert len(ids) == len(set(ids))
    assert found.all("html") == [{"lang": "en"}] and found.all("meta")[1]["name"] == "viewport"
    assert "light-dark(" in text and "color-scheme: light dark" in text


def test_every_number_leads_to_its_cell(store):
    text, found = written(store)
    anchors = [a["href"] for a in found.all("a") if a["href"].startswith("#")]
    ids = {attributes.get("id") for _, attributes in found.tags}
    assert all(anchor[1:] in ids for anchor in anchors)
    files = [store.folder / unquote(a["href"]) for a in found.all("a") if not a["href"].startswith("#")]
    assert len(files) == len(set(files)) == 8 and all(file.is_file() for file in files)
    cells = {anchor for anchor in anchors if anchor.startswith("#cell-")}
    assert len(cells) == 8
    for words in ("PGD-20, L_inf, eps 4/255, alpha 1/255, last iterate", "cpu, x86_64", "abc1234", "steps 300, seed 0"):
        assert words in found.text


def test_links_hold_from_where_the_page_is(store, tmp_path):
    path = write_report(store, {}, tmp_path / "elsewhere" / "page.html")
    files = [a["href"] for a in Elements(path.read_text(encoding="utf-8")).all("a") if not a["href"].startswith("#")]
    assert len(files) == 8 and all((path.parent / unquote(file)).is_file() for file in files)


def test_what_must_not_be_overlooked_stands_at_the_top(store):
    put(store, DTD, "fare:finetune", "none", first(5), unreadable=[3])
    _, found = written(store, failed={"coadv:finetune, seed 0": "the loss became NaN"})
    top = found.text.split("Clean accuracy")[0]
    for words in ("coadv:finetune, seed 0: the loss became NaN", "not on this machine DrawnSTL10",
                  "Methods without a result adv:finetune", "do not count DrawnDTD: 1", "Profile drawn",
                  "images a second through the model"):
        assert words in top


def test_drawn_numbers_are_not_compared_with_real_ones(store, tmp_path):
    assert "none of its numbers can be compared" in written(store)[1].text
    real = filled(tmp_path / "real", {("clip", "none"): {task("DTD", DTD.labels): 9}})
    text, found = written(real, {})
    assert "none of its numbers can be compared" not in found.text
    assert "No method was attacked at several eps" in found.text


def test_names_of_ones_own_are_escaped(tmp_path):
    evil = '<script>alert("x")</script>'
    store = Store(tmp_path / "store")
    of = task(f"./{evil}", [0, 1], (evil, "b"))
    put(store, of, "clip", "none", [True, True])
    put(store, of, "clip", ATTACK, [True, False])
    text, found = written(store, {"profile": evil, "model": evil, "missing": [evil], "methods": [evil]},
                          failed={evil: evil})
    assert "<script" not in text and found.open == [] and text.count("&lt;script&gt;") > 10
    assert evil in found.text and not found.all("script")
    for piece in (paper_table(Scores(store)), report.ours(Scores(store), ATTACK, evil)):
        assert "<script" not in piece._repr_html_() and Elements(piece._repr_html_()).open == []


def test_a_store_of_many_cells_lists_as_many_as_fit(store, monkeypatch):
    monkeypatch.setattr(page, "LISTED", 5)
    _, found = written(store)
    assert len([a for a in found.all("a") if not a["href"].startswith("#")]) == 5
    assert "The first 5 cells are listed; 3 more are in the store" in found.text


def test_only_the_cells_of_the_plan(store):
    headers = [header for header in store.headers() if header["key"]["adaptation"] == "none"]
    _, found = written(store, {}, headers=headers)
    assert len([a for a in found.all("a") if not a["href"].startswith("#")]) == 4
    assert "Methods clip Datasets" in found.text and "Cells of tecoa:finetune" not in found.text


def test_reports_that_cannot_be_written(store, tmp_path):
    with pytest.raises(StoreError, match="there is no cell in"):
        write_report(Store(tmp_path / "empty"), {}, tmp_path / "report.html")
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError, match="cannot write into the folder"):
        write_report(store, {}, tmp_path / "file" / "report.html")


def test_pieces_for_a_notebook_have_no_dead_links(store):
    text = paper_table(Scores(store), ATTACK)._repr_html_()
    found = Elements(text)
    assert found.open == [] and not found.all("a") and "95 % interval" in text and "+40.0" in found.text
