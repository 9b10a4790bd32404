"""Text that an agent, an upstream or another person chose, shown so that it looks like what it is.

What takes no space, turns the direction of reading or could be taken for something else stands as its escape, marked,
with its name on hover; the rest can neither leave its place nor turn what stands around it.
"""

from __future__ import annotations

import re
import unicodedata

from markupsafe import Markup, escape

from gateway.catalog.sentences import escaped

_BREAKS = re.compile(r"([\n\t])")
_LOOKS_LIKE_TEXT = frozenset(('"', "\\"))  # quoted in a sentence, plain here


def visible(text: str | None, *, exact: bool = False, lines: bool = False) -> Markup:
    """`text` as HTML. `exact`: look-alike letters matter, so only ASCII stands as it is. `lines`: keep them."""
    if not text:
        return Markup("")
    parts = _BREAKS.split(text) if lines else [text]
    shown = Markup("").join(part if part in ("\n", "\t") and lines else _part(part, ascii_only=exact) for part in parts)
    return Markup("<bdi>{}</bdi>").format(shown)


def _part(text: str, *, ascii_only: bool) -> Markup:
    if text.isascii() and text.isprintable():
        return escape(text)
    shown: list[Markup] = []
    plain: list[str] = []
    for character, instead in escaped(text, ascii_only=ascii_only):
        if instead is None or character in _LOOKS_LIKE_TEXT:
            plain.append(character)
            continue
        shown += [escape("".join(plain)), _escape(character, instead)]
        plain.clear()
    return Markup("").join([*shown, escape("".join(plain))])


def _escape(character: str, instead: str) -> Markup:
    name = f"U+{ord(character):04X} {unicodedata.name(character, '')}".strip()
    return Markup('<span class="unseen" title="{}">{}</span>').format(name, instead)
