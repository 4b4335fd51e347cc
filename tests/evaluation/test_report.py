import base64
import io
from html.parser import HTMLParser

import pytest
from PIL import Image

from hf_infomax.evaluation import Code, Picture, ResultsTable, Row, Section, Text, write_report
from hf_infomax.models.errors import UsageError


class Page(HTMLParser):
    """Every element with its attributes, the text, and which elements were left open."""

    VOID = frozenset({"meta", "img", "br"})

    def __init__(self, source):
        super().__init__()
        self.elements, self.text, self.open = [], "", []
        self.feed(source)

    def handle_starttag(self, tag, attrs):
        self.elements.append((tag, dict(attrs)))
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.text += data

    def all(self, tag):
        return [attributes for name, attributes in self.elements if name == tag]


@pytest.fixture
def picture(tmp_path):
    Image.new("RGB", (40, 20), "teal").save(tmp_path / "figure.png")
    return tmp_path / "figure.png"


@pytest.fixture
def page(tmp_path, picture):
    rows = [
        Row("DIM(L)", layer, "knn", "label", "digits", "test", "accuracy", v)
        for layer, v in (("conv", 0.91), ("y", 0.8))
    ]
    sections = [
        Section("Result", [Text("First.\n\nSecond <b>bold</b> & more."), ResultsTable(rows, "Held-out images.")]),
        Section("Training", [Picture(picture, "The bound grows.", alt='A "curve"')]),
        Section("How to load it", [Code("model = load('runs/dim')  # a < b", "Two lines:")]),
    ]
    path = write_report(
        tmp_path / "out" / "report.html", "DIM on <digits>", sections, "Good.", {"Images seen": "50,000"}
    )
    return path.read_text(encoding="utf-8")


def test_the_page_is_well_formed_and_says_everything(page):
    parsed = Page(page)
    assert page.lstrip().startswith("<!DOCTYPE html>")
    assert parsed.open == []
    expected = ("Good.", "50,000", "Result", "First.", "91.0", "Held-out images.", "The bound grows.", "Two lines:")
    assert all(text in parsed.text for text in expected)
    assert len(parsed.all("section")) == 3
    assert [attributes for attributes in parsed.all("td") if "best" in attributes.get("class", "")] == [
        {"class": "number best"}
    ]


def test_nothing_is_loaded_from_elsewhere_and_nothing_runs(page):
    parsed = Page(page)
    assert not {"script", "link", "iframe", "object", "base"} & {tag for tag, _ in parsed.elements}
    addresses = [
        value for _, attributes in parsed.elements for key, value in attributes.items() if key in ("src", "href")
    ]
    assert addresses
    assert all(address.startswith("data:") for address in addresses)
    assert not any(key.startswith("on") for _, attributes in parsed.elements for key in attributes)
    assert not any(mark in page for mark in ("url(", "@import", "http:", "https:", "//cdn"))


def test_the_embedded_image_is_the_file(page, picture):
    (attributes,) = Page(page).all("img")
    head, content = attributes["src"].split(",")
    assert head == "data:image/png;base64"
    assert base64.b64decode(content, validate=True) == picture.read_bytes()
    assert Image.open(io.BytesIO(base64.b64decode(content))).size == (40, 20)
    assert attributes["alt"] == 'A "curve"'


def test_text_is_escaped(page):
    assert "<b>" not in page
    assert "&lt;b&gt;bold&lt;/b&gt; &amp; more." in page
    assert "<title>DIM on &lt;digits&gt;</title>" in page
    assert "a &lt; b" in page


def test_it_suits_phones_and_both_colour_schemes(page):
    names = {attributes.get("name"): attributes.get("content") for attributes in Page(page).all("meta")}
    assert names["viewport"] == "width=device-width, initial-scale=1"
    assert names["color-scheme"] == "light dark"
    assert "prefers-color-scheme: dark" in page


def test_a_report_may_have_no_more_than_a_title(tmp_path):
    page = write_report(tmp_path / "report.html", "Empty", []).read_text(encoding="utf-8")
    assert Page(page).open == []
    assert not Page(page).all("dl")


def test_warnings_stand_in_a_box_before_the_first_section(tmp_path):
    warnings = ["Layer y has <collapsed>.", "Another."]
    sections = [Section("Result", [Text("First.")])]
    page = write_report(tmp_path / "report.html", "t", sections, warnings=warnings).read_text(encoding="utf-8")
    (box,) = Page(page).all("aside")
    assert box["class"] == "warnings"
    assert page.index("&lt;collapsed&gt;") < page.index("Another.") < page.index("<section")
    assert len(Page(page).all("li")) == 2
    assert not Page(write_report(tmp_path / "report.html", "t", sections).read_text(encoding="utf-8")).all("aside")


@pytest.mark.parametrize(("probes", "wide"), [(5, False), (6, True)])
def test_a_table_of_many_columns_may_be_wider_than_the_text(tmp_path, probes, wide):
    rows = [Row("m", "y", f"knn{k}", "label", "set", "test", "accuracy", 0.5) for k in range(probes)]
    page = write_report(tmp_path / "r.html", "t", [Section("s", [ResultsTable(rows, "c")])]).read_text(encoding="utf-8")
    (figure,) = Page(page).all("figure")
    assert (figure.get("class") == "wide") == wide


def test_a_missing_figure_and_another_format_are_named(tmp_path):
    (tmp_path / "figure.jpg").write_bytes(b"\xff\xd8\xff")
    for name, message in (("missing.png", "does not exist"), ("figure.jpg", "not a PNG")):
        with pytest.raises(UsageError, match=message):
            write_report(tmp_path / "report.html", "t", [Section("s", [Picture(tmp_path / name, "c", "a")])])
    assert not (tmp_path / "report.html").exists()
