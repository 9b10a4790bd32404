"""What a page truly has, as a browser would read it."""

from __future__ import annotations

from html.parser import HTMLParser

import httpx

from gateway.console.pages import CSP

MODULE = "/console/static/approvals.js?v="
_INLINE = frozenset(("a", "bdi", "code", "q", "span", "strong", "time"))


class Page(HTMLParser):
    """Tags with their attributes, and the text that people read."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self._text: list[str] = []
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in _INLINE:
            self._text.append(" ")

    def handle_data(self, data: str) -> None:
        self._text.append(data)

    @property
    def text(self) -> str:
        return " ".join("".join(self._text).split())

    def all(self, tag: str) -> list[dict[str, str | None]]:
        """The attributes of every such tag."""
        return [attributes for name, attributes in self.tags if name == tag]

    def form(self, action: str) -> dict[str, str]:
        """The fields of the form that is sent to `action`, as they are filled in."""
        found: dict[str, str] = {}
        inside = False
        for tag, attributes in self.tags:
            if tag == "form":
                inside = attributes["action"] == action
            elif tag == "input" and inside:
                found[attributes["name"] or ""] = attributes.get("value") or ""
        assert found, f"the page has no form to {action}"
        return found

    def fields(self, decision: str) -> dict[str, str]:
        """The hidden fields of the form that decides so."""
        found: dict[str, str] = {}
        for tag, attributes in self.tags:
            if tag == "form":
                found = {}
            elif tag == "input" and attributes.get("type") == "hidden":
                found[attributes["name"] or ""] = attributes["value"] or ""
                if found.get("decision") == decision:
                    return found
        raise AssertionError(f"the page has no form to {decision}")


def check_page(answer: httpx.Response, *, scripted: bool = False) -> Page:
    """Nothing inline, nothing from elsewhere, at most the one module, and the headers that hold it so."""
    assert answer.headers["content-security-policy"] == CSP
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert answer.headers["referrer-policy"] == "same-origin"  # with none, our own forms would come with Origin: null
    page = Page(answer.text)
    assert not [tag for tag, _ in page.tags if tag in {"img", "iframe", "object", "style", "svg", "base"}]
    for tag, attributes in page.tags:
        assert not [name for name in attributes if name.startswith("on") or name == "style"], tag
        for name in ("href", "src", "action"):
            value = attributes.get(name)
            assert value is None or value.startswith(("/console", "#")), value
    scripts = page.all("script")
    assert len(scripts) == int(scripted)
    for script in scripts:
        assert script["type"] == "module"
        assert (script["src"] or "").startswith(MODULE)
    assert page.all("html") == [{"lang": "en"}]
    return page
