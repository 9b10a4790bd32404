"""`gateway serve` with a collector, a model provider and a tool server: what each of them really gets."""

from __future__ import annotations

import contextlib
import json
import re
import threading
from collections.abc import Iterator
from typing import NamedTuple

import httpx
import pytest

from tests.e2e.cases import open_case
from tests.e2e.fixtures import House, open_house
from tests.e2e.gateway_process import Agent
from tests.e2e.large_transfers import AMOUNT_CENTS
from tests.e2e.upstream import completion, usage, words
from tests.telemetry.receiver import Collector, SeenSpan

CALLER = "00-{0}-00f067aa0ba902b7-00"  # says that it is not sampled
BAGGAGE = "secret=from-the-agent"


class Seen(NamedTuple):
    """What was played, and all that was seen of it."""

    house: House
    collector: Collector
    spans: list[SeenSpan]
    sent: str  # to the tool server, as it stood on the wire

    def of(self, trace_id: str) -> list[SeenSpan]:
        return [span for span in self.spans if span.trace_id == trace_id]

    def one(self, trace_id: str, name: str, kind: str) -> SeenSpan:
        (found,) = [span for span in self.of(trace_id) if (span.name, span.kind) == (name, kind)]
        return found


CHAT, STREAM, CALL, LIST, DENIED, UNKNOWN, LARGE, FAILED, STRANGE = (f"{number:032x}" for number in range(0xA1, 0xAA))


def mcp(agent: Agent, method: str, params: dict[str, object], trace_id: str, rpc_id: object = 1) -> httpx.Response:
    message = {"jsonrpc": "2.0", "id": rpc_id, "method": method, "params": params}
    with agent.client() as client:
        headers = {
            "accept": "application/json, text/event-stream",
            "mcp-protocol-version": "2025-11-25",
            "traceparent": CALLER.format(trace_id),
            "tracestate": "vendor=of-the-agent",
            "baggage": BAGGAGE,
        }
        return client.post("/mcp/ledger", json=message, headers=headers)


@pytest.fixture(scope="module")
def seen(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Seen]:
    with contextlib.ExitStack() as stack:
        collector = stack.enter_context(Collector())
        house = stack.enter_context(open_house(tmp_path_factory.mktemp("traces"), start=False))
        house.gateway.environment["OTEL_EXPORTER_OTLP_ENDPOINT"] = collector.url
        house.gateway.environment["OTEL_RESOURCE_ATTRIBUTES"] = "k8s.pod.name=gateway-0"
        house.gateway.start(tools=True)
        _play(house)
        assert house.gateway.stop() == 0
        yield Seen(house, collector, collector.spans(), house.wire.sent.decode())


def _play(house: House) -> None:
    agent = house.agent("traced")
    thought = {**usage(10, 5), "prompt_tokens_details": {"cached_tokens": 4}}
    thought["completion_tokens_details"] = {"reasoning_tokens": 3}
    plays = house.upstream.answers(completion("Hello.", used=thought)), house.upstream.streams(*words("a", "b"))
    with agent.client() as client:
        for play, trace_id, stream in zip(plays, (CHAT, STREAM), (False, True), strict=True):
            body = {"model": "up", "stream": stream, "messages": [{"role": "user", "content": play.word}]}
            headers = {"traceparent": CALLER.format(trace_id), "tracestate": "vendor=of-the-agent", "baggage": BAGGAGE}
            assert client.post("/v1/chat/completions", json=body, headers=headers).status_code == 200
    meta = {"traceparent": CALLER.format(CALL), "tracestate": "vendor=of-the-message", "baggage": BAGGAGE}
    assert "balance_cents" in mcp(agent, "tools/call", {"name": "get_balance", "_meta": meta}, "e" * 32, "seven").text
    assert "get_balance" in mcp(agent, "tools/list", {}, LIST).text
    to_a_stranger = {"to": "nobody", "amount_cents": 1, "reference": "x"}
    assert mcp(agent, "tools/call", {"name": "transfer", "arguments": to_a_stranger}, DENIED).json()["result"][
        "isError"
    ]
    assert "Unknown tool" in mcp(agent, "tools/call", {"name": "made_up_by_a_client"}, UNKNOWN).text
    large = {"to": "acme-gmbh", "amount_cents": AMOUNT_CENTS, "reference": "traced"}
    answers: list[httpx.Response] = []
    asks = threading.Thread(
        target=lambda: answers.append(mcp(agent, "tools/call", {"name": "transfer", "arguments": large}, LARGE))
    )
    asks.start()
    open_case(agent).approve()
    asks.join()
    assert "transfer_id" in answers[0].text


def test_a_chat_is_a_server_span_and_a_client_span(seen: Seen) -> None:
    root = seen.one(CHAT, "chat up", "SERVER")
    call = seen.one(CHAT, "chat up-served", "CLIENT")
    assert (root.parent, call.parent) == ("00f067aa0ba902b7", root.id)
    assert root.state == "vendor=of-the-agent"
    assert call.attributes["gen_ai.provider.name"] == "up"
    assert call.attributes["gen_ai.response.id"] == "chatcmpl-1"
    assert call.attributes["gen_ai.response.model"] == "served"
    assert call.attributes["gen_ai.response.finish_reasons"] == ["stop"]
    assert call.attributes["gen_ai.usage.input_tokens"] == 10
    assert call.attributes["gen_ai.usage.output_tokens"] == 5
    assert call.attributes["gen_ai.usage.cache_read.input_tokens"] == 4
    assert call.attributes["gen_ai.usage.reasoning.output_tokens"] == 3
    assert call.attributes["gen_ai.conversation.id"] == root.attributes["gen_ai.conversation.id"]
    decide = seen.one(CHAT, "gateway.policy.decide", "INTERNAL")
    assert decide.parent == root.id
    assert (decide.attributes["gateway.policy.verdict"], decide.attributes["gateway.policy.action"]) == (
        "allow",
        "allow",
    )
    assert len(seen.of(CHAT)) == 4


def test_a_stream_lasts_to_its_end_and_tells_of_its_first_piece(seen: Seen) -> None:
    call = seen.one(STREAM, "chat up-served", "CLIENT")
    assert call.attributes["gen_ai.request.stream"] is True
    assert 0 < call.attributes["gen_ai.response.time_to_first_chunk"] <= call.took_s + 1e-6
    assert call.attributes["gen_ai.response.id"] == "chatcmpl-1"
    assert call.attributes["gen_ai.response.finish_reasons"] == ["stop"]
    assert call.attributes["gen_ai.usage.output_tokens"] == 5


def test_an_mcp_call_belongs_to_its_message_and_links_to_the_request_that_carried_it(seen: Seen) -> None:
    root = seen.one(CALL, "tools/call get_balance", "SERVER")
    call = seen.one(CALL, "tools/call get_balance", "CLIENT")
    assert root.parent == "00f067aa0ba902b7"
    assert root.state == "vendor=of-the-message"
    assert root.links == [("e" * 32, "00f067aa0ba902b7")]
    assert root.attributes["mcp.protocol.version"] == "2025-11-25"
    assert root.attributes["jsonrpc.request.id"] == "seven"
    assert root.attributes["gen_ai.tool.name"] == "get_balance"
    assert call.attributes["mcp.protocol.version"] == "2026-07-28"
    assert call.attributes["jsonrpc.request.id"].isdigit()
    assert not seen.of("e" * 32)


def test_a_list_is_a_span_of_its_own(seen: Seen) -> None:
    (root,) = seen.of(LIST)
    assert (root.name, root.kind) == ("tools/list", "SERVER")
    assert root.attributes["mcp.method.name"] == "tools/list"


def test_a_denial_says_by_which_rules_and_that_it_was_blocked(seen: Seen) -> None:
    (decide,) = [span for span in seen.of(DENIED) if span.kind == "INTERNAL"]
    assert decide.attributes["gateway.policy.verdict"] == "deny"
    assert decide.attributes["gateway.policy.action"] == "block"
    (root,) = [span for span in seen.of(DENIED) if span.kind == "SERVER"]
    assert root.attributes["error.type"] == "denied_by_policy"
    assert root.attributes["gateway.policy.rules"] == decide.attributes["gateway.policy.rules"]
    assert root.is_error
    assert len(seen.of(DENIED)) == 2


def test_an_unknown_tool_gives_no_span_its_name(seen: Seen) -> None:
    (root,) = seen.of(UNKNOWN)
    assert root.name == "tools/call"
    assert root.attributes["rpc.response.status_code"] == "-32602"
    assert root.attributes["error.type"] == "unknown_tool"


def test_what_waited_and_was_approved_is_one_trace(seen: Seen) -> None:
    root = seen.one(LARGE, "tools/call transfer", "SERVER")
    wait = seen.one(LARGE, "gateway.approval.wait", "INTERNAL")
    attempt = seen.one(LARGE, "execute_tool transfer", "INTERNAL")
    call = seen.one(LARGE, "tools/call transfer", "CLIENT")
    assert (wait.parent, attempt.parent, call.parent) == (root.id, root.id, attempt.id)
    assert wait.attributes["gateway.case.id"] == attempt.attributes["gateway.case.id"]
    assert wait.attributes["gateway.case.state"] == "succeeded"
    first, again = [span for span in seen.of(LARGE) if span.name == "gateway.policy.decide"]
    assert first.attributes["gateway.policy.verdict"] == first.attributes["gateway.policy.action"] == "escalate"
    assert again.parent == attempt.id
    assert seen.one(LARGE, "gateway.audit.intent", "INTERNAL").parent == attempt.id


def test_upstreams_get_the_trace_and_nothing_else_of_the_callers_context(seen: Seen) -> None:
    asked = {one.headers["traceparent"]: one.headers for one in seen.house.upstream.received}
    for trace_id in (CHAT, STREAM):
        headers = asked[f"00-{trace_id}-{seen.one(trace_id, 'chat up-served', 'CLIENT').id}-01"]
        assert not {"baggage", "tracestate"} & headers.keys()
    for trace_id, tool in ((CALL, "get_balance"), (LARGE, "transfer")):
        expected = f"00-{trace_id}-{seen.one(trace_id, f'tools/call {tool}', 'CLIENT').id}-01"
        assert f"traceparent: {expected}\r\n" in seen.sent
        bodies = [
            json.loads(body) for body in re.findall(r'\{"jsonrpc".*?"method":"tools/call".*?\}(?=POST|$)', seen.sent)
        ]
        assert [body for body in bodies if body["params"]["_meta"].get("traceparent") == expected]
    assert "baggage" not in seen.sent
    assert "of-the-agent" not in seen.sent
    assert "of-the-message" not in seen.sent


def test_who_sent_it_is_told_and_no_content(seen: Seen) -> None:
    resource = seen.collector.resources()[0]
    assert resource["service.name"] == "agent-governance-gateway"
    assert resource["k8s.pod.name"] == "gateway-0"
    everything = repr(seen.spans)
    assert "from-the-agent" not in everything
    assert "acme-gmbh" not in everything
    assert "Hello" not in everything


def test_records_and_spans_name_each_other(seen: Seen) -> None:
    traces = {
        (leaf["trace"] or {}).get("id", (leaf["trace"] or {}).get("trace_id")) for leaf in seen.house.gateway.leaves()
    }
    assert {CHAT, STREAM, CALL, DENIED, LARGE} <= traces
