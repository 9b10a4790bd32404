"""Guesses what a tool does and what its arguments mean, from their names alone; for drafts that a person reviews.

Errs on the safe side: names are an agent's own, and a name that promises to read proves nothing.
"""

from __future__ import annotations

import re
from typing import Any, NamedTuple


class Argument(NamedTuple):
    """An argument and what it seems to mean. `review` says what a person should look at."""

    name: str
    kind: str
    review: str | None


def _set(words: str) -> frozenset[str]:
    return frozenset(words.split())


# Words of a tool's name. Where several are there, the first set that has one decides, as `effect_of` asks them.
_DESTROYS = _set(
    "delete del drop remove rm rmdir destroy purge wipe erase truncate kill terminate uninstall unlink reset shutdown"
)
_SENDS = _set(
    "send post fetch http https request publish upload share notify reply forward invite push webhook web url curl"
    " wget browse browser navigate download tweet call"
)
_READS = _set(
    "get list read search find show view describe count check lookup look inspect preview peek stat status head ls cat"
    " grep glob"
)
_CHANGES = _set(
    "write set update create add edit insert put save move rename replace apply patch run exec execute eval start stop"
    " install merge commit pay transfer buy order book approve grant enable disable or and"
)
_LETTERS = _set("mail email message messages sms chat slack")
# Words of an argument's name.
_PATHS = _set("path paths file files filename filepath dir directory folder cwd workdir")
_URLS = _set("url urls uri uris link href endpoint webhook")
_MAILBOXES = _set("email emails mailbox cc bcc recipient recipients")
_ADDRESSES = _set("address addresses iban wallet")
_MONEY = _set("amount price cost total sum fee payment cents salary")
_IDS = _set("id ids uuid guid")
_CODE = _set("command cmd sql script code shell statement program")
_NO_TEXT = _set("number integer boolean")

_WORD = re.compile(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+|[0-9]+")


def effect_of(name: str, arguments: tuple[Argument, ...]) -> tuple[str, str]:
    """What a tool seems to do, and what says so. What is not plainly a read is none."""
    found = _words(name)
    for words, effect in ((_DESTROYS, "destructive"), (_SENDS, "egress")):
        word = next((one for one in found if one in words), None)
        if word is not None:
            return effect, f'guessed from "{word}" in its name'
    url = next((one.name for one in arguments if one.kind == "url"), None)
    code = any(_CODE & set(_words(one.name)) for one in arguments)
    if url is None and not code and found and found[0] in _READS and not _CHANGES & set(found):
        return "read", f'guessed from "{found[0]}" in its name'
    letter = next((one for one in found if one in _LETTERS), None)
    if letter is not None:
        return "egress", f'guessed from "{letter}" in its name'
    if url is not None:
        return "egress", "guessed, since it takes a URL"
    return "write", "taken for a change, since its name does not plainly say that it reads"


def argument_of(name: str, schema: Any) -> Argument:
    """What an argument seems to mean, from its name and its JSON Schema."""
    known = schema if isinstance(schema, dict) else {}
    words = _words(name)
    if _MONEY & set(words):
        return Argument(name, "text", "money? then kind money, with currency and unit")
    if str(known.get("type")) not in _NO_TEXT:
        if known.get("format") in ("uri", "url", "uri-reference") or _URLS & set(words):
            return Argument(name, "url", "guessed")
        if _PATHS & set(words):
            return Argument(name, "path", "guessed")
        if known.get("format") in ("email", "idn-email") or _MAILBOXES & set(words):
            return Argument(name, "email", "guessed")
        if _ADDRESSES & set(words):
            return Argument(name, "address", "guessed")
    if words and words[-1] in _IDS:
        return Argument(name, "object_id", "guessed")
    return Argument(name, "text", None)


def _words(name: str) -> list[str]:
    return [word.lower() for word in _WORD.findall(name)]
