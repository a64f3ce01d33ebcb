"""The report as HTML and Markdown: hostile text stays text, images are inside, tables hold."""

import base64
import io
from html.parser import HTMLParser

import pytest
from PIL import Image

from tasks.evaluation.rendering import Section, Table, as_html, as_markdown

HOSTILE = (
    "<script>alert(1)</script>",
    "<img src=x onerror=alert(1)>",
    '"><svg onload=alert(1)>',
    "'); alert(1); ('",
    "</td></tr></table><h1>owned</h1>",
    "{{ 7 * 7 }}{% for x in y %}",
    "&lt;b&gt; is not <b>",
    "a | b\n| c |\n\n# d",
    "![i](http://tracker.example/x.png) [l](javascript:alert(1)) `code` **bold** \\",
)
OURS = {"html", "head", "meta", "title", "style", "body", "h1", "h2", "p", "table"} | {
    "tr", "th", "td",
}  # fmt: skip


class Page(HTMLParser):
    """The tags of a page with their attributes, and the text of its cells."""

    def __init__(self, text):
        super().__init__()
        self.tags, self.cells = [], []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        if tag in ("td", "th"):
            self.cells.append("")

    def handle_data(self, data):
        if self.cells:
            self.cells[-1] += data


@pytest.mark.parametrize("text", HOSTILE)
def test_hostile_captions_stay_text(text):
    sections = [Section(text, [text], [Table((text,), [(text,)])])]
    page = Page(as_html(text, sections))
    assert {tag for tag, _ in page.tags} <= OURS
    assert all(set(attributes) <= {"lang", "charset"} for _, attributes in page.tags)
    assert [cell.rstrip() for cell in page.cells] == [text, text]
    written = as_markdown("t", sections)
    assert "<" not in written
    assert "](" not in written.replace("\\]", "")
    rows = [line for line in written.splitlines() if line.startswith("|")]
    assert len(rows) == 3
    assert all(row.replace("\\\\", "").replace("\\|", "").count("|") == 2 for row in rows)


def test_cells_of_every_kind():
    image = Image.new("RGB", (300, 200), "red")
    small = io.BytesIO()
    Image.new("RGB", (20, 40), "blue").save(small, "PNG")
    rows = [("a", 0.12345, None, image, small.getvalue()), ("b", 3, "x", None, None)]
    sections = [Section("", tables=[Table(("name", "figure", "other", "one", "two"), rows)])]
    page = Page(as_html("Report", sections))
    found = [attributes["src"] for tag, attributes in page.tags if tag == "img"]
    opened = [Image.open(io.BytesIO(base64.b64decode(s.partition(",")[2]))) for s in found]
    assert [i.size for i in opened] == [(96, 64), (20, 40)]
    assert ("td", {"class": "number"}) in page.tags
    assert "0.123" in page.cells
    assert as_markdown("Report", sections) == (
        "# Report\n\n"
        "| name | figure | other |\n|---|---|---|\n| a | 0.123 | - |\n| b | 3 | x |\n"
        "\n(The images are in report.html.)\n\n"
    )
