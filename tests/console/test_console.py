from __future__ import annotations

import re
from contextlib import aclosing
from pathlib import Path

import msgspec
import pytest

import gateway.console
from gateway.console.pages import CSP
from gateway.identity import Role
from gateway.identity.console_site import COOKIE

from ..gateway_house import Running, use_link
from .html import check_page

PAGES = ["overview", "approvals", "activity", "agents", "tools", "models", "audit"]
HOSTILE = "<script>alert(1)</script>\"'><img src=x onerror=alert(2)>{{7*7}}"


async def test_a_link_signs_in_once_and_then_explains_itself(running: Running) -> None:
    async with running.operator() as operator:
        link = (await operator.post("/api/v1/sign-in", json={"next": "/console/agents?a=b"})).json()["url"]
    browser = running.client()
    for _ in range(2):  # a mail scanner looks first
        assert (await browser.head(link)).status_code == 200
        shown = await browser.get(link)
        assert "set-cookie" not in shown.headers
        assert "Local operator" in check_page(shown).text
    fields = check_page(shown).form("/console/login")
    answer = await browser.post("/console/login", data=fields)
    assert (answer.status_code, answer.headers["location"]) == (303, "/console/agents?a=b")
    cookie = answer.headers["set-cookie"].lower()
    assert all(part in cookie for part in ("httponly", "samesite=strict", "path=/"))
    assert "domain" not in cookie
    assert (await browser.get("/console/overview")).status_code == 200
    for again in (await running.client().get(link), await running.client().post("/console/login", data=fields)):
        assert again.status_code == 401
        assert "gateway login" in again.text
        assert check_page(again).form("/console/login")["next"] == "/console/agents?a=b"


async def test_over_tls_the_cookie_is_secure_and_cannot_come_from_another_host(running: Running) -> None:
    running.app.site = msgspec.structs.replace(running.app.site, base="https://gateway.test")
    link, _ = await running.app.registry.people.make_link("operator", by=None)
    answer = await use_link(running.client(), link)
    name, _, rest = answer.headers["set-cookie"].partition("=")
    assert name == f"__Host-{COOKIE}"
    assert {"secure", "path=/", "httponly"} <= {part.strip().lower() for part in rest.split(";")}
    value = rest.partition(";")[0]
    for cookie, status in ((f"{name}={value}", 200), (f"{COOKIE}={value}", 401)):
        assert (await running.client(cookie=cookie).get("/console/overview")).status_code == status


@pytest.mark.parametrize("page", ["", "activity/x", "approvals/x", *PAGES])
async def test_without_a_session_there_is_only_how_to_get_one(running: Running, page: str) -> None:
    async with running.client() as nobody:
        answer = await nobody.get(f"/console/{page}", follow_redirects=True)
    assert answer.status_code == 401
    assert "gateway login" in answer.text
    assert "reader" not in answer.text
    check_page(answer)


async def test_every_page_stands_without_script_and_says_where_one_is(running: Running) -> None:
    agent = await running.agent(user="ada")
    await running.ask(agent)
    browser = await running.person("oscar", Role.OPERATOR, Role.AUDITOR)
    async with aclosing(browser):
        assert (await browser.get("/")).headers["location"] == "/console/overview"
        for page in PAGES:
            answer = await browser.get(f"/console/{page}")
            assert answer.status_code == 200, page
            check_page(answer, scripted=page == "approvals")
            assert f'<a href="/console/{page}" aria-current="page">' in answer.text
            assert answer.headers["cache-control"] == "no-store"


async def test_the_menu_has_only_pages_that_exist_and_the_person_may_see(running: Running) -> None:
    everybody = {"overview", "agents", "tools", "models"}
    for role, expected in (
        (Role.AUDITOR, set(PAGES)),
        (Role.OPERATOR, everybody | {"activity", "audit"}),
        (Role.REVIEWER, everybody | {"approvals"}),
        (Role.OWNER, everybody),
    ):
        browser = await running.person(f"p-{role}", role)
        answer = await browser.get("/console/overview")
        nav = answer.text.partition("<nav")[2].partition("</nav>")[0]
        entries = set(re.findall(r'href="/console/(\w+)"', nav))
        assert entries == expected
        for entry in PAGES:
            status = (await browser.get(f"/console/{entry}")).status_code
            assert status == (200 if entry in expected else 403), entry


async def test_recent_actions_show_who_did_what_under_which_rule(running: Running) -> None:
    agent = await running.agent(user="ada")
    action = await running.ask(agent)
    refused = await agent.post("/v1/chat/completions", json={"model": "nothing", "messages": []})
    browser = await running.person("olga", Role.AUDITOR)
    async with aclosing(browser):
        text = (await browser.get("/console/activity")).text
        assert text.count("<tr>") == 3
        assert f"/console/activity/{action}" in text
        assert "Ask the model demo" in text
        assert "for <bdi>ada</bdi>" in text
        assert "model_not_found" in text
        assert "succeeded" in text
        assert refused.status_code == 404
        only = (await browser.get("/console/activity", params={"effect": "allow", "kind": "model.invoke"})).text
        assert only.count("<tr>") == 2
        assert (
            "No actions of this kind yet" in (await browser.get("/console/activity", params={"kind": "tool.call"})).text
        )
        assert '<option value="tool.call" selected>' in (await browser.get("/console/activity?kind=tool.call")).text
    pages = [one for one in await running.events("audit.read") if one["labels"].get("subject.page") == "activity"]
    assert len(pages) == 4


async def test_an_action_is_shown_once_although_its_records_fall_on_two_pages(
    running: Running, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("gateway.console.actions_pages._RECORDS", 3)
    agent = await running.agent()
    actions = [await running.ask(agent) for _ in range(4)]
    browser = await running.person("olga", Role.AUDITOR)
    async with aclosing(browser):
        seen: list[str] = []
        url = "/console/activity"
        while url:
            text = (await browser.get(url)).text
            seen += re.findall(r'<a href="/console/activity/([0-9a-f-]{36})"', text)
            older = re.search(r'href="(/console/activity\?[^"]+)">Older', text)
            url = older[1].replace("&amp;", "&") if older else ""
            assert "in progress" not in text
        assert seen == actions[::-1]


async def test_payloads_are_shown_only_on_demand_and_escaped(running: Running) -> None:
    agent = await running.agent()
    action = await running.ask(agent, HOSTILE)
    browser = await running.person("olga", Role.AUDITOR)
    async with aclosing(browser):
        url = f"/console/activity/{action}"
        plain = await browser.get(url)
        check_page(plain)
        assert "alert" not in plain.text
        assert "commitment" in plain.text
        assert "action.intent" in plain.text
        assert "action.result" in plain.text
        elsewhere = await browser.post(url, headers={"origin": "http://evil.test"})
        assert elsewhere.status_code == 403
        opened = await browser.post(url, headers={"origin": "http://gateway.test"})
        check_page(opened)
        assert "&lt;script&gt;alert(1)" in opened.text
        assert "{{7*7}}" in opened.text
    reads = [one["labels"].get("subject.disclosed") for one in await running.events("audit.read")]
    assert reads == ["yes", "no"]


async def test_hostile_names_are_text_on_every_page(running: Running) -> None:
    async with running.operator() as operator:
        await operator.post("/api/v1/agents", json={"id": "bad", "team": HOSTILE, "owners": {"business": HOSTILE}})
    agent = await running.agent("bad")
    await agent.post("/v1/chat/completions", json={"model": HOSTILE, "messages": []})
    browser = await running.person("olga", Role.AUDITOR)
    async with aclosing(browser):
        for page in PAGES:
            check_page(await browser.get(f"/console/{page}"), scripted=page == "approvals")
        odd = await browser.get("/console/activity", params={"agent": HOSTILE, "effect": HOSTILE})
        check_page(odd)
        check_page(await browser.get(f"/console/activity/{HOSTILE}"))


async def test_sign_out_ends_the_session(running: Running) -> None:
    browser = await running.person("olga", Role.AUDITOR)
    async with aclosing(browser):
        assert (await browser.post("/console/logout")).status_code == 403
        secret = browser.cookies[COOKIE]
        out = await browser.post("/console/logout", headers={"origin": "http://gateway.test"})
        assert "signed out" in out.text
        assert running.app.registry.people.who(secret) is None
        assert (await browser.get("/console/overview")).status_code == 401


async def test_unknown_pages_and_methods_are_pages_too(running: Running) -> None:
    browser = await running.person("olga", Role.AUDITOR)
    async with aclosing(browser):
        for answer, status in (
            (await browser.get("/console/policies"), 404),
            (await browser.put("/console/overview"), 405),
            (await browser.get("/console/activity/unknown"), 404),
            (await browser.get("/console/activity?cursor=x"), 400),
        ):
            assert answer.status_code == status
            check_page(answer)


async def test_when_nothing_can_be_recorded_the_trail_is_not_shown_but_the_state_is(running: Running) -> None:
    browser = await running.person("olga", Role.AUDITOR)
    running.app.writer.latch("the test says so")
    async with aclosing(browser):
        assert (await browser.get("/console/activity")).status_code == 503
        for page in ("overview", "audit"):
            answer = await browser.get(f"/console/{page}")
            assert answer.status_code == 200
            assert "the test says so" in answer.text


async def test_style_icon_and_script_are_served_for_good_under_their_version(running: Running) -> None:
    browser = await running.person("rita", Role.REVIEWER)
    async with aclosing(browser), running.client() as nobody:
        page = (await browser.get("/console/approvals")).text
        found = set(re.findall(r'"(/console/static/[a-z.]+\?v=[0-9a-f]{12})"', page))
        kinds = {"console.css": "text/css", "icon.svg": "image/svg+xml", "approvals.js": "text/javascript"}
        assert {address.split("/")[3].split("?")[0] for address in found} == set(kinds)
        for address in found:
            answer = await nobody.get(address)
            assert answer.headers["content-type"].startswith(kinds[address.split("/")[3].split("?")[0]])
            assert "immutable" in answer.headers["cache-control"]
            assert "url(" not in answer.text
        assert (await nobody.get("/console/static/pages.py")).status_code == 404
        assert (await nobody.get("/console/static/..%2Fpages.py")).status_code == 404


def test_pages_may_load_our_own_style_and_modules_and_nothing_else() -> None:
    allowed = dict(one.strip().split(" ", 1) for one in CSP.split(";"))
    assert allowed["default-src"] == "'none'"
    assert set(allowed.values()) == {"'none'", "'self'"}
    assert allowed["script-src"] == allowed["connect-src"] == "'self'"


def test_no_template_and_no_script_is_longer_than_a_reader_can_hold() -> None:
    folder = Path(gateway.console.__file__).parent
    for template in (folder / "templates").iterdir():
        text = template.read_text()
        assert text.count("\n") < 300
        assert "|safe" not in text.replace(" ", "")
        assert "autoescape" not in text
    for script in (folder / "static").glob("*.js"):
        assert script.stat().st_size < 60 * 1024
        text = script.read_text()
        assert not re.search(
            r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|\beval\b|Function\(|\bimport\b", text
        )
