"""What a reviewer could mistake is marked wherever an agent's words are shown."""

from __future__ import annotations

import re
from contextlib import aclosing
from pathlib import Path

import httpx
import pytest

from gateway.actions import ArgumentKind
from gateway.catalog.sentences import show
from gateway.identity import Role

from ..bank_house import Bank
from ..gateway_house import Running
from .html import Page, check_page
from .test_approvals_pages import propose

QUEUE = "/console/approvals"
CHIP = "unusual characters"
CYRILLIC_A = "U+0430 CYRILLIC SMALL LETTER A"
TEMPLATES = Path(__file__).parents[2] / "gateway" / "console" / "templates"


async def load(browser: httpx.AsyncClient, path: str) -> Page:
    return check_page(await browser.get(path), scripted=True)


async def test_a_look_alike_letter_is_marked_on_the_card_in_the_queue_and_in_the_sentence(bank: Bank) -> None:
    async with await bank.running.agent() as agent, await bank.reviewer() as rita:
        honest = await bank.case(agent, reference="Rechnung für Zoë, счёт и 請求書 Nº 5")
        case_id = await bank.case(agent, reference="pay \u0430cme")
        answer = await rita.get(f"{QUEUE}/{case_id}")
        page = check_page(answer, scripted=True)
        assert f'title="{CYRILLIC_A}">\\u{{430}}</span>cme' in answer.text
        assert f"\u0430 {CYRILLIC_A}" in page.text
        rows = dict(re.findall(r'<tr id="case-([^"]+)">(.*?)</tr>', (await rita.get(QUEUE)).text, re.DOTALL))
        assert CHIP in rows[case_id]
        assert CHIP not in rows[honest]
        assert CHIP not in (await load(rita, f"{QUEUE}/{honest}")).text
        lines = {one["id"]: one for one in (await rita.get("/api/v1/approvals")).json()}
        assert lines[case_id]["unusual_characters"] == {"arguments": ["reference"], "complete": True}
        assert lines[honest]["unusual_characters"] == {"arguments": [], "complete": True}


async def test_a_folded_value_says_that_something_inside_is_marked(bank: Bank) -> None:
    async with await bank.running.agent() as agent, await bank.reviewer() as rita:
        case_id = await propose(bank, agent, {"body": f"{'as agreed, ' * 60}to ann@xn--pple-43d.com or \u0430cme"})
        text = (await rita.get(f"{QUEUE}/{case_id}")).text
        (fold,) = re.findall(r"<details><summary>(.*?)</summary>", text, re.DOTALL)
        assert CHIP in fold
        assert "xn--pple-43d reads \u0430pple" in text
        assert CHIP in (await load(rita, QUEUE)).text


async def test_a_long_text_is_not_called_checked_in_the_queue(bank: Bank) -> None:
    async with await bank.running.agent() as agent, await bank.reviewer() as rita:
        case_id = await propose(bank, agent, {"body": f"{'Перевод согласно договору. ' * 100}\u0430cme"})
        line = next(one for one in (await rita.get("/api/v1/approvals")).json() if one["id"] == case_id)
        assert line["unusual_characters"] == {"arguments": [], "complete": False}
        assert "not all checked" in (await load(rita, QUEUE)).text
        assert CYRILLIC_A in (await load(rita, f"{QUEUE}/{case_id}")).text  # the page itself looks at everything


async def test_the_twin_of_a_case_is_named_first_however_many_wait(bank: Bank) -> None:
    async with await bank.running.agent() as agent, await bank.reviewer() as rita:
        first = await bank.case(agent, reference="INV-l0")
        twin = await bank.case(agent, reference="INV-10")
        for number in range(7):
            await bank.case(agent, reference=f"OTHER-{number}")
        shown = (await rita.get(f"/api/v1/approvals/{first}")).json()
        assert (shown["like"][0]["id"], len(shown["like"]), shown["like_count"]) == (twin, 5, 8)
        page = (await rita.get(f"/console/approvals/{first}")).text
        assert "Similar cases waiting: 5 of 8" in page


async def test_similar_cases_that_look_alike_are_told_apart_by_code_points(bank: Bank) -> None:
    async with await bank.running.agent() as agent, await bank.reviewer() as rita:
        first = await bank.case(agent, reference="INV-l0")
        await bank.case(agent, reference="INV-10")
        page = await load(rita, f"{QUEUE}/{first}")
        assert "1 U+0031 DIGIT ONE there, l U+006C LATIN SMALL LETTER L here" in page.text
        (like,) = (await rita.get(f"/api/v1/approvals/{first}")).json()["like"]
        assert like["differs"][0]["here_points"] == "l U+006C LATIN SMALL LETTER L"
        await bank.case(agent, reference="other")
        others = (await rita.get(f"/api/v1/approvals/{first}")).json()["like"]
        assert "here_points" not in next(
            entry for one in others for entry in one["differs"] if entry["there"] == "other"
        )


async def test_the_activity_pages_mark_what_an_agent_sent(running: Running) -> None:
    agent = await running.agent()
    action = await running.ask(agent, "pay\u202egnp.exe \u0430cme")
    refused = await agent.post("/v1/chat/completions", json={"model": "de\u202emo", "messages": []})
    assert refused.status_code == 404
    async with aclosing(await running.person("olga", Role.AUDITOR)) as browser:
        listed = await browser.get("/console/activity")
        assert "\u202e" not in listed.text
        assert 'title="U+202E RIGHT-TO-LEFT OVERRIDE">\\u{202e}</span>mo' in listed.text
        browser.headers["origin"] = "http://gateway.test"
        opened = await browser.post(f"/console/activity/{action}")
        assert opened.status_code == 200
        assert "\u202e" not in opened.text
        assert f'title="{CYRILLIC_A}">' in opened.text


@pytest.mark.parametrize(
    ("kind", "value", "shown"),
    [
        ("email", "ann@exämple.com", '"ann@ex\\u{e4}mple.com"'),
        ("email", ["ann@ex\u0430mple.com"], '"[\\"ann@ex\\u{430}mple.com\\"]"'),
        ("email", "ann@example.com", "ann@example.com"),
        ("address", "DE02\u0415100", '"DE02\\u{415}100"'),
        ("address", "ä", '"\\u{e4}"'),
        ("address", "Königstraße 5, 70173 Stuttgart", '"Königstraße 5, 70173 Stuttgart"'),
        ("address", "K\u00f6nigstr\u0430ße 5", '"K\\u{f6}nigstr\\u{430}\\u{df}e 5"'),
        ("text", "pay \u0430cme", '"pay \\u{430}cme"'),
    ],
)
def test_kinds_of_addresses_are_held_to_their_letters(kind: str, value: object, shown: str) -> None:
    assert show(value, ArgumentKind(kind)) == shown


# What is not text of anybody else: numbers, times, states and ids of ours, and macros that are checked themselves.
_OURS = re.compile(
    r"(marks|forms)\.\w+\(|\| ?(moment|money|latency|span|from_ns|length)\b|short\(19\)|reason\(\"|shown\(case\)|choice\(\""
    r"|\"[^\"]*\" if |\.get\((state|refusal\.code|case\.state)|\.(risk|effect|state|status|kind|id|idx|type|size|count|code"
    r"|source|commitment|left_out|approved|approve|denied|deny|unsigned|signed_size|open_intents|registered|pending|unknown"
    r"|models|version|revision|next_review|review|server|action|base64|guidance|text|note|title|findings_needed|like_count)( or [\w\"]+)? }}"
    r"|{{ (value|code|title|option|agent|pending|unknown|note|meaning|afterwards|unsigned|case_id|arguments_left_out"
    r"|\"opened\"|two\.(there|here)_points|person\.roles.*) }}"
)  # fmt: skip


@pytest.mark.parametrize("template", sorted(path.name for path in TEMPLATES.iterdir()))
def test_every_template_makes_the_words_of_others_visible(template: str) -> None:
    source = re.sub(r"{%.*?%}", "", (TEMPLATES / template).read_text(), flags=re.DOTALL)
    between_tags = re.sub(r"<[a-z!/][^<>]*?({{.*?}}[^<>]*?)*>", "", source, flags=re.DOTALL)
    printed = re.findall(r"{{.*?}}", between_tags)
    assert [one for one in printed if "| visible" not in one and not _OURS.search(one)] == []
