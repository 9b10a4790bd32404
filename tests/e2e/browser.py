"""A person at a real Chromium: signs in with a one-time link and sees what the console sends. What the browser
complains about (errors in its console, policies that were violated, scripts that failed) fails the test."""

from __future__ import annotations

import contextlib
import os
import shutil
from collections.abc import Iterator
from typing import Any

import pytest
from playwright.sync_api import Browser, Locator, Page, expect, sync_playwright

from tests.e2e.gateway_process import Gateway

PATIENCE_MS = 20_000
_NAMES = ("chromium", "chromium-browser", "google-chrome")


def find_chromium() -> str:
    """Its path; skips the test where there is none, fails it where nothing may be skipped."""
    found = next((path for name in _NAMES if (path := shutil.which(name))), None)
    if found is None:
        why = f"there is no browser: install one of {', '.join(_NAMES)}"
        if os.environ.get("GATEWAY_TEST_STRICT") == "1":
            pytest.fail(why)
        pytest.skip(why)
    return found


@contextlib.contextmanager
def open_chromium() -> Iterator[Browser]:
    """A browser of its own, without a window."""
    path = find_chromium()
    as_root = ["--no-sandbox"] if os.geteuid() == 0 else []
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=as_root)
        expect.set_options(timeout=PATIENCE_MS)
        yield browser
        browser.close()


class Person:
    """Somebody signed in, with one tab open."""

    def __init__(self, gateway: Gateway, page: Page) -> None:
        self.page = page
        self.complaints: list[str] = []
        self._gateway = gateway
        page.set_default_timeout(PATIENCE_MS)
        page.on("console", lambda said: self.complaints.append(said.text) if said.type == "error" else None)
        page.on("pageerror", lambda error: self.complaints.append(str(error)))

    def sign_in(self, person: str | None = None, next_page: str | None = None) -> None:
        """Open a link that works once; None: the local operator's."""
        self.page.goto(self._gateway.sign_in_link(person, next_page))
        self.page.get_by_role("button", name="Sign in").click()
        self.page.wait_for_url(f"**{next_page or '/console/overview'}")

    def open_queue(self, agent: str) -> None:
        """The queue, for one agent."""
        self.page.get_by_role("navigation").get_by_role("link", name="Approvals").click()
        self.page.get_by_label("Agent").select_option(agent)
        self.page.get_by_role("button", name="Show").click()
        expect(self.page.get_by_role("heading", name="Approvals")).to_be_visible()

    @property
    def origin(self) -> str:
        """Of the console, which has a host of its own."""
        return str(self.page.evaluate("location.origin"))

    def open_case(self, case_id: str) -> None:
        """A case by its address."""
        self.page.goto(f"{self.origin}/console/approvals/{case_id}")

    def listens(self) -> None:
        """The page is kept up to date from here on."""
        expect(self.page.get_by_text("Kept up to date")).to_be_visible()

    def button(self, name: str) -> Locator:
        return self.page.get_by_role("button", name=name, exact=True)

    def fits(self) -> bool:
        """Whether nothing stands out of the window sideways."""
        wide: Any = self.page.evaluate("[document.documentElement.scrollWidth, document.documentElement.clientWidth]")
        return bool(wide[0] <= wide[1])


@contextlib.contextmanager
def person(browser: Browser, gateway: Gateway, who: str | None = None, **options: Any) -> Iterator[Person]:
    """A person with a browser profile of their own, signed in."""
    context = browser.new_context(viewport={"width": 1280, "height": 800}, **options)
    somebody = Person(gateway, context.new_page())
    somebody.sign_in(who)
    yield somebody
    context.close()
