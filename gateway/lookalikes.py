"""Letters that look like other letters (Unicode UTS #39), found in text that an agent chose and a person reads.

`suspects` finds the characters of a text that a reader could take for others; `render_alike` and `code_points` are for
two values that differ and look the same. What nobody confuses is left alone: a word of one script, the mixtures that
UTS #39 calls highly restrictive (Latin with Japanese, Chinese or Korean), a sentence whose words are of different
scripts. Only text that is not ASCII costs anything; the tables are loaded with the first such text.

Data: the confusables of confusable-homoglyphs, the script of each character from there too.
"""

from __future__ import annotations

import json
import unicodedata
from bisect import bisect_right
from functools import cache, lru_cache
from importlib import resources
from typing import Any, NamedTuple

import regex

_LATIN, _CYRILLIC = "LATIN", "CYRILLIC"
_NO_SCRIPT = frozenset(("COMMON", "INHERITED", "UNKNOWN"))
# UTS #39, section 5.2: what one word may mix at the level "highly restrictive".
_MIXTURES = (
    frozenset((_LATIN, "HAN", "HIRAGANA", "KATAKANA")),
    frozenset((_LATIN, "HAN", "BOPOMOFO")),
    frozenset((_LATIN, "HAN", "HANGUL")),
)
_EAST_ASIAN = regex.compile(r"[\p{Han}\p{Hiragana}\p{Katakana}\p{Hangul}\p{Bopomofo}]")
_WIDE = "WIDE"  # beside the scripts of a text: its writer types wide letters too
_JOINERS = frozenset("\u200c\u200d\ufe0e\ufe0f\u20e3\u00a0\u202f")
# What can't be seen and belongs to honest writing: emoji sequences, joiners where a script needs them (RFC 5892, A.1
# and A.2), spaces that hold numbers and punctuation to their words.
_JOINED = regex.compile(
    r"\p{Extended_Pictographic}(?:[\uFE0E\uFE0F]|\p{Emoji_Modifier})?"
    r"(?:\u200D\p{Extended_Pictographic}(?:\uFE0F|\p{Emoji_Modifier})?)*+"
    r"|[0-9#*]\uFE0F\u20E3"
    r"|(?<=\p{ccc=9})[\u200C\u200D]"
    r"|(?<=\p{Arabic}\p{Mn}?)\u200C(?=\p{Arabic})"
    r"|(?<=[\p{L}\p{N}\p{P}\p{S}])[\u00A0\u202F](?=[\p{N}\p{P}\p{S}])"
    r"|(?<=[\p{N}\p{P}\p{S}])[\u00A0\u202F](?=\p{L})"
)
# Format characters (soft hyphens, joiners) do not end a word: nobody sees them there.
_WORD = regex.compile(r"[\p{L}\p{M}\p{N}\p{Cf}]+")
# What looks like the address of a machine or a mailbox; its words are held to more. Possessive, so that it is linear.
_RUN = regex.compile(r"\S++")
_DOMAIN = regex.compile(r"(?<![\p{L}\p{M}\p{N}.-])(?:[\p{L}\p{M}\p{N}-]++\.)++\p{L}[\p{L}\p{M}-]++")
_PUNYCODE = regex.compile(r"(?<![\p{L}\p{N}-])xn--([a-z0-9-]+)(?![\p{L}\p{N}])", regex.IGNORECASE)
_BETWEEN = regex.compile(r"(?<=[A-Za-z0-9])[^\x00-\x7f\p{L}\p{M}\p{N}\p{Cf}](?=[A-Za-z0-9])")
_SEPARATORS = frozenset("./@:\\")
_TURKISH_I = "\u0131"  # an everyday letter, and the only one of Latin that looks like another
_MAX_LABEL = 63
_USUAL_WORD = 40  # characters; what is found in longer words is not kept
_MAX_POINTS = 8


class Word(NamedTuple):
    """A Punycode label of a domain name, and what it reads as."""

    label: str
    reads: str


def suspects(text: str) -> frozenset[int]:
    """The places of the characters that a reader could take for others. Linear in the length of `text`."""
    if text.isascii():
        return frozenset()
    found: set[int] = set()
    foreign = _plain_scripts(text)
    if _EAST_ASIAN.search(text) is not None:
        foreign |= {_WIDE}
    for run in _RUN.finditer(text):
        if run.group().isascii():
            continue
        in_address = "@" in run.group() or "://" in run.group() or _DOMAIN.search(run.group()) is not None
        for word in _WORD.finditer(run.group()):
            if not word.group().isascii():
                start = run.start() + word.start()
                look = _of_usual_word if len(word.group()) <= _USUAL_WORD else _of_word
                found.update(start + place for place in look(word.group(), in_address, foreign))
    for match in _BETWEEN.finditer(text):
        digits = text[match.start() - 1].isdigit() and text[match.end()].isdigit()
        if not digits and _SEPARATORS & _look(match.group()):
            found.add(match.start())
    return frozenset(found)


def joined(text: str) -> frozenset[int]:
    """The places of characters that can't be seen by themselves and belong where they are: ❤️ is two characters."""
    if text.isascii():
        return frozenset()
    places = (place for match in _JOINED.finditer(text) for place in range(*match.span()))
    return frozenset(place for place in places if text[place] in _JOINERS)


def punycode(text: str) -> list[Word]:
    """The Punycode labels in `text` that stand for other letters."""
    found = []
    for match in _PUNYCODE.finditer(text) if "xn--" in text.lower() else ():
        try:
            reads = match.group(1).encode().decode("punycode") if len(match.group()) <= _MAX_LABEL else ""
        except UnicodeError:
            reads = ""
        found.append(Word(match.group(), reads))
    return found


def render_alike(one: str, other: str) -> bool:
    """Whether two texts look the same, or nearly so, in most fonts."""
    return one == other or _skeleton(one) == _skeleton(other)


def code_points(text: str) -> str:
    """Each character with its number and name: `а U+0430 CYRILLIC SMALL LETTER A`. The first eight."""
    told = [_code_point(character) for character in text[:_MAX_POINTS]]
    if len(text) > _MAX_POINTS:
        told.append(f"and {len(text) - _MAX_POINTS} more")
    return ", ".join(told) or "nothing"


def differing(one: str, other: str) -> tuple[str, str]:
    """The parts in which two texts differ: without what they begin and end with alike."""
    most = min(len(one), len(other))
    start = next((at for at in range(most) if one[at] != other[at]), most)
    end = next((at for at in range(most - start) if one[-1 - at] != other[-1 - at]), most - start)
    return one[start : len(one) - end], other[start : len(other) - end]


def _code_point(character: str) -> str:
    name = f"U+{ord(character):04X} {unicodedata.name(character, '')}".strip()
    return f"{character} {name}" if character.isprintable() and not character.isspace() else name


# ------------------------------------------------------------ words


def _of_word(word: str, in_address: bool, foreign: frozenset[str]) -> tuple[int, ...]:
    """The places in a word that is not all ASCII. `foreign`: scripts that the text plainly uses beside Latin."""
    scripts = _scripts(word)
    mixed = _is_mixed(word, scripts)
    whole = not mixed and _only_looks(word) and (in_address or not (scripts & foreign or _is_symbol(word, scripts)))
    beside_ascii = in_address or any(one.isascii() for one in word)
    beside_digits = any(one.isascii() and one.isdigit() for one in word)
    found: list[int] = []
    for at, character in enumerate(word):
        category = unicodedata.category(character)
        if character.isascii() or category == "Cf":
            continue
        mixed_number = beside_digits and category == "Nd"  # UTS #39, section 5.3
        wide_is_odd = beside_ascii or _WIDE not in foreign
        variant = category[0] in "LN" and _is_variant(character, wide_is_odd, in_address)
        if mixed or whole or mixed_number or variant:
            found.append(at)
    return tuple(found)


_of_usual_word = lru_cache(maxsize=4096)(_of_word)


def _is_mixed(word: str, scripts: frozenset[str]) -> bool:
    """Latin with Cyrillic, two scripts neither of which is Latin, or Latin with a letter that looks like one of it.

    What is left out are everyday words such as kΩ, and scripts that are written without spaces.
    """
    if len(scripts) < 2:
        return False
    if _LATIN not in scripts:
        return not any(scripts <= mixture for mixture in _MIXTURES)
    if _CYRILLIC in scripts or not (len(scripts) == 2 or any(scripts <= mixture for mixture in _MIXTURES)):
        return True
    return any(_is_ascii_twin(one) for one in word if _script(one) not in _NO_SCRIPT and _script(one) != _LATIN)


def _only_looks(word: str) -> bool:
    """Whether each letter looks like one of ASCII and some are not Latin, as all of а, р and ӏ (whole-script)."""
    letters = [one for one in word if unicodedata.category(one)[0] in "LN"]
    strange = [one for one in letters if not one.isascii()]
    return bool(strange) and all(_script(one) != _LATIN and _is_ascii_twin(one) for one in strange)


def _is_symbol(word: str, scripts: frozenset[str]) -> bool:
    """A Greek letter by itself, as in α-helix."""
    return len(word) == 1 and "GREEK" in scripts


def _is_variant(character: str, wide_is_odd: bool, in_address: bool) -> bool:
    """A form of an ASCII letter that belongs to typography or phonetics: bold, wide, Roman numerals, script g."""
    form, _, plain = unicodedata.decomposition(character).partition(" ")
    if form == "<font>":
        return True
    if form in ("<wide>", "<compat>"):
        # A whole word of them beside Japanese or Chinese is how people type; elsewhere they pass for plain letters.
        return wide_is_odd and all(int(one, 16) < 0x80 for one in plain.split())
    if form and not plain and not form.startswith("<"):
        return int(form, 16) < 0x80  # the Kelvin sign
    if form or _script(character) != _LATIN:
        return False
    return _is_ascii_twin(character) and (in_address or character != _TURKISH_I)


def _plain_scripts(text: str) -> frozenset[str]:
    """The scripts of words that nobody could read as ASCII: where there are such, a word like "оса" is one of them."""
    found: frozenset[str] = frozenset()
    for word in {match.group() for match in _WORD.finditer(text)}:
        if not word.isascii() and not _only_looks(word) and len(scripts := _scripts(word)) == 1:
            found |= scripts
    return found


@lru_cache(maxsize=4096)
def _scripts(word: str) -> frozenset[str]:
    return frozenset(_script(character) for character in word) - _NO_SCRIPT


def _script(character: str) -> str:
    starts, ranges, names = _ranges()
    at = bisect_right(starts, ord(character)) - 1
    return names[ranges[at][2]] if ord(character) <= ranges[at][1] else "UNKNOWN"


@cache
def _ranges() -> tuple[list[int], list[list[int]], list[str]]:
    data = _read("categories.json")
    ranges = data["code_points_ranges"]  # first, last, script, category
    return [first for first, *_ in ranges], ranges, data["iso_15924_aliases"]


# ------------------------------------------------------------ confusables


class _Tables(NamedTuple):
    twins: dict[str, frozenset[str]]  # a character -> all that it looks like, itself included
    drawn_as: dict[str, str]  # a character -> several that look like it together: m -> rn


def _read(name: str) -> Any:
    """A file of the library's. Importing the library would keep a second copy of it in memory."""
    return json.loads(resources.files("confusable_homoglyphs").joinpath(name).read_text("utf-8"))


@cache
def _tables() -> _Tables:
    pairs: list[tuple[str, str]] = []
    drawn_as: dict[str, str] = {}
    for character, others in _read("confusables.json").items():
        for other in (one["c"].strip("\u200e") for one in others):
            if len(character) == len(other) == 1:
                pairs.append((character, other))
            elif len(character) == 1:
                drawn_as.setdefault(character, other)
    groups: dict[str, set[str]] = {}
    for one, other in pairs:
        joined, more = groups.setdefault(one, {one}), groups.setdefault(other, {other})
        if joined is not more:
            joined, more = (joined, more) if len(joined) >= len(more) else (more, joined)
            joined |= more
            groups.update(dict.fromkeys(more, joined))
    frozen = {id(group): frozenset(group) for group in groups.values()}
    return _Tables({character: frozen[id(group)] for character, group in groups.items()}, drawn_as)


def _look(character: str) -> frozenset[str]:
    return _tables().twins.get(character, frozenset())


@lru_cache(maxsize=8192)
def _is_ascii_twin(character: str) -> bool:
    """Whether it looks like a letter or a digit of ASCII."""
    return any(one.isascii() and one.isalnum() for one in _look(character))


def _skeleton(text: str) -> str:
    """UTS #39, section 4, with spaces taken together and what takes no space left out."""
    drawn = "".join(map(_drawn, unicodedata.normalize("NFD", text)))
    return " ".join(unicodedata.normalize("NFD", drawn).split())


@lru_cache(maxsize=8192)
def _drawn(character: str) -> str:
    if unicodedata.category(character) in ("Cf", "Cc") and not character.isspace():
        return ""
    several = _tables().drawn_as.get(character, character)
    return "".join(min(_look(one) or {one}) for one in several)
