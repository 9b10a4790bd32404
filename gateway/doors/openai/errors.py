"""Refusals as OpenAI clients read them: `{"error": {message, type, param, code}}`, all four keys always there.

Source: the official SDK retries 408, 409, 429 and >= 500 unless `x-should-retry: false` says otherwise.
"""

from __future__ import annotations

import orjson

from gateway.errors import Refusal
from gateway.running import Rates

_TYPES = {
    400: "invalid_request_error",
    401: "authentication_error",
    402: "insufficient_quota",
    403: "permission_error",
    404: "not_found_error",
    409: "conflict_error",
    413: "invalid_request_error",
    422: "invalid_request_error",
    429: "rate_limit_error",
}


def error_body(refusal: Refusal) -> bytes:
    """The JSON body of a refusal; `case`, `rules` and `reasons` are extra fields that SDKs keep."""
    error: dict[str, object] = {
        "message": refusal.message,
        "type": _TYPES.get(refusal.http_status, "api_error"),
        "param": refusal.detail.get("param"),
        "code": refusal.code,
    }
    if "case" in refusal.detail:  # the case that it waits in, or that ended so
        error["case"] = refusal.detail["case"]
    if refusal.rules:
        error["rules"] = refusal.rules
    if refusal.reasons:
        error["reasons"] = refusal.reasons
    return orjson.dumps({"error": error})


def error_headers(refusal: Refusal) -> list[tuple[bytes, bytes]]:
    """Headers that tell a client whether and when to try again."""
    headers = [(b"content-type", b"application/json")]
    if refusal.retry_after_s is not None:
        headers.append((b"retry-after", str(refusal.retry_after_s).encode()))
    headers.append((b"x-should-retry", b"true" if refusal.retry else b"false"))
    if refusal.http_status == 401:
        headers.append((b"www-authenticate", b"Bearer"))
    return headers


def error_event(refusal: Refusal) -> bytes:
    """A refusal after bytes are out: the stream's last event, which SDKs raise as an error."""
    return b"data: " + error_body(refusal) + b"\n\n"


def rate_headers(rates: Rates) -> list[tuple[bytes, bytes]]:
    """What is left of the tightest rates, as OpenAI tells it; what is not limited is not told."""
    headers = []
    if rates.limit_requests is not None:
        headers += [
            (b"x-ratelimit-limit-requests", b"%d" % rates.limit_requests),
            (b"x-ratelimit-remaining-requests", b"%d" % (rates.remaining_requests or 0)),
            (b"x-ratelimit-reset-requests", b"%ds" % rates.reset_requests_s),
        ]
    if rates.limit_tokens is not None:
        headers += [
            (b"x-ratelimit-limit-tokens", b"%d" % rates.limit_tokens),
            (b"x-ratelimit-remaining-tokens", b"%d" % (rates.remaining_tokens or 0)),
            (b"x-ratelimit-reset-tokens", b"%ds" % rates.reset_tokens_s),
        ]
    return headers
