"""What an upstream says reaches an agent without keys, addresses or control characters."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.upstreams.failures import public
from gateway.upstreams.proxies import proxy_of


@pytest.mark.parametrize(
    "secret",
    [
        "sk-abcdefgh12345678",
        "sk-proj-abc***************xyz",
        "sk-ant-api03-abcdef",
        "gsk_abcdefghijkl",
        "AIzaSyA1234567890abcdefghijk",
        "AKIAIOSFODNN7EXAMPLE",
        "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxIn0.abc-def",
        "Bearer abc.def.ghi",
        "api_key=hunter2hunter2",
        "0123456789abcdef0123456789abcdef0123456789abcdef",
        "http://10.1.2.3:8080/internal",
        "https://models.corp.internal/v1?token=x",
        "http://vllm:8000/v1",
        "http://user:pw@localhost/x",
        "http://[fd00::1]:80/x",
        "192.168.0.17:5432",
    ],
)
def test_what_looks_like_a_key_or_an_inner_address_is_taken_out(secret: str) -> None:
    told = public(f"It failed: {secret} was wrong, see https://platform.openai.com/docs for help.")
    assert secret not in told
    assert told.startswith("It failed: [redacted]")
    assert "https://platform.openai.com/docs" in told


@pytest.mark.parametrize(
    "words",
    [
        "This model's maximum context length is 128000 tokens. However, your messages resulted in 130001 tokens.",
        "Invalid value: 'tool'. Supported values are: 'system', 'assistant' and 'user'.",
        "Unsupported parameter: 'max_tokens' is not supported with this model. Use 'max_completion_tokens' instead.",
        "Rate limit reached for gpt-4o-mini-2024-07-18 on tokens per min (TPM): Limit 200000, Used 199000.",
        "The token count exceeds the limit",
    ],
)
def test_plain_words_pass_as_they_are(words: str) -> None:
    assert public(words) == words


def test_control_characters_and_length_are_bounded() -> None:
    told = public("a\r\nb\x00c\x1b[31m" + "word " * 5000)
    assert told.startswith("a b c [31mword")
    assert len(told) == 1000


@given(st.text("0123 .\n"), st.text("kxz-_", min_size=6), st.text("0123 .\n"))
def test_what_must_be_hidden_is_hidden_wherever_it_stands(before: str, secret: str, after: str) -> None:
    assert secret not in public(before + secret + after + secret, [secret])


@pytest.mark.parametrize(
    ("environ", "url", "proxy"),
    [
        ({}, "https://api.example/", None),
        ({"https_proxy": "http://p:3128"}, "https://api.example/", "http://p:3128"),
        ({"HTTPS_PROXY": "p:3128"}, "https://api.example/", "http://p:3128"),
        ({"HTTPS_PROXY": "http://p:3128"}, "http://api.example/", None),
        ({"ALL_PROXY": "http://p:3128"}, "http://api.example/", "http://p:3128"),
        ({"https_proxy": "", "HTTPS_PROXY": "http://p"}, "https://api.example/", None),
        ({"https_proxy": "http://p", "no_proxy": "example"}, "https://api.example/", None),
        ({"https_proxy": "http://p", "no_proxy": ".example, other"}, "https://api.example:8443/", None),
        ({"https_proxy": "http://p", "no_proxy": "api.example:443"}, "https://api.example/", None),
        ({"https_proxy": "http://p", "no_proxy": "*"}, "https://api.example/", None),
        ({"https_proxy": "http://p", "no_proxy": "ample"}, "https://api.example/", "http://p"),
        ({"HTTP_PROXY": "http://p", "REQUEST_METHOD": "GET"}, "http://api.example/", None),
    ],
)
def test_proxies_are_found_as_curl_finds_them(environ: dict[str, str], url: str, proxy: str | None) -> None:
    assert proxy_of(url, environ) == proxy
