"""Refusals and rates as OpenAI clients read them."""

from __future__ import annotations

import json

import pytest

from gateway.doors.openai.errors import error_body, error_headers, rate_headers
from gateway.errors import CODES, Refusal
from gateway.limits import Rates


@pytest.mark.parametrize("code", sorted(CODES))
def test_every_refusal_has_the_four_keys_and_says_whether_to_try_again(code: str) -> None:
    refusal = Refusal(code, "What happened, why, what to do.", rules=("r",), reasons=("Because.",), retry_after_s=7)
    error = json.loads(error_body(refusal))["error"]
    assert {"message", "type", "param", "code"} <= error.keys()
    assert isinstance(error["type"], str)
    headers = dict(error_headers(refusal))
    assert headers[b"retry-after"] == b"7"
    # The SDK retries 408, 409, 429 and 5xx unless told not to.
    assert headers[b"x-should-retry"] == (b"true" if CODES[code].retry else b"false")


def test_a_refusal_that_money_or_policy_caused_is_never_retried() -> None:
    for code in ("budget_exhausted", "denied_by_policy", "approval_denied", "agent_suspended"):
        assert dict(error_headers(Refusal(code, "No.")))[b"x-should-retry"] == b"false"


def test_an_upstreams_own_client_error_is_not_retried() -> None:
    refusal = Refusal("upstream_failed", "The provider says: bad image.", http_status=400)
    assert dict(error_headers(refusal))[b"x-should-retry"] == b"false"


def test_rates_that_are_not_limited_are_not_told() -> None:
    headers = dict(rate_headers(Rates(limit_requests=60, remaining_requests=59, reset_requests_s=1)))
    assert headers == {
        b"x-ratelimit-limit-requests": b"60",
        b"x-ratelimit-remaining-requests": b"59",
        b"x-ratelimit-reset-requests": b"1s",
    }
