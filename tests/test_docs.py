"""The documents that code and messages name are there, and the site fetches nothing."""

import re
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
NAMED = re.compile(r"docs/[\w/-]+\.(?:md|png)")


@pytest.mark.parametrize("folder", ["gill", "data", "tasks", "flows", "benchmarks", "tests"])
def test_documents_that_are_named_are_there(folder):
    named = {
        (name, path.relative_to(ROOT).as_posix())
        for path in sorted((ROOT / folder).rglob("*.py"))
        for name in NAMED.findall(path.read_text())
    }
    assert not [place for place in named if not (ROOT / place[0]).exists()]


def test_links_of_the_readme_lead_somewhere():
    text = (ROOT / "README.md").read_text()
    targets = re.findall(r"\]\(([^)#:]+)(?:#[\w-]+)?\)", text)
    assert len(targets) > 10
    assert not [target for target in targets if not (ROOT / target).exists()]


class Fetched(HTMLParser):
    """What a browser fetches of itself for a page."""

    def __init__(self, text):
        super().__init__()
        self.addresses = []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        given = dict(attrs)
        if tag in {"script", "img", "iframe", "source", "video", "audio"}:
            self.addresses.append(given.get("src") or "")
        if tag == "link" and given.get("rel") != "canonical":
            self.addresses.append(given.get("href") or "")


@pytest.mark.process
def test_the_site_builds_without_a_warning_and_fetches_nothing(tmp_path):
    site = tmp_path / "site"
    done = subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "--site-dir", str(site)],
        cwd=ROOT, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    pages = sorted(site.rglob("*.html"))
    assert len(pages) > 20
    foreign = {
        (page.relative_to(site).as_posix(), address)
        for page in pages
        for address in Fetched(page.read_text()).addresses
        if re.match(r"(\w+:)?//", address)
    }
    assert not foreign
    for style in site.rglob("*.css"):
        assert not re.search(r"url\(\s*[\"']?(https?:)?//", style.read_text()), style
    assert (site / "reference" / "api" / "gill.inference.html").exists()
