"""In a real Chromium: a signed-in person opens pages of another port of this machine and of a third site."""

from __future__ import annotations

import json
import os
import subprocess
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import httpx
import pytest
from playwright.sync_api import Browser, expect

from gateway.identity.console_site import COOKIE
from gateway.quickstart import note
from tests.docs.pages import snippets
from tests.e2e.browser import open_chromium, person
from tests.e2e.fixtures import House
from tests.e2e.gateway_process import Agent

# Everything that a page may try with an address; what it learns, and whether its answer could be read.
TRIES = """async ([base, agent]) => {
  const read = [];
  const tries = {
    cors: () => fetch(base + "/api/v1/people/me", { credentials: "include" }),
    cors_page: () => fetch(base + "/console/overview", { credentials: "include" }),
    preflighted: () => fetch(base + `/api/v1/agents/${agent}/suspend`, {
      method: "POST", credentials: "include", headers: { "content-type": "application/json" }, body: "{}",
    }),
    stream: () => new Promise((open, fail) => {
      const source = new EventSource(base + "/api/v1/approvals/stream", { withCredentials: true });
      source.onopen = open;
      source.onerror = fail;
    }),
    script: () => new Promise((open, fail) => {
      const script = document.createElement("script");
      script.onload = open;
      script.onerror = fail;
      script.src = base + "/console/static/approvals.js";
      document.body.append(script);
    }),
  };
  for (const [name, one] of Object.entries(tries)) {
    try { await one(); read.push(name); } catch { /* refused */ }
  }
  for (const type of ["text/plain", "application/x-www-form-urlencoded"]) {
    await fetch(base + `/api/v1/agents/${agent}/suspend`, {
      method: "POST", mode: "no-cors", credentials: "include", headers: { "content-type": type }, body: "{}",
    }).catch(() => null);
  }
  const frame = document.createElement("iframe");
  frame.name = "posted";
  document.body.append(frame);
  const form = Object.assign(document.createElement("form"), {
    method: "post", action: base + `/api/v1/agents/${agent}/suspend`, target: "posted",
  });
  document.body.append(form);
  await new Promise((loaded) => { frame.onload = loaded; form.submit(); });
  return read;
}"""


class Stranger:
    """A server on a port of its own; keeps every Cookie header that a browser sends it."""

    def __init__(self) -> None:
        self.cookies: list[str] = []
        stranger = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                stranger.cookies.append(self.headers.get("cookie", ""))
                self.send_response(200)
                self.send_header("content-type", "text/html")
                self.end_headers()
                self.wfile.write(b"<!doctype html><title>stranger</title><body></body>")

            def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - as it is called
                """Nothing to say."""

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.port: int = self._server.server_port
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()


@pytest.fixture(scope="module")
def chromium() -> Iterator[Browser]:
    with open_chromium() as browser:
        yield browser


@pytest.fixture
def stranger() -> Iterator[Stranger]:
    server = Stranger()
    yield server
    server.close()


def is_active(house: House, agent: Agent) -> bool:
    shown: dict[str, Any] = house.gateway.operator("GET", f"/agents/{agent.name}").json()
    return bool(shown["status"] == "active")


@pytest.mark.parametrize("site", ["127.0.0.1", "localhost", "evil.localhost"])
def test_another_port_and_another_site_get_no_cookie_read_nothing_and_change_nothing(
    house: House, chromium: Browser, stranger: Stranger, site: str
) -> None:
    agent = house.agent("coveted")
    base = f"http://{site}:{stranger.port}/"
    with person(chromium, house.gateway) as operator:
        context, origin = operator.page.context, operator.origin
        (cookie,) = [one for one in context.cookies() if one["name"] == COOKIE]
        assert (cookie["httpOnly"], cookie["sameSite"]) == (True, "Strict")
        page = context.new_page()
        # Of the console's own address such a page knows nothing; suppose that it was told.
        for address in (house.gateway.url, origin):
            page.goto(base)
            assert page.evaluate(TRIES, [address, agent.name]) == []
            assert page.evaluate("document.cookie") == ""
            with context.expect_page() as opened:
                page.evaluate("(url) => { window.opened = window.open(url + '/console/overview'); }", address)
            window = opened.value
            window.wait_for_load_state()
            told = "() => { try { return window.opened.document.title } catch { return null } }"
            assert page.evaluate(told) is None
            window.close()
        assert is_active(house, agent)
        # In a frame there is no console at all.
        frame = page.evaluate_handle(
            "(url) => { const f = document.createElement('iframe'); f.src = url; document.body.append(f); return f; }",
            f"{origin}/console/overview",
        ).as_element()
        assert frame is not None
        framed = frame.content_frame()
        assert framed is not None
        framed.wait_for_load_state()
        assert framed.get_by_role("navigation").count() == 0
        # The console itself is well, and has told nobody where it was.
        operator.page.reload()
        expect(operator.page.get_by_role("heading", name="Overview")).to_be_visible()
    assert stranger.cookies
    assert not [one for one in stranger.cookies if COOKIE in one]


def test_what_a_stranger_takes_from_its_own_requests_signs_nobody_in(
    house: House, chromium: Browser, stranger: Stranger
) -> None:
    """The whole of the old attack: a page on another port, opened by the reviewer, was sent their session."""
    with person(chromium, house.gateway) as operator:
        page = operator.page.context.new_page()
        page.goto(f"http://127.0.0.1:{stranger.port}/")
    assert stranger.cookies
    taken = [part.partition("=")[2] for sent in stranger.cookies for part in sent.split("; ") if part]
    with httpx.Client(base_url=house.gateway.url, trust_env=False, timeout=20) as thief:
        for secret in taken:
            answer = thief.get("/api/v1/people/me", headers={"authorization": f"Bearer {secret}"})
            assert answer.status_code == 401
            answer = thief.get("/api/v1/people/me", headers={"cookie": f"{COOKIE}={secret}"})
            assert answer.status_code == 401
    assert not taken


def test_a_link_that_scanners_opened_signs_in_and_leads_to_the_wanted_page(house: House, chromium: Browser) -> None:
    gateway = house.gateway
    wanted = "/console/activity?agent=reader"
    link = httpx.URL(gateway.sign_in_link(next_page=wanted))
    with httpx.Client(base_url=gateway.url, headers={"host": link.netloc.decode()}, trust_env=False) as scanner:
        for _ in range(3):
            assert scanner.get(link.raw_path.decode()).status_code == 200
    context = chromium.new_context(viewport={"width": 390, "height": 844})
    page = context.new_page()
    sent: list[tuple[str, dict[str, str]]] = []
    page.on("request", lambda one: sent.append((one.url, one.headers)))
    page.goto(str(link))
    expect(page.get_by_role("heading", name="Sign in as Local operator?")).to_be_visible()
    assert page.evaluate("document.documentElement.scrollWidth <= document.documentElement.clientWidth")
    page.get_by_role("button", name="Sign in").click()
    page.wait_for_url(f"**{wanted}")
    expect(page.get_by_role("heading", name="Activity")).to_be_visible()
    sent.clear()
    page.get_by_role("link", name="Overview").click()
    expect(page.get_by_role("heading", name="Overview")).to_be_visible()
    assert sent
    assert "ags_" not in json.dumps(sent)  # neither in an address nor as a Referer
    # The address of the link is good for nothing any more.
    page.goto(str(link))
    expect(page.get_by_text("was used already")).to_be_visible()
    context.close()


def test_the_pages_commands_for_scripts_open_the_console_as_pasted(house: House, tmp_path: Path) -> None:
    (snippet,) = [one for one in snippets("bash") if "--connect-to" in one.text]
    (tmp_path / "var").mkdir()
    note.write(tmp_path / "var", {"GATEWAY_CONSOLE": house.gateway.sign_in_link()})
    script = ["bash", "-euc", snippet.text]
    done = subprocess.run(script, cwd=tmp_path, env={"PATH": os.environ["PATH"]}, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert '<a href="/console/overview" aria-current="page">' in done.stdout


def test_a_page_that_needs_a_sign_in_is_shown_once_its_link_is_pasted(house: House, chromium: Browser) -> None:
    gateway = house.gateway
    with person(chromium, gateway) as operator:
        origin = operator.origin
    context = chromium.new_context()
    page = context.new_page()
    page.goto(f"{origin}/console/audit")
    page.get_by_label("Sign-in link").fill(gateway.sign_in_link())
    page.get_by_role("button", name="Sign in").click()
    page.wait_for_url("**/console/audit")
    # A link on another site opens the page too, although the cookie does not come along at first.
    other = context.new_page()
    other.goto(f"http://127.0.0.1:{httpx.URL(gateway.url).port}/console/overview")
    expect(other.get_by_text("Nobody can sign in under this address")).to_be_visible()
    other.evaluate(
        "(url) => { const a = document.createElement('a'); a.href = url; document.body.append(a); a.click() }",
        f"{origin}/console/tools",
    )
    other.wait_for_url("**/console/tools")
    other.get_by_role("link", name="open this page from here").click()
    expect(other.get_by_role("heading", name="Tools")).to_be_visible()
    context.close()
