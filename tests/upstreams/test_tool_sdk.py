"""Tool servers built on the real MCP SDK, and the real mcp-server-git in an environment of its own."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from gateway.upstreams.tool_servers import StdioServerConfig
from tests.upstreams.tool_world import World, http

SERVER = Path(__file__).with_name("sdk_server.py")
ROOT = Path(__file__).parents[2]


@contextlib.asynccontextmanager
async def sdk_over_http(*words: str) -> AsyncIterator[tuple[str, asyncio.subprocess.Process]]:
    process = await asyncio.create_subprocess_exec(
        sys.executable, str(SERVER), "http", *words, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
    )
    assert process.stdout is not None
    try:
        yield (await process.stdout.readline()).decode().strip(), process
    finally:
        with contextlib.suppress(ProcessLookupError):
            process.kill()
        await process.wait()


async def echoes(world: World) -> None:
    result = await world.call("echo", region="eu wést", n=3)
    assert json.loads(result["content"][0]["text"]) == {"region": "eu wést", "n": 3}
    assert result["structuredContent"] == {"ok": True}


@pytest.mark.parametrize("era", ["modern", "legacy"])
async def test_an_sdk_server_over_http_works_in_both_eras_and_dies_cleanly(era: str) -> None:
    async with sdk_over_http(era) as (url, process), World() as world:
        await world.connect(http(url))
        assert world.names() == ["echo", "die"]
        version = world.servers._links["s"]._server._conversation.version  # type: ignore[union-attr]
        assert version == ("2026-07-28" if era == "modern" else "2025-11-25")
        await asyncio.gather(*(echoes(world) for _ in range(10)))
        refusal = await world.refused("die")
        assert (refusal.code, refusal.detail["dispatched"]) == ("upstream_failed", "unknown")
        await process.wait()


async def test_an_sdk_server_over_stdio_works_and_is_started_again_when_it_dies() -> None:
    async with World() as world:
        await world.connect(StdioServerConfig("s", (sys.executable, str(SERVER), "stdio"), (), None, 10.0))
        await echoes(world)
        assert "exit status 9" in (await world.refused("die")).message
        world.reports.clear()
        await world.until(lambda: "connected" in world.states())
        await echoes(world)


def git_server() -> Path:
    """mcp-server-git in its own environment, which `make test` makes."""
    program = ROOT / ".venv-git/bin/mcp-server-git"
    if not program.is_file():
        reason = "mcp-server-git is not installed; run: make .venv-git/.made"
        if os.environ.get("GATEWAY_TEST_STRICT") == "1":
            pytest.fail(reason)
        pytest.skip(reason)
    return program


async def test_the_real_git_server_works_on_a_real_repository(tmp_path: Path) -> None:
    program = git_server()
    env = {"PATH": os.environ["PATH"], "HOME": str(tmp_path), "GIT_CONFIG_GLOBAL": "/dev/null"}
    env |= {f"GIT_{who}_{what}": "tester@example.com" for who in ("AUTHOR", "COMMITTER") for what in ("NAME", "EMAIL")}

    def git(*words: str) -> str:
        return subprocess.run(
            ["git", "-C", str(tmp_path), *words], check=True, capture_output=True, text=True, env=env
        ).stdout

    git("init", "-q", "-b", "main")
    (tmp_path / "a.txt").write_text("hello\n")
    words = (str(program), "--repository", str(tmp_path))
    config = StdioServerConfig("s", words, tuple(env.items()), None, 30.0, write=(str(tmp_path),))
    async with World() as world:
        await world.connect(config)
        declared = set(_declared_git_tools())
        assert declared <= set(world.names())
        repository = str(tmp_path)
        assert "a.txt" in str(await world.call("git_status", repo_path=repository))
        await world.call("git_add", repo_path=repository, files=["a.txt"])
        await world.call("git_commit", repo_path=repository, message="first")
        assert "first" in git("log", "--format=%s")
        elsewhere = await world.reply("git_status", repo_path="/")
        assert elsewhere.headers == {"is-error": "true"}, "it may touch its own repository only"


def _declared_git_tools() -> list[str]:
    import yaml

    return list(yaml.safe_load((ROOT / "tools_registry/git.yaml").read_text())["tools"])
