from __future__ import annotations

import pytest

from gateway.console.case_view import span
from gateway.console.visible import visible


def mark(code: str, name: str) -> str:
    return f'<span class="unseen" title="{f"U+{code.upper().zfill(4)} {name}".strip()}">\\u{{{code}}}</span>'


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("plain text", "plain text"),
        ("<b>&\"'", "&lt;b&gt;&amp;&#34;&#39;"),
        ("Zoë 日本", "Zoë 日本"),
        ("a\u202eb", f"a{mark('202e', 'RIGHT-TO-LEFT OVERRIDE')}b"),
        ("\u200b<i>", f"{mark('200b', 'ZERO WIDTH SPACE')}&lt;i&gt;"),
        ("\x00", mark("0", "")),
        ("\ud800", mark("d800", "")),
        ("a\u00a0b", f"a{mark('a0', 'NO-BREAK SPACE')}b"),
        ("back\\slash é", "back\\slash é"),
        ("a\nb", 'a<span class="unseen" title="U+000A">\\n</span>b'),
    ],
)
def test_what_cannot_be_seen_is_marked_and_nothing_leaves_its_place(text: str, shown: str) -> None:
    assert visible(text) == f"<bdi>{shown}</bdi>"


def test_lines_stay_lines_where_they_may_and_carriage_returns_show() -> None:
    assert visible("a\n\tb", lines=True) == "<bdi>a\n\tb</bdi>"
    assert "\\r" in visible("a\rb", lines=True)


def test_where_look_alikes_matter_only_ascii_stands_as_it_is() -> None:
    assert visible("\u0430cme", exact=True) == f"<bdi>{mark('430', 'CYRILLIC SMALL LETTER A')}cme</bdi>"


def test_nothing_is_nothing() -> None:
    assert visible(None) == visible("") == ""


@pytest.mark.parametrize(
    ("seconds", "told"),
    [(-3, "0 s"), (59, "59 s"), (60, "1 min"), (95, "1 min 35 s"), (3600, "1 h"), (14_340, "3 h 59 min"), (180_000, "2 d 2 h")],
)  # fmt: skip
def test_times_are_read_at_a_glance(seconds: int, told: str) -> None:
    start = "2026-11-25T00:00:00.000000Z"
    day, rest = divmod(max(seconds, 0), 86_400)
    end = f"2026-11-{25 + day}T{rest // 3600:02d}:{rest % 3600 // 60:02d}:{rest % 60:02d}.000000Z"
    assert span(start, end if seconds >= 0 else "2026-11-24T23:59:57.000000Z") == told
