"""Report: text, tables and figures -> one HTML page that needs nothing else, to be read anywhere and kept."""

import base64
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from hf_infomax.models.errors import UsageError

from .table import Row, Table, tabulate

TEMPLATES = Path(__file__).parent / "templates"


@dataclass(frozen=True)
class Text:
    """Paragraphs of plain text, parted by blank lines."""

    kind: ClassVar[str] = "text"
    text: str

    @property
    def paragraphs(self) -> list[str]:
        return [paragraph.strip() for paragraph in self.text.split("\n\n") if paragraph.strip()]


@dataclass(frozen=True)
class ResultsTable:
    """Rows as a table, the best of each column marked."""

    kind: ClassVar[str] = "table"
    rows: Sequence[Row]
    caption: str

    @property
    def table(self) -> Table:
        return tabulate(self.rows)


@dataclass(frozen=True)
class Picture:
    """A PNG file, embedded in the page."""

    kind: ClassVar[str] = "picture"
    path: str | os.PathLike[str]
    caption: str
    alt: str  #: what a reader who cannot see it should know

    @property
    def data_uri(self) -> str:
        """The file as a data: address.

        Raises:
            UsageError: there is no such file, or it is not a PNG.
        """
        path = Path(self.path)
        if not path.is_file():
            raise UsageError(f"The report's figure {path} does not exist: draw it first.")
        content = path.read_bytes()
        if not content.startswith(b"\x89PNG\r\n\x1a\n"):
            raise UsageError(f"The report's figure {path} is not a PNG: save it as one.")
        return "data:image/png;base64," + base64.b64encode(content).decode("ascii")


@dataclass(frozen=True)
class Code:
    """A block of code to copy, such as how to load the model."""

    kind: ClassVar[str] = "code"
    code: str
    caption: str = ""


Block = Text | ResultsTable | Picture | Code


@dataclass(frozen=True)
class Section:
    """A heading and what stands below it."""

    title: str
    blocks: Sequence[Block]


def write_report(
    path: str | os.PathLike[str],
    title: str,
    sections: Sequence[Section],
    summary: str = "",
    facts: dict[str, str] | None = None,
    warnings: Sequence[str] = (),
) -> Path:
    """Write the page: style and images are inside the one file, and it holds no script and no address to load from.

    Args:
        path: of the HTML file; its folder is made.
        title: of the page.
        sections: what it says, in order.
        summary: a sentence or two below the title: the result.
        facts: small figures shown at the top, name -> value, such as {"Images seen": "50,000"}.
        warnings: sentences that a reader must not miss, in a box above everything but the title.

    Raises:
        UsageError: a picture does not exist or is not a PNG.

    >>> from tempfile import mkdtemp
    >>> sections = [Section("How to load it", [Code("model = AutoModel.from_pretrained('runs/dim/model')")])]
    >>> write_report(Path(mkdtemp()) / "report.html", "DIM on digits", sections).name
    'report.html'
    """
    environment = Environment(
        loader=FileSystemLoader(TEMPLATES),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    template = environment.get_template("report.html.jinja")
    page = template.render(title=title, sections=sections, summary=summary, facts=facts or {}, warnings=warnings)
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(page, encoding="utf-8")
    return path
