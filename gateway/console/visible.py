"""Text that an agent, an upstream or another person chose, shown so that it looks like what it is.

What takes no space, turns the direction of reading or could be taken for something else stands as its escape, marked,
with its name on hover; the rest can neither leave its place nor turn what stands around it.
"""

from __future__ import annotations

import unicodedata

from markupsafe import Markup, escape

from gateway.catalog.sentences import escaped

_LOOKS_LIKE_TEXT = frozenset(('"', "\\"))  # quoted in a sentence, plain here


def visible(text: str | None, *, exact: bool = False, lines: bool = False) -> Markup:
    """`text` as HTML. `exact`: each letter matters, so only ASCII stands as it is. `lines`: keep them."""
    if not text:
        return Markup("")
    return Markup("<bdi>{}</bdi>").format(_marked(text, exact, ("\n", "\t") if lines else ()))


def _marked(text: str, exact: bool, kept: tuple[str, ...]) -> Markup:
    if text.isascii() and text.isprintable():
        return escape(text)
    shown: list[Markup] = []
    plain: list[str] = []
    for character, instead in escaped(text, ascii_only=exact):
        if instead is None or character in _LOOKS_LIKE_TEXT or character in kept:
            plain.append(character)
            continue
        shown += [escape("".join(plain)), _escape(character, instead)]
        plain.clear()
    return Markup("").join([*shown, escape("".join(plain))])


def _escape(character: str, instead: str) -> Markup:
    name = f"U+{ord(character):04X} {unicodedata.name(character, '')}".strip()
    return Markup('<span class="unseen" title="{}">{}</span>').format(name, instead)
