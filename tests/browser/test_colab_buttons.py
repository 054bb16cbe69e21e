"""Every notebook among the pages has a button that opens that notebook on Colab, at the address in ``_config.yml``."""

import re
from pathlib import Path

import yaml

ROOT = Path(__file__).resolve().parents[2]


def test_every_chapter_and_assignment_opens_on_colab(html):
    config = yaml.safe_load((ROOT / "_config.yml").read_text(encoding="utf-8"))
    place = config["repository"]["url"].removeprefix("https://github.com/")
    root = f"{config['launch_buttons']['colab_url']}/github/{place}/blob/{config['repository']['branch']}"
    for path in [*ROOT.glob("book/*.ipynb"), *ROOT.glob("book/assignments/*/student.ipynb")]:
        name = path.relative_to(ROOT).as_posix()
        page = (html / name).with_suffix(".html").read_text(encoding="utf-8")
        assert f'href="{root}/{name}"' in page, name
        assert set(re.findall(r'href="(https://colab\.[^"]+)"', page)) == {f"{root}/{name}"}, "another address"
