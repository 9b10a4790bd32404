"""A database that stands still refuses nobody and answers nobody: probes and people are told all the same, and soon."""

from __future__ import annotations

import time

from tests.e2e.wiretap import Wiretap
from tests.replicas.house import Pair, until

SOON_S = 10.0


async def test_a_replica_whose_database_stands_still_is_not_ready_and_says_why(tapped: tuple[Pair, Wiretap]) -> None:
    pair, line = tapped
    here, there = pair.one.running, pair.other.running
    async with here.client() as one, there.client() as other, there.operator() as operator:
        assert (await other.get("/readyz")).status_code == 200
        line.stall()

        async def is_told() -> bool:
            return (await other.get("/readyz")).status_code == 503

        await until(is_told, "not ready", SOON_S)
        assert "database" in (await other.get("/readyz")).text
        assert (await one.get("/readyz")).status_code == 200
        began_s = time.monotonic()
        status = (await operator.get("/api/v1/status")).json()
        assert time.monotonic() - began_s < SOON_S
        assert status["state"] == "degraded"
        (reason,) = (part["reason"] for part in status["components"] if part["id"] == "database")
        assert "heartbeat" in reason
        began_s = time.monotonic()  # of a key that it does not know it can't say that there is none
        asked = await other.get("/v1/models", headers={"authorization": "Bearer gw_unknown"})
        assert asked.status_code == 503
        assert time.monotonic() - began_s < SOON_S
        line.resume()  # after so long: the other has ended it

        async def is_ended() -> bool:
            return there.app.writer.latched is not None

        await until(is_ended, "it notices")
        assert "another replica has ended this one" in (await other.get("/readyz")).text
