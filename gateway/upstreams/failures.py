"""What a model provider's failure means to an agent: a `Refusal` with the provider's public words, or ours.

A provider's 401 and 403 are about the gateway's credential, not the agent's, so they never reach the agent as
such. What a provider says passes through `public`, which takes out keys and addresses.
"""

from __future__ import annotations

import email.utils
import ipaddress
import math
import re
from collections.abc import Iterable
from typing import Any

import msgspec

from gateway import known_secrets
from gateway.errors import Refusal
from gateway.upstreams.wire import Headers, WireError, WireTimeout
from gateway.upstreams.wire_head import sentence as sentence_of

# Statuses that a repeated request may mend: time-out, lock conflict, throttled; and every 5xx.
AGAIN = frozenset((408, 409, 429))
_THE_AGENTS_FAULT = frozenset((400, 404, 413, 422))
_MESSAGE_CHARS = 1000
_WORD_CHARS = 120
_HIDDEN_CHARS = 6  # shorter texts are no secrets, and common words

_SECRETS = re.compile(
    r"""(?ix)
    \b(?:bearer|basic)\s+[^\s"',;]+
    | \b(?:sk|pk|rk|gsk|xai|key|ghp|hf|nvapi|pplx)[-_][^\s"',;)]{4,}
    | \bAIza[\w-]{10,} | \bAKIA[0-9A-Z]{12,} | \beyJ[\w-]{10,}[\w.-]*
    | \b(?:api[-_ ]?key|token|secret|password)\b(?:\s+provided)?\s*[:=]\s*[^\s"',;]+
    | \b(?=[\w+/-]*\d)[\w+/-]{40,}={0,2}
    """
)
_URLS = re.compile(r"""(?i)\b[a-z][a-z0-9+.-]*://(\[[^\]\s]+\]|[^\s/:?#"'<>)\]]+)[^\s"'<>)\]]*""")
_ADDRESSES = re.compile(r"\b\d{1,3}(?:\.\d{1,3}){3}\b(?::\d+)?")
_CONTROL = re.compile(r"[\x00-\x1f\x7f]+")
_INTERNAL = (".internal", ".local", ".localhost", ".lan", ".svc", ".corp", ".intranet", ".home.arpa")


def public(text: str, hide: Iterable[str] = ()) -> str:
    """`text` of an upstream, fit to be shown to an agent: one line, bounded, without keys and internal URLs.

    hide: what must not appear whatever it looks like, such as the upstream's host. Secrets of this process never do.
    """
    text = known_secrets.redact(text)
    for secret in hide:
        if len(secret) >= _HIDDEN_CHARS:
            text = text.replace(secret, "[redacted]")
    text = _CONTROL.sub(" ", text[: _MESSAGE_CHARS * 4])
    text = _URLS.sub(lambda found: "[redacted]" if _internal(found[1]) else found[0], text)
    text = _SECRETS.sub("[redacted]", text)
    text = _ADDRESSES.sub("[redacted]", text).strip()
    return text if len(text) <= _MESSAGE_CHARS else text[: _MESSAGE_CHARS - 1] + "…"


def _internal(host: str) -> bool:
    host = host.rpartition("@")[2].strip("[]").rstrip(".").lower()
    if "." not in host or host.endswith(_INTERNAL):
        return True
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True


def of_status(
    provider: str, status: int, headers: Headers, body: bytes, *, hide: Iterable[str], now_ns: int
) -> Refusal:
    """The refusal for an answer of `provider` that is not a success."""
    told = _error_object(body)
    hide = tuple(hide)
    message = told.get("message")
    words = public(message, hide) if isinstance(message, str) and message.strip() else ""
    detail = {"provider": provider, "upstream_status": str(status), "dispatched": "unknown", "answered": "yes"}
    for name in ("type", "code", "param"):
        if isinstance(told.get(name), str):
            detail[name if name == "param" else f"upstream_{name}"] = public(told[name], hide)[:_WORD_CHARS]
    said = f": {words}" if words else "."
    if status in (401, 403):
        sentence = (
            f"The model provider {provider} refused the gateway's own credential ({status}); its operator must "
            f"check that provider's api_key. Nothing is wrong with yours."
        )
        return Refusal("upstream_failed", sentence, detail=detail)
    if status == 429 and told.get("code") != "insufficient_quota":
        wait_s = retry_after_s(headers, now_ns)
        return Refusal(
            "rate_limited",
            f"The model provider {provider} is throttling the gateway{said}",
            retry_after_s=None if wait_s is None else math.ceil(wait_s),
            detail=detail,
        )
    if status in _THE_AGENTS_FAULT:
        sentence = f"The model provider {provider} did not accept the request{said}"
        return Refusal("upstream_failed", sentence, http_status=status, detail=detail)
    if status in (408, 504):
        sentence = f"The model provider {provider} timed out ({status}){said}"
        return Refusal("upstream_timeout", sentence, detail=detail)
    if 300 <= status < 400:
        sentence = f"The model provider {provider} answered with a redirect ({status}), which is not followed."
        return Refusal("upstream_failed", sentence, detail=detail)
    return Refusal("upstream_failed", f"The model provider {provider} failed ({status}){said}", detail=detail)


def of_wire(provider: str, fault: WireError) -> Refusal:
    """The refusal for a request that got no proper answer."""
    detail = {
        "provider": provider,
        "dispatched": "unknown" if fault.dispatched else "no",
    }
    code = "upstream_timeout" if isinstance(fault, WireTimeout) else "upstream_failed"
    return Refusal(code, sentence_of(f"model provider {provider}", fault), detail=detail)


def not_understood(provider: str, what: str) -> Refusal:
    """The refusal for a success whose body is not what was asked for; it may have been paid for."""
    detail = {"provider": provider, "dispatched": "unknown"}
    return Refusal("upstream_failed", f"The model provider {provider} answered with {what}.", detail=detail)


def retry_after_s(headers: Headers, now_ns: int) -> float | None:
    """How long the server asks to wait: retry-after-ms, or retry-after as seconds or HTTP date (RFC 9110 10.2.3)."""
    given = {name: value.decode("latin-1").strip() for name, value in headers if name.startswith(b"retry-after")}
    for name, unit_s in ((b"retry-after-ms", 0.001), (b"retry-after", 1.0)):
        try:
            wait_s = float(given[name]) * unit_s
        except (KeyError, ValueError):
            continue
        if math.isfinite(wait_s) and wait_s >= 0:
            return wait_s
    try:
        date = email.utils.parsedate_to_datetime(given.get(b"retry-after", ""))
    except ValueError:
        return None
    return max(0.0, date.timestamp() - now_ns / 1e9)


def worth_repeating(status: int, headers: Headers, refusal: Refusal) -> bool:
    """Whether the same request may succeed a moment later. `x-should-retry` has the last word."""
    for name, value in headers:
        if name == b"x-should-retry" and value in (b"true", b"false"):
            return value == b"true"
    if refusal.detail.get("upstream_code") == "insufficient_quota":
        return False
    return status in AGAIN or status >= 500


def _error_object(body: bytes) -> dict[str, Any]:
    """The OpenAI error object, or what some providers send in its place; empty if there is none."""
    try:
        told = msgspec.json.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return {}
    if isinstance(told, list) and told:  # Gemini's compatible endpoint wraps it in a list
        told = told[0]
    if not isinstance(told, dict):
        return {}
    error = told.get("error", told)
    if isinstance(error, str):
        return {"message": error}
    return error if isinstance(error, dict) else {}
