"""The pages of the documentation as the tests read them: fenced snippets, links, words in backticks."""

from __future__ import annotations

import re
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).parents[2]
_FENCE = re.compile(r"^```(?P<info>[^\n`]*)\n(?P<text>.*?)^```\s*$", re.MULTILINE | re.DOTALL)
_LINK = re.compile(r"(?<!!)\[[^\]]*\]\((?P<target>[^)\s]+)\)")
_CODE = re.compile(r"`([^`\n]+)`")


class Snippet(NamedTuple):
    """A fenced block. `language` is the first word after the fence, `mark` the rest: what the snippet is a part of."""

    page: Path
    line: int
    language: str
    mark: str
    text: str

    @property
    def id(self) -> str:
        return f"{self.page.relative_to(ROOT)}:{self.line}"


def pages() -> list[Path]:
    """Every page that people read, the generated reference included."""
    single = ["README.md", "CHANGELOG.md", "CONTRIBUTING.md", "SECURITY.md", "policies/README.md"]
    return [ROOT / name for name in single] + sorted((ROOT / "docs").rglob("*.md"))


def written() -> list[Path]:
    """The pages that are written by hand."""
    return [page for page in pages() if "reference" not in page.parts]


def snippets(language: str | None = None) -> list[Snippet]:
    """The fenced blocks of all pages written by hand."""
    found = []
    for page in written():
        text = page.read_text()
        for match in _FENCE.finditer(text):
            first, _, mark = match["info"].strip().partition(" ")
            line = text.count("\n", 0, match.start()) + 1
            found.append(Snippet(page, line, first, mark.strip(), match["text"]))
    return [one for one in found if language is None or one.language == language]


def prose(page: Path) -> str:
    """A page without its fenced blocks."""
    return _FENCE.sub("", page.read_text())


def links(page: Path) -> list[str]:
    """Where a page's links lead."""
    return [match["target"] for match in _LINK.finditer(prose(page))]


def code_words(page: Path) -> list[str]:
    """What stands in backticks in a page's prose."""
    return _CODE.findall(prose(page))


def anchors(page: Path) -> set[str]:
    """The anchors that a page's headings make."""
    headings = re.findall(r"^#+ (.+)$", prose(page), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}
