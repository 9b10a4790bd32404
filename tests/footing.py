"""What a whole gateway in a test stands on: its own folder, or with GATEWAY_TEST_FOOTING=shared what replicas share.

`make test-shared` runs houses that were written for one gateway on real PostgreSQL and Redis: they must not notice.
"""

from __future__ import annotations

import asyncio
import os
from pathlib import Path

import pytest
from pydantic import SecretStr

from gateway.audit.appending import Appending
from gateway.keys import make_keys
from gateway.process import Process

ORIGIN = "gateway.local/audit/default"
PUBLIC_URL = "http://gateway.test"
"""What clients in the test's own process call a gateway."""
IS_SHARED = os.environ.get("GATEWAY_TEST_FOOTING") == "shared"


def process_in(folder: Path, request: pytest.FixtureRequest) -> Process:
    """A process with its data and its configuration in `folder`."""
    process = Process(data_dir=folder / "var", config=folder / "gateway.yaml", public_url=PUBLIC_URL)
    if not IS_SHARED:
        return process
    keys = folder / "keys"
    make_keys(keys, ORIGIN, is_new=True)
    shared = {
        "database_url": SecretStr(request.getfixturevalue("postgres_url")),
        "redis_url": SecretStr(request.getfixturevalue("redis_url")),
        "keys_dir": keys,
    }
    return process.model_copy(update=shared)


async def placed_and_signed(log: Appending) -> None:
    """Until a verifier finds what has been recorded so far; replicas place and sign in the background."""
    await log.caught_up()
    async with asyncio.timeout(20):
        while IS_SHARED and log.signed_size < log.size:
            await asyncio.sleep(0.05)
