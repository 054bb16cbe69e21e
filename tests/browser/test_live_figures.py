"""Every interactive figure of the book in a browser: by mouse, by keyboard, without scripts, on paper, in the dark."""

import re

import pytest
from looks import STILL, luminance, open_tab, show

#: The page of each figure, what its controls are called, and of what kind they are.
FIGURES = {
    "breaking-clip": {"picture": "select", "eps": "range"},
    "zero-shot-clip": {"sentence": "select", "picture": "select"},
    "finetuning-or-prompts": {"picture": "select", "frame": "select", "attack": "select"},
    "price-of-robustness": {"measured on": "select", "w": "range"},
    "full-reproduction": {"method": "select", "dataset": "select"},
}
PAGES = [*FIGURES, "welcome"]
GUESSES = "welcome"
controlled = pytest.mark.parametrize("name", FIGURES)
each_page = pytest.mark.parametrize("name", PAGES)


RESET = """() => {
  for (const control of document.querySelectorAll("figure.zsar-live :is(input, option)")) {
    if (control.matches("input")) control.value = control.defaultValue;
    else control.selected = control.defaultSelected;
  }
  document.querySelector("figure.zsar-live :is(input, select)")?.dispatchEvent(new Event("input"));
  document.activeElement.blur();
}"""


@pytest.fixture(scope="module")
def shown(browser, address):
    """Shows the figure of a page, put back as it was, in a tab that is opened once; a function of the page's name."""
    tabs = {}

    def figure_of(name: str):
        if name not in tabs:
            tabs[name] = open_tab(browser, address.removesuffix("/book"))
            open_figure(tabs[name], address, name)
            tabs[name].wait_for_load_state("networkidle")
            tabs[name].add_style_tag(content=STILL)
        tab = tabs[name]
        tab.emulate_media(media="screen")
        show(tab, "light", 1280)
        tab.evaluate(RESET)
        figure = tab.locator("article figure.zsar-live")
        figure.scroll_into_view_if_needed()
        return figure

    yield figure_of
    for tab in tabs.values():
        tab.close()


@pytest.fixture
def still(browser):
    """A tab in which no script runs."""
    context = browser.new_context(java_script_enabled=False)
    yield context.new_page()
    context.close()


def open_figure(tab, address: str, name: str):
    """The one figure of a page, in sight."""
    tab.goto(f"{address}/{name}.html", wait_until="load")
    figure = tab.locator("article figure.zsar-live")
    assert figure.count() == 1
    figure.scroll_into_view_if_needed()
    return figure


def seen(figure) -> tuple[str, str]:
    """What a figure shows: its HTML and its sentence."""
    return figure.locator(".state").inner_html(), figure.locator(".sentence").inner_text()


def test_no_figure_is_forgotten(html):
    found = {path.stem for path in (html / "book").glob("*.html") if "zsar-live" in path.read_text(encoding="utf-8")}
    assert found == set(PAGES)


@controlled
def test_controls_are_labelled_and_say_their_value(shown, name):
    figure = shown(name)
    controls = figure.locator(".controls input, .controls select")
    assert controls.count() == len(FIGURES[name])
    for label, kind in FIGURES[name].items():
        control = figure.get_by_label(label, exact=True)
        assert control.is_visible()
        if kind == "range":
            assert control.get_attribute("aria-valuetext") == figure.locator(".value").inner_text() != ""
    assert figure.locator(".sentence").get_attribute("aria-live") == "polite"
    assert not figure.locator(".note").is_visible()


@controlled
def test_every_control_is_moved_by_keyboard(shown, name):
    figure = shown(name)
    page = figure.page
    states = {seen(figure)}
    for n, (label, kind) in enumerate(FIGURES[name].items()):
        if n == 0:
            figure.get_by_label(label, exact=True).focus()
        else:
            page.keyboard.press("Tab")
        assert page.evaluate("document.activeElement.closest('label').textContent").strip().startswith(label)
        assert page.evaluate("getComputedStyle(document.activeElement).outlineStyle") == "solid"
        page.keyboard.press("ArrowDown" if kind == "select" else "ArrowRight")
        states.add(seen(figure))
    assert len(states) == 1 + len(FIGURES[name])
    assert len({sentence for _, sentence in states}) == len(states)
    assert page.errors == [] and page.outside == []


@controlled
def test_every_control_is_moved_by_mouse(shown, name):
    figure = shown(name)
    page = figure.page
    for label, kind in FIGURES[name].items():
        before, control = seen(figure), figure.get_by_label(label, exact=True)
        if kind == "range":
            box = control.bounding_box()
            page.mouse.click(box["x"] + box["width"] - 4, box["y"] + box["height"] / 2)
            assert control.input_value() == control.get_attribute("max")
        else:
            control.select_option(index=control.locator("option").count() - 1)
        assert seen(figure)[0] != before[0] and seen(figure)[1] != before[1]


@controlled
def test_every_state_can_be_reached(shown, name):
    page = shown(name).page
    states = page.evaluate("JSON.parse(document.querySelector('figure.zsar-live script').textContent).states.length")
    found = page.evaluate("""() => {
        const figure = document.querySelector('figure.zsar-live');
        const controls = [...figure.querySelectorAll('.controls input, .controls select')];
        const size = c => c.type === 'range' ? Number(c.max) + 1 : c.options.length;
        const set = new Set();
        let all = controls.reduce((n, c) => n * size(c), 1);
        for (let k = 0; k < all; k++) {
            let rest = k;
            for (const c of controls) {
                if (c.type === 'range') c.value = rest % size(c); else c.selectedIndex = rest % size(c);
                rest = Math.floor(rest / size(c));
            }
            controls[0].dispatchEvent(new Event('input'));
            set.add(figure.querySelector('.state').innerHTML + figure.querySelector('.sentence').textContent);
        }
        return set.size;
    }""")
    assert found == states


def test_the_explorer_says_what_was_chosen(shown):
    figure = shown("full-reproduction")
    figure.get_by_label("method", exact=True).select_option("fare:finetune")
    figure.get_by_label("dataset", exact=True).select_option("DrawnPCAM")
    assert seen(figure)[1].startswith("fare:finetune, DrawnPCAM:")
    assert figure.locator("tbody tr").count() == 1
    figure.get_by_label("dataset", exact=True).select_option("all datasets")
    assert figure.locator("tbody tr").count() == 17


def test_the_eps_slider_reads_its_eps(shown):
    figure = shown("breaking-clip")
    page = figure.page
    slider = figure.get_by_label("eps", exact=True)
    slider.focus()
    page.keyboard.press("Home")
    assert slider.get_attribute("aria-valuetext") == "0/255"
    assert seen(figure)[1].startswith("At eps 0/255") and "still called" in seen(figure)[1]
    page.keyboard.press("End")
    assert "now called" in seen(figure)[1]
    assert figure.locator(".state img").count() == 3


def test_the_prompt_viewer_says_what_was_chosen(shown):
    figure = shown("finetuning-or-prompts")
    figure.get_by_label("frame", exact=True).select_option("learned")
    figure.get_by_label("attack", exact=True).select_option("white box")
    sentence = seen(figure)[1]
    assert "under the white box attack" in sentence and "in the learned frame" in sentence
    assert figure.locator(".state img").count() == 2


@pytest.mark.parametrize("way", ["mouse", "keyboard"])
def test_guesses_are_counted(shown, way):
    figure = shown(GUESSES)
    page = figure.page
    rounds = page.evaluate("JSON.parse(document.querySelector('figure.zsar-live script').textContent)")
    names, found = ("left", "right"), 0
    figure.get_by_role("button", name="left").focus()
    for i, (_, side, verdict) in enumerate(rounds):
        right = i % 3 != 1
        choice, pair = side if right else 1 - side, seen(figure)[0]
        button = figure.get_by_role("button", name=names[choice])
        if way == "mouse":
            button.click()
        else:
            if choice:
                page.keyboard.press("Tab")
            page.keyboard.press("Enter")
        found += right
        said = seen(figure)[1]
        assert said.startswith("Right." if right else "Wrong.") and verdict in said
        assert f"Found: {found} of {i + 1}" in said
        following = figure.get_by_role("button", name="next pair" if i + 1 < len(rounds) else "begin again")
        if way == "mouse":
            following.click()
        else:
            page.keyboard.press("Enter")  # it has the focus
        assert seen(figure)[0] != pair
    assert seen(figure)[1] == f"Pair 1 of {len(rounds)}."
    assert page.errors == [] and page.outside == []


def test_the_pictures_to_guess_from_differ_and_are_lossless(shown):
    rounds = shown(GUESSES).page.evaluate("JSON.parse(document.querySelector('figure.zsar-live script').textContent)")
    assert len(rounds) == 8
    for pair, *_ in rounds:
        one, other = re.findall(r'src="(data:image/png;base64,[^"]+)"', pair)
        assert one != other


@each_page
def test_a_page_with_a_figure_is_light(shown, name):
    """Its own part, without what all pages share: the page, its pictures, and no library for widgets or icons."""
    sizes = dict(shown(name).page.evaluate("""["navigation", "resource"].flatMap(kind =>
        performance.getEntriesByType(kind).map(entry => [entry.name, entry.encodedBodySize]))"""))
    own = sum(size for url, size in sizes.items() if url.endswith(f"/{name}.html") or "/_images/" in url)
    assert 50_000 < own < 1.2e6
    assert not [url for url in sizes if "require" in url or "html-manager" in url]
    assert sum(size for url, size in sizes.items() if "fontawesome.js" in url) < 1000


@each_page
def test_without_scripts_there_is_a_picture_and_a_sentence(still, address, name):
    figure = open_figure(still, address, name)
    assert figure.locator(".state img, .state table, .state svg").first.is_visible()
    assert figure.locator(".note").is_visible()
    assert not figure.locator(".controls").is_visible()
    if name == GUESSES:
        assert figure.locator(".question").inner_text().endswith("?")
        figure.locator("summary").click()
        assert re.search(r"It was the (left|right) one\.", figure.inner_text())
    else:
        assert len(figure.locator(".sentence").inner_text()) > 20


@each_page
def test_on_paper_there_are_no_controls(shown, name):
    figure = shown(name)
    figure.page.emulate_media(media="print")
    assert not figure.locator(".controls").is_visible()
    assert figure.locator(".state").is_visible()
    assert figure.locator("figcaption").is_visible()


@pytest.mark.parametrize("theme", ["light", "dark"])
@each_page
def test_every_word_can_be_read(shown, name, theme):
    page = shown(name).page
    show(page, theme, 1280)
    pairs = page.evaluate("""[...document.querySelectorAll('.zsar-live :is(th, td, small, figcaption, span, label, '
        + '.value, select, button:enabled, .pictures div)')].map(e => {
        let back = e;
        while (back && getComputedStyle(back).backgroundColor === 'rgba(0, 0, 0, 0)') back = back.parentElement;
        return [getComputedStyle(e).color, getComputedStyle(back || document.body).backgroundColor];
    })""")
    assert pairs
    for ink, paper in {tuple(pair) for pair in pairs}:
        low, high = sorted((luminance(ink), luminance(paper)))
        assert (high + .05) / (low + .05) >= 4.5, (ink, paper)


@each_page
def test_nothing_sticks_out_on_a_phone(shown, name):
    page = shown(name).page
    show(page, "light", 375)
    assert page.evaluate("document.documentElement.scrollWidth") <= 375
    right = "Math.max(...[...document.querySelectorAll('.zsar-live, .zsar-live *')]" \
            ".map(e => e.getBoundingClientRect().right))"
    assert page.evaluate(right) <= 375


def test_icons_are_drawn_by_their_font(page, address):
    page.goto(f"{address}/welcome.html", wait_until="networkidle")
    icon = page.locator(".article-header-buttons i.fas, .article-header-buttons i.fa-solid").first
    assert "Font Awesome" in icon.evaluate("i => getComputedStyle(i, '::before').fontFamily")
    assert icon.evaluate("i => getComputedStyle(i, '::before').content") not in ("none", "normal")
    assert page.evaluate("document.fonts.check('900 16px \"Font Awesome 6 Free\"')")
