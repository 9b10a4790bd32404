"""The console has a host of its own, and Host is looked at on every path: a whole gateway without a public URL."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager
from functools import partial
from pathlib import Path
from typing import Any, Protocol

import httpx
import pytest

from gateway.identity.console_site import COOKIE
from tests.console.html import check_page
from tests.footing import process_in
from tests.gateway_house import Running, open_gateway

EVIL = "evil.localhost:8080"
HOT = ("/v1/models", "/v1/chat/completions", "/models", "/mcp", "/mcp/ledger", "/s/run/v1/models", "/s/run/mcp")
COLD = (
    *("/", "/console", "/console/overview", "/console/login?token=x", "/console/static/console.css", "/metrics"),
    *("/api/v1/status", "/api/v1/me", "/api/v1/openapi.json", "/api/v1/policy/bundle", "/nothing", "/livez/"),
)


class Opens(Protocol):
    """Opens a gateway with these settings of its process; the same data each time."""

    def __call__(self, **settings: Any) -> AbstractAsyncContextManager[Running]: ...


@pytest.fixture
def opens(request: pytest.FixtureRequest, tmp_path: Path) -> Opens:
    process = process_in(tmp_path, request)

    def open_it(**settings: Any) -> AbstractAsyncContextManager[Running]:
        return open_gateway(tmp_path, process.model_copy(update={"public_url": None, **settings}))

    return open_it


@pytest.fixture
async def running(opens: Opens) -> AsyncIterator[Running]:
    async with opens() as running:
        yield running


async def link_of(running: Running, **wanted: str) -> httpx.URL:
    async with running.client(running.operator_token, host="127.0.0.1:8080") as operator:
        made = await operator.post("/api/v1/sign-in", json=wanted)
    return httpx.URL(made.json()["url"])


async def signed_in(running: Running) -> tuple[str, str]:
    """The console's host with its port, and a cookie of the local operator."""
    link = await link_of(running)
    host = link.netloc.decode()
    async with running.client(host=host) as browser:
        answer = await browser.post("/console/login", data={"token": link.params["token"]})
    assert answer.status_code == 303
    return host, answer.headers["set-cookie"].partition(";")[0]


async def test_the_host_is_random_below_localhost_and_the_same_after_a_restart(opens: Opens, tmp_path: Path) -> None:
    async with opens() as running:
        link = await link_of(running, next="/console/audit")
        host, cookie = await signed_in(running)
    assert (link.scheme, link.port, link.path, link.params["next"]) == (
        "http",
        8080,
        "/console/login",
        "/console/audit",
    )
    label, _, rest = link.host.partition(".")
    assert (len(label), rest) == (26, "localhost")
    async with opens() as again, again.client(host=host, cookie=cookie) as browser:
        assert (await link_of(again)).host == link.host
        assert (await browser.get("/console/overview")).status_code == 200
    other = tmp_path / "other"
    other.mkdir()
    process = running.app.process
    if process.is_scaled:
        return
    async with open_gateway(other, process.model_copy(update={"data_dir": other / "var"})) as elsewhere:
        assert (await link_of(elsewhere)).host != link.host


async def test_the_cookie_counts_under_that_host_only(running: Running) -> None:
    host, cookie = await signed_in(running)
    for path in ("/console/overview", "/api/v1/people/me", "/api/v1/status"):
        async with running.client(host=host, cookie=cookie) as browser:
            assert (await browser.get(path)).status_code == 200
            tunnel = await browser.get(path, headers={"host": host.replace(":8080", ":9000")})
            assert tunnel.status_code == 200
        for name in ("127.0.0.1:8080", "localhost:8080", "[::1]:8080"):
            async with running.client(host=name, cookie=cookie, origin=f"http://{name}") as browser:
                assert (await browser.get(path)).status_code == 401
                refused = await browser.post("/api/v1/agents/reader/suspend", json={})
                assert refused.status_code == 401


async def test_the_cookies_secret_opens_nothing_as_a_token(running: Running) -> None:
    host, cookie = await signed_in(running)
    for name in (host, "127.0.0.1:8080"):
        async with running.client(cookie.partition("=")[2], host=name) as thief:
            for path in ("/api/v1/people/me", "/api/v1/status", "/console/overview", "/api/v1/me", "/v1/models"):
                assert (await thief.get(path)).status_code == 401, path


async def test_nothing_tells_the_consoles_host(running: Running, capfd: pytest.CaptureFixture[str]) -> None:
    host, _ = await signed_in(running)
    secret = host.partition(".")[0]
    answers: list[httpx.Response] = []
    for name in ("127.0.0.1:8080", EVIL):
        async with running.client(host=name, cookie=f"{COOKIE}=x") as nobody:
            for path in (*HOT, *COLD, "/console/", "/console/overview/", "/livez", "/readyz"):
                answers += [await nobody.get(path), await nobody.post(path), await nobody.options(path)]
        async with running.client(running.operator_token, host="127.0.0.1:8080") as operator:
            for path in ("status", "openapi.json", "people", "sessions", "errors/wrong_host", "audit/records"):
                answers.append(await operator.get(f"/api/v1/{path}"))
    for answer in answers:
        assert secret not in answer.text + repr(answer.headers), answer.url
        assert "http" not in answer.headers.get("location", "")
        assert "access-control-allow-origin" not in answer.headers
    said = capfd.readouterr()
    assert secret not in said.out + said.err


async def test_another_host_is_refused_on_every_path(running: Running) -> None:
    agent = await running.agent()
    async with running.client(running.operator_token) as operator:
        for path in (*HOT, *COLD):
            for client in (agent, operator):
                answer = await client.get(path, headers={"host": EVIL})
                assert answer.status_code == 421, path
                assert "GATEWAY_ALLOWED_HOSTS" in answer.text
                told = answer.json()
                error = told.get("error", told)
                assert "wrong_host" in (error.get("code"), error.get("data", {}).get("gateway/code")), path
                assert ("error" in told) == (path in HOT)


async def test_probes_are_answered_under_any_name(running: Running) -> None:
    async with running.client(host=EVIL) as probe:
        assert [(await probe.get(path)).status_code for path in ("/livez", "/readyz")] == [200, 200]


@pytest.mark.parametrize("name", ["127.0.0.1:1", "localhost", "[::1]:8080"])
async def test_agents_call_this_machine_by_its_names(running: Running, name: str) -> None:
    agent = await running.agent()
    assert (await agent.get("/v1/models", headers={"host": name})).status_code == 200
    ping = {"jsonrpc": "2.0", "id": 1, "method": "ping"}
    assert (await agent.post("/mcp", json=ping, headers={"host": name})).status_code == 200
    assert (await agent.get("/api/v1/me", headers={"host": name})).status_code == 200


async def test_a_link_is_used_up_by_the_consoles_own_form_only(running: Running) -> None:
    link = await link_of(running)
    host, form = link.netloc.decode(), {"token": link.params["token"]}
    origin = f"http://{host}"
    refusals = [
        ({"host": "127.0.0.1:8080", "origin": "http://127.0.0.1:8080"}, 421),
        ({"host": host, "origin": "http://127.0.0.1:9999"}, 403),
        ({"host": host, "origin": "http://evil.localhost:8080", "sec-fetch-site": "cross-site"}, 403),
        ({"host": host, "origin": f"http://{host.partition(':')[0]}:9999", "sec-fetch-site": "same-site"}, 403),
        ({"host": host, "origin": "null"}, 403),
        ({"host": host, "sec-fetch-site": "cross-site"}, 403),
    ]
    async with running.client() as browser:
        for headers, status in refusals:
            answer = await browser.post("/console/login", data=form, headers=headers)
            assert (answer.status_code, "set-cookie" in answer.headers) == (status, False), headers
            check_page(answer)
        for name in (host, "127.0.0.1:8080"):  # opened, by a person or a scanner, it stays good
            assert (await browser.get(link.raw_path.decode(), headers={"host": name})).status_code == 200
        ours = {"host": host, "origin": origin, "sec-fetch-site": "same-origin"}
        assert (await browser.post("/console/login", data=form, headers=ours)).status_code == 303
        assert (await browser.post("/console/login", data=form, headers=ours)).status_code == 401


async def test_the_page_that_was_wanted_is_shown_after_the_sign_in(running: Running) -> None:
    link = await link_of(running)
    host = link.netloc.decode()
    wanted = "/console/activity?agent=reader&effect=deny"
    async with running.client(host=host) as browser:
        page = check_page(await browser.get(wanted))
        typed = {**page.form("/console/login"), "token": f" {link} "}  # the whole link, pasted
        signed = await browser.post("/console/login", data=typed)
        assert (signed.status_code, signed.headers["location"]) == (303, wanted)
        browser.cookies.clear()
        # A browser that keeps the cookie back from a link on another site gets it from the page's own link.
        linked = check_page(await browser.get(wanted, headers={"sec-fetch-site": "cross-site"}))
        assert {"href": wanted} in linked.all("a")
        # A form that was sent after the session had ended leads back to the page that it was on.
        late = await browser.post(
            "/console/approvals/x/reviews", headers={"referer": f"http://{host}/console/approvals/x"}
        )
        assert check_page(late).form("/console/login")["next"] == "/console/approvals/x"


async def test_a_sign_in_leads_nowhere_else(running: Running) -> None:
    pages = (
        *(
            "https://evil.example/",
            "//evil.example",
            "/\\evil.example",
            "/console/../../evil",
            "/console//evil.example",
        ),
        *("/console/login?token=x", "/console/logout", "/console/%2e%2e/x", "javascript:alert(1)", "/console\r\nx: y"),
        *("/consolex", "/api/v1/status", "console/overview", "/console/overview#x", "/console/" + "a" * 3000),
    )
    for page in pages:
        link = await link_of(running)
        async with running.client(host=link.netloc.decode()) as browser:
            shown = await browser.get("/console/login", params={"token": link.params["token"], "next": page})
            assert check_page(shown).form("/console/login")["next"] == "", page
            form = {"token": link.params["token"], "next": page}
            answer = await browser.post("/console/login", data=form)
        assert (answer.status_code, answer.headers["location"]) == (303, "/console/overview"), page
        async with running.client(running.operator_token, host="127.0.0.1") as operator:
            assert (await operator.post("/api/v1/sign-in", json={"next": page})).status_code == 400, page


async def test_back_on_127_0_0_1_it_says_what_is_lost(opens: Opens) -> None:
    async with opens(console_host="127.0.0.1") as running:
        host, cookie = await signed_in(running)
        assert host == "127.0.0.1:8080"
        async with running.client(host=host, cookie=cookie) as browser:
            assert (await browser.get("/console/overview")).status_code == 200
            told = (await browser.get("/api/v1/status")).json()["console"]
        assert (told["own_host"], "every port" in told["warning"]) == (False, True)
    async with opens() as running, running.client(running.operator_token, host="127.0.0.1") as operator:
        assert (await operator.get("/api/v1/status")).json()["console"] == {"own_host": True, "warning": None}


async def test_a_public_url_of_this_machine_has_a_console_of_its_own_too(opens: Opens) -> None:
    """docker-compose.yml publishes its balancer on 127.0.0.1."""
    async with opens(public_url="http://127.0.0.1:9000/base/", host="0.0.0.0", allowed_hosts="gateway-1") as running:
        link = await link_of(running)
        assert (link.host.endswith(".localhost"), link.port, link.path) == (True, 9000, "/base/console/login")
        async with running.client() as scraper:
            gets = partial(scraper.get, "/metrics")
            assert (await gets(headers={"host": "gateway-1:8080"})).status_code == 200
            assert (await gets(headers={"host": "10.0.0.5:8080"})).status_code == 200
            assert (await gets(headers={"host": "gateway-2:8080"})).status_code == 421


async def test_a_public_url_is_the_consoles_own(opens: Opens) -> None:
    async with opens(public_url="https://Gate.example", console_host="127.0.0.1") as running:
        link = await link_of(running)
        assert (link.scheme, link.host) == ("https", "gate.example")
        async with running.client(host="gate.example") as browser:
            answer = await browser.post("/console/login", data={"token": link.params["token"]})
            cookie = answer.headers["set-cookie"].partition(";")[0]
            assert cookie.startswith("__Host-")
            page = await browser.get("/console/overview", headers={"cookie": cookie})
            assert page.status_code == 200
            elsewhere = await browser.get("/console/overview", headers={"cookie": cookie, "host": "127.0.0.1:8080"})
            assert elsewhere.status_code == 401
