"""Takes secrets out of text: whole texts, JSON, and texts that arrive in pieces.

Secrets are looked for in strings as their reader has them, so JSON escapes do not hide one. Of a text that arrives in
pieces, an end that may be the beginning of a secret is held until the next piece shows whether it is.
"""

from __future__ import annotations

import functools
import json
import re
from collections.abc import Iterable
from typing import Any, Final

REDACTED: Final = "[redacted]"
_END_BYTES = 8  # or characters
_LONGEST_ESCAPED = 4096  # characters; where a longer secret is in nested escapes, the whole text goes
_DEEPEST = 4  # escapes of escapes

# Of any JSON text: strings, and numbers, which secrets of digits may be.
_TOKEN = re.compile(r'"(?:[^"\\]|\\.)*+"|-?[0-9][0-9.eE+-]*', re.DOTALL)
_ESCAPE = re.compile(r"\\+(?:u([0-9a-fA-F]{4})|(.))", re.DOTALL)
_SURROGATE = re.compile("[\ud800-\udfff]")
_SHORT = {"n": "\n", "r": "\r", "t": "\t", "b": "\b", "f": "\f"}
_SHORT_OF = {meant: letter for letter, meant in _SHORT.items()}


class Redactor:
    """A fixed set of secrets. Where several begin at one place, the longest counts."""

    __slots__ = (
        "_by_first",
        "_ends",
        "_ends_of_texts",
        "_escapes",
        "_longest",
        "_pattern",
        "_shortest",
        "_starts",
        "least_bytes",
        "texts",
    )

    def __init__(self, secrets: Iterable[str] = ()) -> None:
        self.texts: tuple[str, ...] = tuple(sorted({one for one in secrets if one}, key=lambda one: (-len(one), one)))
        # The end of each, as searching for a short text is several times quicker; and so it is in texts than in bytes.
        encoded = [text.encode("utf-8", "surrogatepass") for text in self.texts]
        self._ends = tuple({one[-_END_BYTES:].decode("latin-1") for one in encoded})
        self._ends_of_texts = tuple({one[-_END_BYTES:] for one in self.texts})
        self.least_bytes = min((len(end) for end in self._ends), default=0)
        self._pattern = re.compile("|".join(map(re.escape, self.texts)) or r"(?!)")
        self._longest = len(self.texts[0]) if self.texts else 0
        self._shortest = len(self.texts[-1]) if self.texts else 0
        self._starts = _starts(self.texts)
        firsts = {text[0] for text in self.texts}
        self._by_first = {first: tuple(one for one in self.texts if one[0] == first) for first in firsts}
        self._escapes = tuple(_escapes_of("".join(self.texts)))

    def redact(self, text: str) -> str:
        """`text` without the secrets, also those written in JSON escapes, as in JSON that is itself a string."""
        text = self._without_plain(text)
        if "\\" in text and any(escape in text for escape in self._escapes):
            return self._without_escaped(text)
        return text

    def redact_value(self, value: Any) -> Any:
        """A copy of a JSON value without the secrets, names of members included."""
        if isinstance(value, str):
            return self.redact(value)
        if isinstance(value, dict):
            return {self.redact(str(key)): self.redact_value(inner) for key, inner in value.items()}
        if isinstance(value, list):
            return [self.redact_value(inner) for inner in value]
        if type(value) is int and str(value) in self.texts:
            return REDACTED
        return value

    def redact_json(self, data: bytes) -> bytes:
        """JSON text without the secrets: `data` itself where it holds none; else only the strings that do change."""
        if not self.may_hold(data):
            return data
        text = data.decode("utf-8", "surrogateescape")
        clean = _TOKEN.sub(self._token, text)
        return data if clean == text else clean.encode("utf-8", "surrogateescape")

    def may_hold(self, data: bytes) -> bool:
        """False where JSON text certainly holds no secret. Quick; True is not certain."""
        text = data.decode("latin-1")
        for end in self._ends:
            if end in text:
                return True
        return "\\" in text and any(escape in text for escape in self._escapes)

    def may_begin(self, text: str) -> bool:
        """False where `text` certainly does not end in the beginning of a secret. Quick; True is not certain."""
        return self._starts.search(text) is not None

    def _token(self, found: re.Match[str]) -> str:
        token = found[0]
        if token[0] != '"':
            return f'"{REDACTED}"' if token in self.texts else token
        if "\\" not in token:
            return self._without_plain(token)
        try:
            text = json.loads(token, strict=False)
        except ValueError:
            return self._without_plain(token)
        clean = self.redact(text)
        return token if clean == text else json.dumps(clean)

    def _without_plain(self, text: str) -> str:
        for end in self._ends_of_texts:
            if end in text:
                return self._pattern.sub(REDACTED, text)
        return text

    def _without_escaped(self, text: str) -> str:
        plain = _unescaped(text)
        for secret in self.texts:
            if _unescaped(secret) in plain:
                clean = _in_escapes(secret).sub(REDACTED, text) if len(secret) <= _LONGEST_ESCAPED else text
                text = REDACTED if clean == text else clean  # all of it where escapes are themselves escaped
        return text

    # ------------------------------------------------------------ in pieces

    def tail(self, text: str, start: int = 0) -> int:
        """Where the end of `text` begins that is a proper prefix of a secret, at `start` or later; else its length."""
        size = len(text)
        start = max(start, size - self._longest + 1)
        found = self._starts.search(text, start)
        while found is not None:
            place = found.start()
            end = text[place:]
            for secret in self._by_first[end[0]]:
                if secret.startswith(end) and len(secret) > len(end):
                    return place
            found = self._starts.search(text, place + 1)
        return size

    def split(self, text: str) -> tuple[str, str]:
        """What of a text that goes on may be shown, redacted, and its end that must wait for what follows."""
        shown = ""
        start = 0
        while True:
            tail = self.tail(text, start)
            found = self._pattern.search(text, start) if len(text) - start >= self._shortest else None
            if found is None or found.start() >= tail:
                return shown + text[start:tail], text[tail:]
            shown += text[start : found.start()] + REDACTED
            start = found.end()


class HeldText:
    """One text that arrives in pieces."""

    __slots__ = ("_redactor", "held")

    def __init__(self, redactor: Redactor) -> None:
        self._redactor = redactor
        self.held = ""

    def feed(self, piece: str) -> str:
        """What may be shown now."""
        shown, self.held = self._redactor.split(self.held + piece)
        return shown

    def end(self) -> str:
        """The rest, once nothing follows."""
        rest, self.held = self.held, ""
        return self._redactor.redact(rest)

    def cut(self) -> None:
        """What follows is left out: what may be the beginning of a secret then is, too."""
        self.held = ""


def _starts(secrets: Iterable[str]) -> re.Pattern[str]:
    """Finds where a secret may begin of which the text has one or two characters left, or the first three."""
    tree: dict[str, dict[str, set[str]]] = {}
    for secret in secrets:
        one, two, three = (*secret[:3], "", "")[:3]
        tree.setdefault(one, {}).setdefault(two, set()).add(three)
    branches = []
    for one, seconds in sorted(tree.items()):
        inner = [
            rf"{re.escape(two)}(?:\Z|{'|'.join(map(re.escape, sorted(thirds)))})"
            for two, thirds in sorted(seconds.items())
        ]
        branches.append(rf"{re.escape(one)}(?:\Z|{'|'.join(inner)})")
    return re.compile("|".join(branches) or r"(?!)")


def _escapes_of(text: str) -> Iterable[str]:
    """The beginnings of those JSON escapes that may stand for a character of `text`."""
    if text:
        yield "\\u00" if text.isascii() else "\\u"
    for char in sorted(set(text) & {*_SHORT_OF, '"', "\\", "/"}):
        yield "\\" + _SHORT_OF.get(char, char)


def _unescaped(text: str) -> str:
    """`text` without JSON escapes, however deeply they are nested. Only for comparing with another such text."""
    for _ in range(_DEEPEST):
        if "\\" not in text:
            break
        text = _ESCAPE.sub(_meant, text)
    if _SURROGATE.search(text):
        text = text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")
    return text


def _meant(found: re.Match[str]) -> str:
    code, char = found.groups()
    return chr(int(code, 16)) if code else _SHORT.get(char, char)


@functools.lru_cache(maxsize=256)
def _in_escapes(secret: str) -> re.Pattern[str]:
    """A secret of which any character may be written as a JSON escape, at any depth."""
    return re.compile("".join(map(_spellings, secret)))


def _spellings(char: str) -> str:
    codes = char.encode("utf-16-be", "surrogatepass")
    units = "".join(rf"\\+u(?i:{codes[at : at + 2].hex()})" for at in range(0, len(codes), 2))
    if char == "\\":
        return rf"(?:{units}|\\+)"
    if char in _SHORT_OF:
        return rf"(?:{units}|\\+{_SHORT_OF[char]}|{re.escape(char)})"
    return rf"(?:{units}|\\*{re.escape(char)})" if char in '"/' else rf"(?:{units}|{re.escape(char)})"
