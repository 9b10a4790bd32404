"""Which values count as secrets of this process."""

from __future__ import annotations

import base64
from pathlib import Path

import pytest

from gateway import known_secrets, references
from gateway.errors import Refusal
from gateway.known_secrets import VALUES_KEPT, redact
from gateway.upstreams.credential import Credential


def test_what_a_reference_leads_to_is_redacted_and_what_it_led_to_before_as_well(tmp_path: Path) -> None:
    file = tmp_path / "key"
    credential = Credential(f"file:{file}", references.resolve, of="test")
    for number in range(3):
        file.write_text(f"rotated-key-{number:02}{'x' * number}\n")
        assert credential.value() in known_secrets.KNOWN.redactor.texts
    assert redact("rotated-key-00 rotated-key-01x rotated-key-02xx") == "[redacted] [redacted] [redacted]"


def test_the_earlier_values_of_a_reference_are_bounded() -> None:
    for number in range(10 * VALUES_KEPT):
        known_secrets.remember("env:A", f"value-number-{number}")
    assert len(known_secrets.KNOWN.redactor.texts) == VALUES_KEPT
    known_secrets.remember("env:B", "another-value")
    assert redact("another-value") == "[redacted]"


def test_what_is_only_looked_at_and_what_is_too_short_is_no_secret() -> None:
    environ = {"ON": "enabled-for-all", "SHORT": "1234567", "PYTHON": "/usr/bin/python3"}
    references.follow("env:ON", environ)
    references.resolve("env:SHORT", environ)
    references.resolve_text("env:PYTHON", environ)
    assert not known_secrets.KNOWN.redactor.texts


@pytest.mark.parametrize(
    ("value", "told"),
    [
        ("Bearer abcdefghijkl", "abcdefghijkl"),
        ("Basic " + base64.b64encode(b"ada:lovelace-1815").decode(), "lovelace-1815"),
        ("postgresql://u:p%40ssword-1@db/x?sslmode=verify-full", "p@ssword-1 p%40ssword-1"),
        ("https://h/mcp?api_key=abcdefghijkl", "abcdefghijkl"),
        (
            "-----BEGIN PRIVATE KEY-----\nMIIEvQIBADANBgkqhkiG9w0\nshort\n-----END PRIVATE KEY-----",
            "MIIEvQIBADANBgkqhkiG9w0",
        ),
    ],
)
def test_a_part_that_stands_for_the_whole_is_a_secret(value: str, told: str) -> None:
    known_secrets.remember("env:X", value)
    assert redact(told).replace("[redacted]", "").strip() == ""
    assert redact("verify-full -----BEGIN PRIVATE KEY-----") == "verify-full -----BEGIN PRIVATE KEY-----"


def test_a_url_that_is_no_secret_has_its_password_redacted() -> None:
    assert references.resolve_text("env:U", {"U": "https://h/mcp?token=abcdefghijkl&page=a-long-name"}).startswith(
        "https:"
    )
    assert (
        redact("https://h/mcp?token=abcdefghijkl&page=a-long-name") == "https://h/mcp?token=[redacted]&page=a-long-name"
    )


def test_no_refusal_holds_a_secret() -> None:
    known_secrets.remember("env:X", "a-secret-value")
    refusal = Refusal(
        "upstream_failed", "It said a-secret-value.", notes=("a-secret-value",), detail={"param": "a-secret-value"}
    )
    assert "a-secret-value" not in f"{refusal} {refusal.message} {refusal.notes} {refusal.detail}"
