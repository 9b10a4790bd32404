"""login --key: a sign-in link that its person made, admitted by their signature."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import typer

from gateway.commands.client import ask, running_at, told
from gateway.commands.shared import CommandError


def link(key_file: Path, person: str, url: str | None, next_page: str | None, data_dir: Path) -> dict[str, Any]:
    """The link, as the API answers for one. `url`: of the gateway; None: of the one that runs on `data_dir`.

    Raises CommandError.
    """
    from gateway.identity.sign_in_keys import HEADER, proof

    base = running_at(data_dir) if url is None else url.rstrip("/")
    secret, value = proof(_key(key_file), urlsplit(base).netloc, person, time.time(), os.urandom)
    params = {} if next_page is None else {"next": next_page}
    response = ask("POST", f"{base}/api/v1/sign-in/key", headers={HEADER: value}, params=params)
    if not response.is_success:
        raise CommandError(told(response))
    made: dict[str, Any] = response.json()
    return {**made, "url": made["url"].replace("token=", f"token={secret}", 1)}


def _key(path: Path) -> Any:
    from gateway.identity.sign_in_keys import private_key

    try:
        try:
            return private_key(path.expanduser())
        except TypeError:  # it has a passphrase
            typed: str = typer.prompt(f"Passphrase of {path}", hide_input=True, err=True)
            return private_key(path.expanduser(), typed.encode())
    except OSError as error:
        raise CommandError(f"The key {path} can't be read: {error.strerror}.") from error
    except Exception as error:
        raise CommandError(
            f"The key {path} can't be used ({error}); give an ed25519 key as OpenSSH writes it."
        ) from error
