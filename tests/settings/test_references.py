"""References to secrets: followed late, never shown, and refused with a reason where they lead nowhere."""

from __future__ import annotations

from pathlib import Path

import pytest

from gateway.references import Secret, UnresolvedReference, is_reference, resolve, resolve_text


def test_an_environment_variable_is_followed_when_asked() -> None:
    secret = Secret("env:K")
    assert secret.resolve({"K": " s3cret\n"}) == "s3cret"
    assert "s3cret" not in repr(secret)


def test_a_file_is_followed_without_its_last_line_end(tmp_path: Path) -> None:
    file = tmp_path / "key"
    file.write_text("s3cret\n")
    assert resolve(f"file:{file}") == "s3cret"


@pytest.mark.parametrize(
    ("reference", "reason"),
    [
        ("env:", "name of an environment variable"),
        ("env:A-B", "name of an environment variable"),
        ("env:UNSET_FOR_SURE", "is not set"),
        ("file:relative", "absolute path"),
        ("file:/nowhere/at/all", "cannot be read"),
        ("keyring:a/b", "not supported yet"),
        ("vault:a#b", "not supported yet"),
        ("sk-abcdef", "must be a reference"),
        ("", "must be a reference"),
    ],
)
def test_what_leads_nowhere_says_why_and_no_value(reference: str, reason: str) -> None:
    with pytest.raises(UnresolvedReference, match=reason) as caught:
        resolve(reference, {})
    assert "abcdef" not in str(caught.value)


def test_an_empty_variable_or_file_is_not_a_secret(tmp_path: Path) -> None:
    file = tmp_path / "empty"
    file.write_text("\n")
    for reference, environ in (("env:K", {"K": " "}), (f"file:{file}", {})):
        with pytest.raises(UnresolvedReference):
            resolve(reference, environ)


def test_a_binary_or_giant_file_is_refused(tmp_path: Path) -> None:
    binary, giant = tmp_path / "b", tmp_path / "g"
    binary.write_bytes(b"\xff\xfe")
    giant.write_bytes(b"a" * 100_000)
    for file in (binary, giant):
        with pytest.raises(UnresolvedReference):
            resolve(f"file:{file}")


def test_plain_text_is_itself() -> None:
    assert resolve_text("http://x") == "http://x"
    assert resolve_text("env:K", {"K": "v"}) == "v"
    assert is_reference("vault:x")
    assert not is_reference("http://x")
