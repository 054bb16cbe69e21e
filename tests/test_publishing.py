"""What publishes the book: workflows, citation, templates, releases, the check of links and the PDF."""

import re
import sys
import threading
import time
import zipfile
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
import yaml

import zsar

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "tools"))

import check_links  # noqa: E402
import release  # noqa: E402
import weekly_report  # noqa: E402
from browser import CHROMIUM, MISSING  # noqa: E402

WORKFLOWS = sorted((ROOT / ".github/workflows").glob("*.yml"))
FORMS = sorted(path for path in (ROOT / ".github/ISSUE_TEMPLATE").glob("*.yml") if path.name != "config.yml")
each_workflow = pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.stem)


def load(path: Path) -> dict:
    """A YAML file; ``on`` stays a word, as GitHub reads it."""
    return yaml.load(path.read_text(encoding="utf-8"), Loader=yaml.BaseLoader)


def steps(path: Path) -> list[dict]:
    """The steps of all jobs of a workflow."""
    return [step for job in load(path)["jobs"].values() for step in job["steps"]]


def commands(path: Path) -> str:
    """What a workflow runs."""
    return "\n".join(step.get("run", "") for step in steps(path))


def test_all_workflows_are_there():
    assert {path.stem for path in WORKFLOWS} == {"gpu", "pages", "release", "tests", "weekly"}


@each_workflow
def test_workflows_call_what_exists(path):
    targets = re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.M)
    assert set(re.findall(r"\bmake ([a-z]+)", commands(path))) <= set(targets)
    for name in re.findall(r"\b(?:tools|data|book|zsar)/[\w./-]+\.\w+", path.read_text(encoding="utf-8")):
        assert (ROOT / name).exists(), name
    assert set(re.findall(r'"\.\[(.+)\]"', commands(path))) <= {"data,course,book,test"}


@each_workflow
def test_workflows_are_pinned_bounded_and_modest(path):
    workflow = load(path)
    for step in steps(path):
        assert ("uses" in step) != ("run" in step)
        assert re.fullmatch(r"actions/[\w-]+@v\d+", step.get("uses", "actions/none@v1"))
    for name, job in workflow["jobs"].items():
        most = 350 if (path.stem, name) == ("weekly", "long") else 120  # 360 are all that GitHub gives
        assert int(job["timeout-minutes"]) <= most
    allowed = {"release": {"contents": "write"}, "weekly": {"contents": "read", "issues": "write"}}
    assert workflow["permissions"] == allowed.get(path.stem, {"contents": "read"})
    # what an event says is never put into a command, where a title could be a command
    assert "${{" not in commands(path)


def test_each_workflow_starts_when_it_should():
    start = {path.stem: load(path)["on"] for path in WORKFLOWS}
    assert set(start["tests"]) == {"push", "pull_request"}
    assert start["pages"]["push"] == {"branches": ["main"]}
    assert start["release"] == {"push": {"tags": ["v*"]}}
    assert set(start["weekly"]) == {"schedule", "workflow_dispatch"}
    assert "make test LONG=1" in commands(ROOT / ".github/workflows/weekly.yml")
    assert start["gpu"] == "workflow_dispatch"


def test_the_citation_agrees_with_package_configuration_and_bibliography():
    citation, config = load(ROOT / "CITATION.cff"), load(ROOT / "_config.yml")
    assert {"cff-version", "message", "title", "authors", "type"} <= set(citation)
    assert (citation["cff-version"], citation["type"]) == ("1.2.0", "software")
    assert citation["version"] == zsar.__version__ == release.version()
    assert citation["repository-code"] == config["repository"]["url"]
    assert [author["name"] for author in citation["authors"]] == [config["author"]]
    assert citation["title"].lower() == config["title"].lower()
    paper, = citation["references"]
    entry = (ROOT / "book/references.bib").read_text(encoding="utf-8").split("{mao2023tecoa,")[1].split("\n}")[0]
    names = " and ".join(f"{one['family-names']}, {one['given-names']}" for one in paper["authors"])
    for name, value in {"title": paper["title"], "author": names, "year": paper["year"],
                        "booktitle": paper["conference"]["name"]}.items():
        assert f" {name} = {{{value}}}" in entry


@pytest.mark.parametrize("path", FORMS, ids=lambda path: path.stem)
def test_issue_forms_are_valid(path):
    form = load(path)
    assert set(form) == {"name", "description", "labels", "body"}
    ids = [field["id"] for field in form["body"]]
    assert len(ids) == len(set(ids))
    for field in form["body"]:
        assert field["type"] in ("input", "textarea")
        assert field["attributes"]["label"]
        assert set(field["attributes"]) <= {"label", "description", "placeholder", "value", "render"}
    assert any(field.get("validations") == {"required": "true"} for field in form["body"])


def test_an_address_can_fill_in_the_page():
    assert "page" in [field["id"] for field in load(ROOT / ".github/ISSUE_TEMPLATE/error-in-the-book.yml")["body"]]


def test_notes_are_the_section_of_the_version(capsys):
    changelog = "# Changes\n\n## 0.2.0 (2027-01-31)\n\n- new\n\n## 0.1.0 (2026-12-01)\n\n- first\n"
    assert release.notes(changelog, "0.2.0") == "- new"
    assert release.notes(changelog, "0.1.0") == "- first"
    for name in ("0.3.0", "0.1"):
        with pytest.raises(SystemExit, match=f"no section '## {name}"):
            release.notes(changelog, name)
    with pytest.raises(SystemExit, match="no section"):
        release.notes("## 0.1.0 (unreleased)\n\n- first\n", "0.1.0")


def test_a_tag_that_is_not_the_version_is_refused():
    with pytest.raises(SystemExit, match="the tag is v99"):
        release.main("notes", "v99")


def test_student_notebooks_are_packed_by_name(tmp_path):
    release.main("notebooks", str(tmp_path / "all.zip"))
    with zipfile.ZipFile(tmp_path / "all.zip") as archive:
        names = set(archive.namelist())
    assert names == {f"{path.parent.name}.ipynb" for path in ROOT.glob("book/assignments/*/student.ipynb")}
    assert len(names) >= 3


def test_the_weekly_report_shows_what_failed_and_with_which_versions(tmp_path):
    log = "....\nE   ValueError: no\nFAILED tests/test_x.py::test_y - no\n1 failed, 3 passed\n" + "noise\n" * 500
    (tmp_path / "test.log").write_text(log)
    (tmp_path / "versions.txt").write_text("torch==9.9\n")
    text = weekly_report.report("ADDRESS", tmp_path)
    for part in ("ADDRESS", "E   ValueError: no", "FAILED tests/test_x.py::test_y", "torch==9.9"):
        assert part in text
    assert "noise" not in text
    assert weekly_report.failing("one\n\ntwo\n") == "one\ntwo"


def test_addresses_are_found_and_placeholders_left_out():
    text = ("See [x](https://a.org/b_(c)), (https://a.org/d). `https://a.org/e#part`, <https://a.org/f> "
            "https://github.com/YOUR_NAME/zsar http://127.0.0.1:8000/")
    assert check_links.addresses(text) == {f"https://a.org/{name}" for name in ("b_(c)", "d", "e", "f")}


def test_links_of_the_book_are_found():
    places = check_links.collect(ROOT)
    assert "https://creativecommons.org/licenses/by/4.0/legalcode" in places
    assert any(address.startswith("https://arxiv.org/abs/") for address in places)  # of the bibliography
    assert not any("YOUR_NAME" in address for address in places)


class Site(BaseHTTPRequestHandler):
    """A small web: fine, moved, gone, without HEAD, slow, forbidden, and one that works at the third request."""

    asked: list[tuple[str, str]] = []

    def do_GET(self):
        self.asked.append((self.command, self.path))
        if self.path == "/slow":
            time.sleep(1)
        times = sum(path == self.path for _, path in self.asked)
        status = {"/gone": 404, "/moved": 301, "/loop": 301, "/forbidden": 403,
                  "/flaky": 200 if times > 2 else 503,
                  "/no-head": 405 if self.command == "HEAD" else 200}.get(self.path, 200)
        self.send_response(status)
        if status == 301:
            self.send_header("Location", "/fine" if self.path == "/moved" else "/loop")
        self.send_header("Content-Length", "0")
        self.end_headers()

    do_HEAD = do_GET

    def log_message(self, *_):
        pass


@pytest.fixture
def site():
    """The address of the small web."""
    Site.asked = []
    with ThreadingHTTPServer(("127.0.0.1", 0), Site) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


@pytest.mark.parametrize(("path", "answer"), [
    ("/fine", "ok"), ("/moved", "ok"), ("/no-head", "ok"), ("/flaky", "ok"), ("/gone", "dead: HTTP 404"),
    ("/forbidden", "unsure: HTTP 403"), ("/slow", "dead: timed out"), ("/loop", "unsure: HTTP 301")])
def test_what_a_link_comes_to(site, path, answer):
    assert check_links.check(site + path, timeout=0.3, pause=0) == answer


def test_what_is_fine_is_asked_once_and_by_head(site):
    check_links.check(f"{site}/fine", pause=0)
    check_links.check(f"{site}/no-head", pause=0)
    assert Site.asked == [("HEAD", "/fine"), ("HEAD", "/no-head"), ("GET", "/no-head")]


def test_an_unreachable_host_is_dead():
    with ThreadingHTTPServer(("127.0.0.1", 0), Site) as closed:
        address = f"http://127.0.0.1:{closed.server_port}/"
    assert check_links.check(address, timeout=1, pause=0).startswith("dead: ")


def test_the_summary_names_the_dead_link_and_fails(site, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(check_links, "PLACEHOLDERS", re.compile("YOUR_NAME"))
    (tmp_path / "README.md").write_text(f"{site}/fine {site}/forbidden {site}/YOUR_NAME")
    assert check_links.main(tmp_path, pause=0) == 0
    (tmp_path / "OTHER.md").write_text(f"[a]({site}/gone), again {site}/fine")
    assert check_links.main(tmp_path, pause=0) == 1
    shown = capsys.readouterr().out
    assert f"dead: HTTP 404\n  {site}/gone\n  in OTHER.md" in shown
    assert shown.endswith("3 links: 1 fine, 1 unsure, 1 dead\n")


@pytest.mark.skipif(not CHROMIUM, reason=MISSING)
def test_pages_become_one_file_with_bookmarks_and_links_within(tmp_path):
    pytest.importorskip("pypdf")
    from make_pdf import links, make_pdf
    from pypdf import PdfReader

    for name, other in (("one", "two"), ("two", "one")):
        (tmp_path / f"{name}.html").write_text(
            f'<html lang="en"><title>{name}</title><h1>Page {name}</h1><p><a href="{other}.html#end">there</a> '
            '<a href="#end">down</a> <a href="missing.html">nowhere</a> <a href="https://a.org/">out</a>'
            '<div style="height: 200vh"></div><h2 id="end" style="break-before: page">End</h2></html>')
    names = ("one", "two")
    make_pdf(tmp_path, names, tmp_path / "all.pdf", {"/Title": "Two pages"})
    pdf = PdfReader(tmp_path / "all.pdf")
    text = [page.extract_text() for page in pdf.pages]
    first, second = (next(n for n, part in enumerate(text) if f"Page {name}" in part) for name in names)
    ends = [n for n, part in enumerate(text) if "End" in part]
    assert first == 0 < ends[0] < second < ends[1]
    assert [item.title for item in pdf.outline if not isinstance(item, list)] == ["Page one", "Page two"]
    numbers = {page.indirect_reference.idnum: n for n, page in enumerate(pdf.pages)}
    jumps = [numbers[link["/Dest"][0].idnum] for link in links(pdf) if "/Dest" in link]
    assert jumps == [ends[1], ends[0], ends[0], ends[1]]  # the anchor has the same name on both pages
    assert {link["/A"]["/URI"] for link in links(pdf) if "/A" in link} == {"https://a.org/"}
    assert pdf.metadata.title == "Two pages"
