"""Honest tool servers as their users run them work confined: from npm and PyPI, by npx and by uvx, without a network."""

from __future__ import annotations

import contextlib
import http.server
import io
import json
import os
import shutil
import sys
import tarfile
import threading
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from gateway.upstreams.tool_servers import StdioServerConfig
from tests.e2e.clients import NPM, need
from tests.upstreams.tool_world import World

ROOT = Path(__file__).parents[2]
BIN = Path(sys.executable).parent

NODE_SERVER = """\
#!/usr/bin/env node
const say = (id, result) => process.stdout.write(JSON.stringify({jsonrpc: "2.0", id, result}) + "\\n");
require("readline").createInterface({input: process.stdin}).on("line", (line) => {
  const {id, method, params} = JSON.parse(line);
  if (method === "initialize") say(id, {protocolVersion: "2024-11-05", capabilities: {tools: {}}});
  else if (method === "tools/list") say(id, {tools: [{name: "where", inputSchema: {type: "object"}}]});
  else if (method === "tools/call") say(id, {content: [{type: "text", text: __filename}]});
  else if (id !== undefined) process.stdout.write(JSON.stringify({jsonrpc: "2.0", id, error: {code: -32601, message: method}}) + "\\n");
});
"""
PYTHON_SERVER = """\
import json, sys
def say(id, **more): print(json.dumps({"jsonrpc": "2.0", "id": id, **more}), flush=True)
def main():
    for line in sys.stdin:
        told = json.loads(line)
        id, method = told.get("id"), told.get("method")
        if method == "initialize":
            say(id, result={"protocolVersion": "2024-11-05", "capabilities": {"tools": {}}})
        elif method == "tools/list":
            say(id, result={"tools": [{"name": "where", "inputSchema": {"type": "object"}}]})
        elif method == "tools/call":
            say(id, result={"content": [{"type": "text", "text": __file__}]})
        elif id is not None:
            say(id, error={"code": -32601, "message": method})
"""


def found(program: str, *places: Path) -> str:
    """The program, or the end of the test where it is not installed."""
    path = os.pathsep.join([*map(str, places), os.environ["PATH"]])
    where = shutil.which(program, path=path)
    if where is None:
        if os.environ.get("GATEWAY_TEST_STRICT") == "1":
            pytest.fail(f"{program} is not installed")
        pytest.skip(f"{program} is not installed")
    return where


def server(*command: str, write: tuple[str, ...] = (), read: tuple[str, ...] = (), **env: str) -> StdioServerConfig:
    return StdioServerConfig("s", command, tuple(env.items()), None, 30.0, read=read, write=write, mode="required")


async def test_the_filesystem_server_from_npm(tmp_path: Path) -> None:
    need(NPM)
    shared = tmp_path / "shared"
    shared.mkdir()
    (shared / "a.txt").write_text("hello")
    (tmp_path / "beside.txt").write_text("not for it")
    script = NPM / "node_modules/@modelcontextprotocol/server-filesystem/dist/index.js"
    async with World() as world:
        await world.connect(server(found("node"), str(script), str(shared), write=(str(shared),)))
        assert {"read_text_file", "write_file", "list_directory"} <= set(world.names())
        assert "hello" in str(await world.call("read_text_file", path=str(shared / "a.txt")))
        await world.call("write_file", path=str(shared / "b.txt"), content="written")
        assert (shared / "b.txt").read_text() == "written"
        await world.call("move_file", source=str(shared / "b.txt"), destination=str(shared / "c.txt"))
        assert "c.txt" in str(await world.call("list_directory", path=str(shared)))
        assert (await world.reply("read_text_file", path=str(tmp_path / "beside.txt"))).headers == {"is-error": "true"}


@contextlib.contextmanager
def a_web_page() -> Iterator[str]:
    class Page(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            body = b"<html><body><article><h1>Page</h1><p>A paragraph to find again.</p></article></body></html>"
            self.send_response(404 if "robots" in self.path else 200)
            self.send_header("content-type", "text/html")
            self.send_header("content-length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None: ...

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Page) as site:
        thread = threading.Thread(target=site.serve_forever)
        thread.start()
        yield f"http://localhost:{site.server_address[1]}/page"
        site.shutdown()
        thread.join()


async def test_the_fetch_server_from_pypi() -> None:
    program = ROOT / ".venv-git/bin/mcp-server-fetch"
    with a_web_page() as url:
        async with World() as world:
            # Where it finds Node, it installs packages of npm beside its own code first; else it does without.
            env = {"PATH": str(program.parent), "NO_PROXY": "localhost"}
            own = server(found(str(program)), "--allow-private-ips")
            await world.connect(own._replace(env=tuple(env.items())))
            assert "A paragraph to find again." in str(await world.call("fetch", url=url))


async def test_a_package_that_npx_unpacks_into_its_cache(tmp_path: Path) -> None:
    npx = found("npx")
    package = {"name": "where-server", "version": "1.0.0", "bin": {"where-server": "server.js"}}
    archive = tmp_path / "where-server-1.0.0.tgz"
    with tarfile.open(archive, "w:gz") as tar:
        for name, text, mode in (("package.json", json.dumps(package), 0o644), ("server.js", NODE_SERVER, 0o755)):
            entry = tarfile.TarInfo(f"package/{name}")
            entry.size, entry.mode = len(text), mode
            tar.addfile(entry, io.BytesIO(text.encode()))
    words = ("--yes", "--offline", f"--package={archive}", "where-server")
    async with World(homes=tmp_path / "homes") as world:
        await world.connect(server(npx, *words, read=(str(archive),)))
        where = (await world.call("where"))["content"][0]["text"]
        assert Path(where).is_relative_to(tmp_path / "homes" / "s" / ".npm"), "kept in its own home, for the next start"


async def test_a_package_that_uvx_installs_into_its_cache(tmp_path: Path) -> None:
    uvx = found("uvx", BIN)
    wheel = tmp_path / "where_server-1.0.0-py3-none-any.whl"
    info = "where_server-1.0.0.dist-info"
    files = {
        "where_server.py": PYTHON_SERVER,
        f"{info}/METADATA": "Metadata-Version: 2.1\nName: where-server\nVersion: 1.0.0\n",
        f"{info}/WHEEL": "Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
        f"{info}/entry_points.txt": "[console_scripts]\nwhere-server = where_server:main\n",
    }
    with zipfile.ZipFile(wheel, "w") as packed:
        for name, text in files.items():
            packed.writestr(name, text)
        packed.writestr(f"{info}/RECORD", "".join(f"{name},,\n" for name in [*files, f"{info}/RECORD"]))
    python = Path(sys.executable).resolve()
    words = ("--offline", "--no-config", "--python", str(python), "--from", str(wheel), "where-server")
    async with World(homes=tmp_path / "homes") as world:
        prefix = str(python.parent.parent)
        await world.connect(server(uvx, *words, read=(prefix,)))
        where = (await world.call("where"))["content"][0]["text"]
        assert Path(where).is_relative_to(tmp_path / "homes" / "s" / ".cache" / "uv")
