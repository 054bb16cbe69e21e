"""Prints the built book, offline, into ``_build/zsar.pdf``: all pages, with bookmarks and links within the file."""

import sys
import threading
from io import BytesIO
from pathlib import Path
from urllib.parse import unquote, urldefrag

import yaml
from browser import CHROMIUM, MISSING, open_chromium
from build_book import ROOT, pages
from pypdf import PdfReader, PdfWriter
from pypdf.generic import ArrayObject, DictionaryObject, FloatObject, NameObject, NullObject, TextStringObject
from serve import HTML, open_server

READY = "async () => { await window.MathJax?.startup?.promise; await document.fonts.ready; }"


def links(pdf: PdfReader | PdfWriter) -> list[DictionaryObject]:
    """All links of a file."""
    notes = [note.get_object() for page in pdf.pages for note in page.get("/Annots", [])]
    return [note for note in notes if note.get("/Subtype") == "/Link"]


def add(writer: PdfWriter, printed: bytes, address: str) -> dict[str, tuple]:
    """Appends what was printed of an address; returns the address, and each #anchor -> number of the page, height."""
    start, reader = len(writer.pages), PdfReader(BytesIO(printed))
    for link in links(reader):
        if "/Dest" in link:  # named by the anchor alone, and chapters share anchors
            uri = TextStringObject(f"{address}#{str(link.pop('/Dest')).removeprefix('/')}")
            link[NameObject("/A")] = DictionaryObject({NameObject("/S"): NameObject("/URI"), NameObject("/URI"): uri})
    writer.append(reader)
    anchors = {f"{address}#{name.removeprefix('/')}": (start + reader.get_destination_page_number(place), place.top)
               for name, place in reader.named_destinations.items()}
    return {address: (start, 0)} | anchors


def connect(writer: PdfWriter, places: dict[str, tuple], origin: str) -> None:
    """Turns links within the book into jumps, to the page's start where the anchor is not known."""
    for link in links(writer):
        uri = unquote(str(link.get("/A", {}).get("/URI", "")))
        if uri.startswith(origin):
            del link["/A"]
            number, top = places.get(uri) or places.get(urldefrag(uri).url) or (None, 0)
            if number is not None:
                link[NameObject("/Dest")] = ArrayObject([writer.pages[number].indirect_reference, NameObject("/XYZ"),
                                                         NullObject(), FloatObject(top or 842), NullObject()])


def make_pdf(html: Path, names: list[str], target: Path, about: dict[str, str]) -> None:
    """Prints the pages ``names`` of the folder ``html`` into ``target``."""
    writer, places, server = PdfWriter(), {}, open_server(8700, html)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    origin = f"http://127.0.0.1:{server.server_port}/"
    with open_chromium() as chromium, server:
        tab = chromium.new_page()
        tab.route(lambda address: not address.startswith((origin, "data:", "blob:")), lambda route: route.abort())
        for name in names:
            tab.goto(f"{origin}{name}.html", wait_until="networkidle")
            tab.evaluate(READY)
            tab.add_style_tag(content=f"html {{ counter-reset: page {len(writer.pages)} }}")
            printed = tab.pdf(prefer_css_page_size=True, print_background=True, tagged=True, outline=True)
            places |= add(writer, printed, f"{origin}{name}.html")
        server.shutdown()
    connect(writer, places, origin)
    writer.add_metadata(about)
    writer.write(target)


if __name__ == "__main__":
    if not CHROMIUM or not (HTML / "index.html").exists():
        sys.exit("there is no built book yet: run `make book` first" if CHROMIUM else MISSING)
    config = yaml.safe_load((ROOT / "_config.yml").read_text(encoding="utf-8"))
    make_pdf(HTML, pages(), HTML.with_name("zsar.pdf"), {"/Title": config["title"], "/Author": config["author"]})
    print("the book is in _build/zsar.pdf")
