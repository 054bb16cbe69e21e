"""Glossary terms: the first mention in a page becomes a link, and every link carries the definition."""

import html
import re

from docutils import nodes
from sphinx.application import Sphinx

GLOSSARY = "book/glossary"
#: Words that pages also use in their everyday sense.
EVERYDAY = {"alpha", "cell", "digest", "ensemble", "eps", "expectation", "head", "interval",
            "precision", "profile", "rank", "store", "template", "text feature, image feature", "unit"}
#: Where a link would be within a link, a name of code or a heading, or its definition cut off by a table's box.
CLOSED = (nodes.reference, nodes.literal, nodes.math, nodes.title, nodes.caption, nodes.raw, nodes.entry)
LINK = re.compile(r'<a (?=[^>]*href="[^"]*#(term-[^"]+)")')


def definitions(app: Sphinx) -> dict[str, tuple[str, str]]:
    """Term -> its anchor and its definition, from the glossary page."""
    if not hasattr(app.env, "book_definitions"):
        app.env.book_definitions = {
            term.astext(): (term["ids"][0], " ".join(item.next_node(nodes.definition).astext().split()))
            for item in app.env.get_doctree(GLOSSARY).findall(nodes.definition_list_item)
            for term in item.findall(nodes.term)}
    return app.env.book_definitions


def pattern(term: str) -> str:
    """Matches a term, also in the plural; a lower-case term also at the beginning of a sentence."""
    first = f"[{term[0].upper()}{term[0]}]" if term[0].islower() else re.escape(term[0])
    return rf"(?<![\w-]){first}{re.escape(term[1:])}s?(?![\w-])"


def split(text: nodes.Text, match: re.Match, address: str) -> list[nodes.Node]:
    """The text with the match as a link."""
    link = nodes.reference("", match[0], refuri=address, internal=True, classes=["glossary-link"])
    return [nodes.Text(text[:match.start()]), link, nodes.Text(text[match.end():])]


def in_open_prose(text: nodes.Text) -> bool:
    """Whether a text stands in a paragraph and may hold a link."""
    node, in_paragraph = text.parent, False
    while node is not None:
        if isinstance(node, CLOSED):
            return False
        in_paragraph = in_paragraph or isinstance(node, nodes.paragraph)
        node = node.parent
    return in_paragraph


def link_first_mentions(app: Sphinx, doctree: nodes.document, page: str) -> None:
    """Links each term where the page's paragraphs first say it, unless the page links to it already."""
    if page == GLOSSARY or not app.env.doc2path(page).endswith(".ipynb"):
        return
    glossary = app.builder.get_relative_uri(page, GLOSSARY)
    linked = [link.get("refuri", "") for link in doctree.findall(nodes.reference)]
    texts = [text for text in doctree.findall(nodes.Text) if in_open_prose(text)]
    for term, (anchor, _) in sorted(definitions(app).items(), key=lambda pair: -len(pair[0])):
        if term in EVERYDAY or any(anchor in address for address in linked):
            continue
        word = re.compile(pattern(term))
        found = next(((place, match) for place, text in enumerate(texts) if (match := word.search(text))), None)
        if found:
            place, match = found
            before, link, after = split(texts[place], match, f"{glossary}#{anchor}")
            texts[place].parent.replace(texts[place], [before, link, after])
            texts[place:place + 1] = [before, after]
            linked.append(link["refuri"])


def add_definitions(app: Sphinx, page: str, template: str, context: dict, doctree: nodes.document | None) -> None:
    """Puts the definition into every link to a term: for the style sheet, and read out by screen readers."""
    if doctree is None:
        return
    known = dict(definitions(app).values())

    def describe(match: re.Match) -> str:
        text = html.escape(known.get(match[1], ""))
        return f'{match[0]}data-definition="{text}" aria-description="{text}" ' if text else match[0]

    context["body"] = LINK.sub(describe, context["body"])
