"""An agent waits in one process, a person decides in a real browser, the agent goes on."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest
from playwright.sync_api import Browser, Page, expect

from tests.e2e import clients
from tests.e2e.browser import open_chromium, person
from tests.e2e.cases import open_case
from tests.e2e.fixtures import House, MakesHouse
from tests.e2e.gateway_process import Agent

AMOUNT_CENTS = 12_000  # above what passes without a person
SENTENCE = "Transfer 120.00 USD to acme-gmbh"
TWO_MUST_AGREE = """
escalate contains {"rule": "four_eyes", "reason": "Two must agree.", "obligations": [obligation]} if {
	ledger_transfer
	obligation := {"approval": {"quorum": [{"approve": 2}]}}
}
"""


@pytest.fixture(scope="module")
def chromium() -> Iterator[Browser]:
    with open_chromium() as browser:
        yield browser


def waits(house: House, agent: Agent, reference: str, how: str) -> clients.Told:
    """An agent of the official SDK that asks for a transfer, in a process of its own."""
    asked = json.dumps({"to": "acme-gmbh", "amount_cents": AMOUNT_CENTS, "reference": reference})
    return clients.python("sdk_waits.py", "mcp", f"{house.gateway.url}/mcp/ledger", agent.key, "transfer", asked, how)


def case_address(page: Page) -> re.Pattern[str]:
    return re.compile(r"/console/approvals/[0-9a-f-]{36}$")


def test_a_person_decides_in_the_browser_and_the_waiting_agents_go_on(house: House, chromium: Browser) -> None:
    clients.need(clients.SDK)
    agent = house.agent("browsed")
    waiting: list[clients.Told] = []
    with person(chromium, house.gateway) as operator:
        page = operator.page
        try:
            operator.open_queue(agent.name)
            expect(page.get_by_text("There are no such cases.")).to_be_visible()
            operator.listens()
            page.evaluate("window.neverLoadedAgain = true")
            row = page.get_by_role("row").filter(has_text=SENTENCE)

            # The case appears by itself; everything that a decision needs is on the first screen.
            waiting.append(waits(house, agent, "browser-1", "modern"))
            expect(row).to_have_count(1)
            expect(row).to_contain_text("may decide")
            assert page.evaluate("window.neverLoadedAgain")
            row.get_by_role("link").click()
            expect(page).to_have_url(case_address(page))
            operator.listens()
            for shown in (
                page.get_by_role("heading", name=SENTENCE),
                page.get_by_text("high risk"),
                page.get_by_text(f"asked by {agent.name}"),
                page.get_by_role("row", name="reference browser-1"),
                page.get_by_text("Up to that amount they pass without one."),
                page.get_by_text("expires in"),
                operator.button("Approve"),
                operator.button("Deny"),
            ):
                expect(shown).to_be_in_viewport(ratio=1)
            page.get_by_label("Reason, for the record").first.fill("matches invoice 1")
            operator.button("Approve").click()
            expect(page.get_by_text("Approved and carried out.")).to_be_visible()
            expect(page.get_by_text("matches invoice 1")).to_be_visible()
            expect(operator.button("Approve")).to_have_count(0)
            approved = waiting[0].told(30)

            # The second one is denied, in words that reach the agent.
            operator.open_queue(agent.name)
            operator.listens()
            waiting.append(waits(house, agent, "browser-2", "legacy"))
            expect(row).to_have_count(1)
            row.get_by_role("link").click()
            page.get_by_label("What should the agent do instead?").fill("Split it:\nat most 100 USD a transfer.")
            operator.button("Deny").click()
            expect(page.get_by_text("Denied. Nothing was carried out.")).to_be_visible()
            denied = waiting[1].told(30)
        finally:
            for one in waiting:
                one.kill()
        assert operator.complaints == []
    assert not approved["is_error"]
    assert approved["data"]["transfer_id"].startswith("tr-")
    assert house.ledger.transfers("browser-1") == 1
    assert denied["is_error"]
    assert "at most 100 USD a transfer." in denied["text"]
    assert house.ledger.transfers("browser-2") == 0
    house.gateway.verified()


def test_what_a_person_types_stays_while_the_case_moves_on(make_house: MakesHouse, chromium: Browser) -> None:
    house = make_house(approvals="hold_s: 0.05")
    gateway, agent = house.gateway, house.agent("browsed")
    assert gateway.operator("POST", "/people", {"id": "rita", "roles": ["reviewer"]}).status_code == 201
    assert "Waiting for approval" in str(agent.pay("typed-1", AMOUNT_CENTS))
    case = open_case(agent)
    with person(chromium, gateway, "rita") as rita:
        page = rita.page
        rita.open_case(case.id)
        rita.listens()
        guidance = page.get_by_label("What should the agent do instead?")
        guidance.fill("I have not finished")
        # What others say shows at once, beside the half-written form.
        said = gateway.operator("POST", f"/approvals/{case.id}/comments", {"text": "I know the supplier."})
        assert said.status_code == 201
        expect(page.get_by_text("I know the supplier.")).to_be_visible()
        assert "Waiting for approval" in str(agent.pay("typed-2", AMOUNT_CENTS))
        expect(guidance).to_have_value("I have not finished")
        expect(guidance).to_be_focused()
        for expected in ("Reason, for the record", "Deny"):
            page.keyboard.press("Tab")
            assert expected in page.evaluate(
                "(document.activeElement.labels?.[0] ?? document.activeElement).textContent"
            )
        # Another approves, but by now two must: the case waits again, as another card than the one on the screen.
        policy = gateway.folder / "policies" / "ledger" / "ledger.rego"
        policy.write_text(policy.read_text() + TWO_MUST_AGREE)
        assert gateway.operator("POST", "/reload").status_code == 200
        case.approve()
        expect(page.get_by_text("What is asked for has changed")).to_be_visible()
        expect(rita.button("Deny")).to_be_disabled()
        expect(rita.button("Approve")).to_be_disabled()
        expect(guidance).to_have_value("I have not finished")
        page.get_by_role("link", name="Load it again").click()
        expect(page.get_by_text("of 2 approved")).to_be_visible()
        expect(page.get_by_text("Two must agree.")).to_be_visible()
        expect(page.get_by_role("heading", name="Similar case")).to_be_visible()
        expect(page.get_by_text("typed-2 there, typed-1 here")).to_be_visible()
        rita.listens()
        # What was decided elsewhere is told to a page on which nobody writes.
        again = open_case(agent)
        assert again.id != case.id
        case.shown = case.now()
        case.deny("Not both.")
        expect(page.get_by_text("Denied. Nothing was carried out.")).to_be_visible()
        expect(rita.button("Deny")).to_have_count(0)
        assert rita.complaints == []


def test_without_script_on_a_narrow_dark_screen_everything_can_be_done(house: House, chromium: Browser) -> None:
    agent = house.agent("browsed")
    with (
        ThreadPoolExecutor() as threads,
        person(chromium, house.gateway, java_script_enabled=False, color_scheme="dark") as operator,
    ):
        page = operator.page
        page.set_viewport_size({"width": 390, "height": 844})
        paid = threads.submit(agent.pay, "plain-1", AMOUNT_CENTS)
        case = open_case(agent)
        operator.open_queue(agent.name)
        expect(page.get_by_text("Load again to see changes.")).to_be_visible()
        page.get_by_role("link", name=SENTENCE).click()
        page.get_by_label("Say something to the other people").fill("One\nTwo")
        operator.button("Comment").click()
        expect(page.get_by_text("One Two")).to_be_visible()
        operator.button("Approve").focus()
        page.keyboard.press("Enter")
        expect(operator.button("Approve")).to_have_count(0)
        assert paid.result(20)["result"]["structuredContent"]["transfer_id"].startswith("tr-")
        assert case.ended("succeeded")["comments"][0]["text"] == "One\nTwo"
        assert operator.complaints == []
    assert house.ledger.transfers("plain-1") == 1


def test_pages_fit_narrow_screens(house: House, chromium: Browser) -> None:
    agent = house.agent("browsed")
    with ThreadPoolExecutor() as threads, person(chromium, house.gateway) as operator:
        operator.page.set_viewport_size({"width": 360, "height": 740})
        asked = threads.submit(agent.pay, "x" * 250, AMOUNT_CENTS)
        case = open_case(agent)
        operator.open_queue(agent.name)
        operator.listens()
        assert operator.fits()
        operator.open_case(case.id)
        operator.listens()
        assert operator.fits()
        operator.page.get_by_text("End it without a decision").click()
        operator.page.get_by_label("Why?").fill("Not needed.")
        operator.button("End the case").click()
        expect(operator.page.get_by_text("Ended without a decision.")).to_be_visible()
        assert asked.result(20)["result"]["isError"]
        assert operator.complaints == []


def test_a_look_alike_letter_is_marked_where_a_reviewer_sees_it(make_house: MakesHouse, chromium: Browser) -> None:
    house = make_house(approvals="hold_s: 0.05")
    agent = house.agent("browsed")
    reference = f"{'as agreed with the supplier, ' * 8}\u0430cme"
    for one in (reference, reference.replace("\u0430", "a")):
        assert "Waiting for approval" in str(agent.pay(one, AMOUNT_CENTS))
    with person(chromium, house.gateway) as operator:
        page = operator.page
        for width in (1280, 390):
            page.set_viewport_size({"width": width, "height": 800})
            operator.open_queue(agent.name)
            rows = page.get_by_role("row").filter(has_text=SENTENCE)
            expect(rows).to_have_count(2)
            marked = rows.filter(has_text="unusual characters")
            expect(marked).to_have_count(1)
            assert operator.fits()
            marked.get_by_role("link").click()
            expect(page.get_by_text("U+0430 CYRILLIC SMALL LETTER A").first).to_be_visible()
            expect(page.get_by_text("look alike", exact=True)).to_be_visible()
            assert operator.fits()
        assert operator.complaints == []
