"""Every provider without a native adapter, through litellm; imported only where one is configured.

litellm reads some of its keyword arguments as orders to itself (api_base, api_key, mock_response, fallbacks ...),
so an agent's request must never be handed to it as a whole: `_FIELDS` is what passes, anything else is refused.
Its import takes seconds and some 180 MB; `warm` does that in a thread, before the gateway is ready.
"""

from __future__ import annotations

import asyncio
import importlib
import logging
import os
import re
from collections.abc import AsyncIterator
from typing import Any

import msgspec

from gateway import known_secrets
from gateway.actions import ModelTarget, Reply
from gateway.clock import Clock
from gateway.errors import Refusal
from gateway.upstreams import failures
from gateway.upstreams.budget import AnswerBudget, full
from gateway.upstreams.clean_answer import without_secrets
from gateway.upstreams.credential import Credential
from gateway.upstreams.openai import ANSWER_CAP_BYTES
from gateway.upstreams.retries import Failed, Retries
from gateway.upstreams.wire import Headers, WireError, WireFailed, WireTimeout
from gateway.usage import usage_of_answer

_log = logging.getLogger(__name__)

# Fields of OpenAI's chat completions that litellm translates and that steer only the model.
_FIELDS = frozenset(
    (
        *("audio", "frequency_penalty", "function_call", "functions", "logit_bias", "logprobs", "messages"),
        *("max_completion_tokens", "max_tokens", "modalities", "n", "parallel_tool_calls", "prediction"),
        *("presence_penalty", "prompt_cache_key", "reasoning_effort", "response_format", "safety_identifier"),
        *("seed", "service_tier", "stop", "store", "stream", "stream_options", "temperature", "thinking"),
        *("tool_choice", "tools", "top_logprobs", "top_p", "user", "verbosity", "web_search_options"),
    )
)
_PREFIX = re.compile(r"^(?:(?:litellm\.)?\w+(?:Error|Exception)\s*[:-]\s*)+")


def _import() -> Any:
    # Its price list would else be fetched from the network at import.
    os.environ.setdefault("LITELLM_LOCAL_MODEL_COST_MAP", "True")
    known_secrets.remember_environment(os.environ)  # where litellm itself looks for keys of providers
    litellm: Any = importlib.import_module("litellm")
    litellm.telemetry = False
    litellm.suppress_debug_info = True
    return litellm


async def close_clients() -> None:
    """Close the HTTP clients that litellm keeps for the whole process; for the end of the process."""
    await importlib.import_module("litellm").close_litellm_async_clients()


class LongTailProvider:
    """One provider of type litellm. `prefix` is put before the model's name; `params` go to every call."""

    def __init__(
        self,
        name: str,
        *,
        prefix: str,
        credential: Credential,
        params: dict[str, Any],
        retries: Retries,
        clock: Clock,
        budget: AnswerBudget | None = None,
        connect_timeout_s: float = 5.0,
        first_byte_timeout_s: float = 300.0,
        idle_timeout_s: float = 120.0,
        on_hang_up: str = "drain",
        drain_s: float = 30.0,
    ) -> None:
        self.name = name
        self.on_hang_up = on_hang_up
        self.drain_s = drain_s
        self._budget = budget or AnswerBudget()
        self._prefix = prefix
        self._credential = credential
        self._params = params
        self._retries = retries
        self._clock = clock
        self._head_timeout_s = connect_timeout_s + first_byte_timeout_s
        self._idle_timeout_s = idle_timeout_s
        self._litellm: Any = None

    async def warm(self) -> None:
        """Import litellm in a thread; to be awaited before the gateway says that it is ready."""
        if self._litellm is None:
            self._litellm = await asyncio.to_thread(_import)

    async def invoke(
        self, target: ModelTarget, body: bytes, *, stream: bool, request_id: str, traceparent: str | None = None
    ) -> Reply | LongTailStream:
        """Send a chat completion. Raises Refusal: malformed, upstream_failed, upstream_timeout, rate_limited."""
        await self.warm()
        fields = _fields(self.name, body)
        fields["model"] = self._prefix + target.model
        fields["stream"] = stream
        if traceparent is not None:  # beside the headers that the operator set, and never in place of one
            fields["extra_headers"] = {"traceparent": traceparent, **self._params.get("extra_headers", {})}
        return await self._retries.run(lambda: self._attempt(fields, stream))

    async def aclose(self) -> None:
        """Nothing of its own to close: litellm keeps its clients per process (`close_clients`)."""

    async def _attempt(self, fields: dict[str, Any], stream: bool) -> Reply | LongTailStream:
        key = self._credential.value()
        orders = {"num_retries": 0, "max_retries": 0, "timeout": self._head_timeout_s, "api_key": key}
        try:
            async with asyncio.timeout(self._head_timeout_s):
                answer = await self._litellm.acompletion(**{**orders, **self._params, **fields})
        except TimeoutError:
            late = f"the server did not begin to answer within {self._head_timeout_s:g} s"
            fault = WireTimeout("first_byte", late, dispatched=True)
            raise Failed(failures.of_wire(self.name, fault), again=False) from None
        except Exception as fault:
            raise self._failed(fault) from fault
        if stream:
            return LongTailStream(self, answer)
        body = without_secrets(_encode(answer, "message"))
        if len(body) > ANSWER_CAP_BYTES or not self._budget.of_task().add(len(body)):
            raise Failed(full(f"The model provider {self.name}", {"provider": self.name}), again=False)
        return Reply(body=body, headers={"content-type": "application/json"}, usage=usage_of_answer(body))

    async def next_chunk(self, chunks: AsyncIterator[Any]) -> bytes | None:
        """The next chunk of a stream as JSON, None after the last. Raises Refusal."""
        try:
            async with asyncio.timeout(self._idle_timeout_s):
                return _encode(await anext(chunks), "delta")
        except StopAsyncIteration:
            return None
        except TimeoutError:
            silence = f"the server fell silent for {self._idle_timeout_s:g} s in the middle of its answer"
            fault = WireTimeout("idle", silence, dispatched=True, answered=True)
            raise failures.of_wire(self.name, fault) from None
        except Exception as fault:
            raise self._failed(fault).refusal from fault

    def _failed(self, fault: Exception) -> Failed:
        """litellm's exceptions are openai's, with a status that it may have made up, or anything at all."""
        status = getattr(fault, "status_code", None)
        silent = _no_answer(fault, self._litellm)
        if silent is not None or not isinstance(status, int):
            _log.warning("provider %s: litellm raised %s", self.name, type(fault).__name__)
            broken = silent or WireFailed(f"{type(fault).__name__} in litellm", dispatched=True)
            return Failed(failures.of_wire(self.name, broken), again=False)
        if status in (401, 403):
            self._credential.forget()
        sent = getattr(fault, "litellm_response_headers", None) or getattr(
            getattr(fault, "response", None), "headers", {}
        )
        headers: Headers = [(str(k).lower().encode(), str(v).encode("latin-1", "replace")) for k, v in sent.items()]
        message = _PREFIX.sub("", str(getattr(fault, "message", "")))
        told = {"message": message, "code": getattr(fault, "code", None), "param": getattr(fault, "param", None)}
        now_ns = self._clock.now_ns()
        hide = [value for value in self._params.values() if isinstance(value, str)]
        refusal = failures.of_status(
            self.name, status, headers, msgspec.json.encode({"error": told}), hide=hide, now_ns=now_ns
        )
        return Failed(
            refusal,
            again=failures.worth_repeating(status, headers, refusal),
            wait_s=failures.retry_after_s(headers, now_ns),
        )


class LongTailStream:
    """A streamed answer as server-sent events of OpenAI's dialect."""

    status = 200

    def __init__(self, provider: LongTailProvider, answer: Any) -> None:
        self.headers = {"content-type": "text/event-stream"}
        self._provider = provider
        self._answer = answer
        self._done = False

    def __aiter__(self) -> AsyncIterator[bytes]:
        return self

    async def __anext__(self) -> bytes:
        if self._done:
            raise StopAsyncIteration
        chunk = await self._provider.next_chunk(self._answer)
        if chunk is None:
            self._done = True
            return b"data: [DONE]\n\n"
        return b"data: " + chunk + b"\n\n"

    async def aclose(self) -> None:
        """Stop the provider."""
        self._done = True
        await self._answer.aclose()


def _fields(provider: str, body: bytes) -> dict[str, Any]:
    """The request's fields, if litellm may be told all of them. Raises Refusal `malformed`."""
    try:
        fields = msgspec.json.decode(body, type=dict[str, Any])
    except (msgspec.DecodeError, UnicodeDecodeError):
        raise Refusal("malformed", "The request is not a JSON object.") from None
    fields.pop("model", None)
    for name, value in fields.items():
        if name not in _FIELDS:
            raise Refusal(
                "malformed",
                f"The field {name} can't be passed on to the model provider {provider}; leave it out, or let its "
                "operator set it for all calls under params.",
                detail={"param": name[:64]},
            )
        if name == "messages":
            _refuse_remote_media(value, provider)
    return fields


def _refuse_remote_media(value: Any, provider: str) -> None:
    """For many providers litellm itself fetches an image or file by its URL: an agent could so make the gateway
    read its operator's network. Inline data says the same."""
    todo = [value]
    while todo:
        one = todo.pop()
        if isinstance(one, list):
            todo += one
        elif isinstance(one, dict):
            for key, inner in one.items():
                if isinstance(inner, str) and key != "text" and key != "content" and key != "arguments":
                    if re.match(r"\s*(?:https?|ftp|file|gs|s3):", inner, re.IGNORECASE):
                        raise Refusal(
                            "malformed",
                            f"Media by URL can't be passed on to the model provider {provider}; send it inline as a "
                            "data: URL.",
                            detail={"param": "messages"},
                        )
                else:
                    todo.append(inner)


def _no_answer(fault: BaseException | None, litellm: Any) -> WireError | None:
    """What it means if there was no answer: litellm hides that behind a status 500 or 408 of its own making."""
    for _ in range(10):
        if isinstance(fault, litellm.exceptions.openai.APITimeoutError):
            return WireTimeout("first_byte", "it took too long", dispatched=True)
        if isinstance(fault, litellm.exceptions.openai.APIConnectionError):
            return WireFailed("the connection could not be made or broke", dispatched=True)
        if fault is None:
            break
        fault = fault.__cause__ or getattr(fault, "original_exception", None) or fault.__context__
    return None


def _encode(answer: Any, part: str) -> bytes:
    """litellm's object as OpenAI's JSON: without the empty fields it adds, but with a message's null content."""
    shape = answer.model_dump(exclude_none=True, warnings="none")
    for choice in shape.get("choices", ()):
        said = choice.setdefault(part, {})
        if part == "message":
            said.setdefault("content", None)
        else:
            choice.setdefault("finish_reason", None)
    if (
        part == "delta"
        and shape.get("usage")
        and not any(one[part] or one["finish_reason"] for one in shape["choices"])
    ):
        shape["choices"] = []  # OpenAI's last chunk has usage and no choice; litellm adds an empty one
    return msgspec.json.encode(shape, enc_hook=str)
