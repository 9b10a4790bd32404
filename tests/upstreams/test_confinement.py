"""A malicious tool server finds nothing but what its manifest gives it, and honest ones don't notice."""

from __future__ import annotations

import contextlib
import json
import os
import pwd
import shutil
import socket
import subprocess
import sys
import tempfile
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest

from gateway.upstreams.confinement import landlock, starting
from gateway.upstreams.confinement.launcher import HEAD_BYTES
from gateway.upstreams.confinement.plan import CODE, Guarded
from gateway.upstreams.confinement.program import SYSTEM
from gateway.upstreams.confinement.support import LEAST_ABI, SCOPED_ABI, Support, support
from gateway.upstreams.tool_servers import StdioServerConfig
from tests.upstreams.tool_world import World

ROOT = Path(__file__).parents[2]
SERVER = Path(__file__).with_name("malicious_server.py")
REFUSED = {"EACCES", "EPERM"}
NOTHING = Support(0, "Landlock is missing or forbidden here")

needs_landlock = pytest.mark.skipif(
    support().landlock < LEAST_ABI, reason=f"this kernel has no Landlock of ABI {LEAST_ABI} (Linux 6.2)"
)
needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root may start a program as another user")


class Cell:
    """A data directory as a gateway has one, and a malicious server beside it. `try_to` is a tool call."""

    def __init__(self, world: World, data_dir: Path, work: Path) -> None:
        self.world = world
        self.data_dir = data_dir
        self.work = work

    async def try_to(self, how: str, **given: Any) -> Any:
        """What the server came to: its answer, or the name of an error number."""
        result = await self.world.call("attempt", how=how, **given)
        told = json.loads(result["content"][0]["text"])
        return told["did"] if "did" in told else told["failed"]


def config(work: Path, data_dir: Path, *words: str, **more: Any) -> StdioServerConfig:
    command = (sys.executable, "-S", str(SERVER), *words)
    guarded = Guarded((data_dir, data_dir / "keys", *more.pop("secret", ())), tuple(more.pop("fixed", ())))
    env = tuple(more.pop("env", {}).items())
    return StdioServerConfig("s", command, env, more.pop("cwd", work), 30.0, guarded=guarded, **more)


def data_dir_in(folder: Path) -> Path:
    data_dir = folder / "var"
    for name in ("operator.token", "gateway.db", "keys/signing.key", "audit/checkpoint"):
        file = data_dir / name
        file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        file.write_text("secret")
        file.chmod(0o600)
    return data_dir


@contextlib.asynccontextmanager
async def cell(folder: Path, lacks: Support | None = None, **more: Any) -> AsyncIterator[Cell]:
    data_dir, work = data_dir_in(folder), folder / "work"
    work.mkdir()
    async with World(homes=data_dir / "tool-servers", lacks=lacks) as world:
        await world.connect(config(work, data_dir, **more))
        yield Cell(world, data_dir, work)


@pytest.fixture(name="sibling")
def a_process_with_a_secret_in_its_environment() -> Iterator[int]:
    """Of the same user, as a gateway that does not clean its environment or another tool server would be."""
    words = [sys.executable, "-c", "import sys; print(flush=True); sys.stdin.read()"]
    with subprocess.Popen(words, env={"TOKEN": "secret"}, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        process.stdout.readline()
        assert b"secret" in Path(f"/proc/{process.pid}/environ").read_bytes()
        yield process.pid
        process.kill()


@needs_landlock
async def test_files_outside_its_folders_are_closed_to_it(tmp_path: Path) -> None:
    (tmp_path / "beside").write_text("secret")
    home = Path.home()
    async with cell(tmp_path) as it:
        for name in ("operator.token", "keys/signing.key", "gateway.db", "audit/checkpoint"):
            path = str(it.data_dir / name)
            for how in ("read", "write", "truncate", "unlink"):
                assert await it.try_to(how, path=path) in REFUSED, (how, path)
            assert await it.try_to("link", path=path, to=str(it.work / "link")) in REFUSED | {"EXDEV"}
            assert await it.try_to("rename", path=path, to=str(it.work / "moved")) in REFUSED | {"EXDEV"}
        for folder in (it.data_dir, it.data_dir / "keys", tmp_path, home, Path("/"), Path("/tmp"), Path("/proc")):
            assert await it.try_to("list", path=str(folder)) in REFUSED, folder
        assert await it.try_to("read", path=str(tmp_path / "beside")) in REFUSED
        for place in (tmp_path / "planted", CODE[0] / "planted.py", Path("/etc/planted"), Path("/tmp/planted")):
            assert await it.try_to("write", path=str(place)) in REFUSED, place
        (it.work / "way-out").symlink_to(it.data_dir / "operator.token")
        assert await it.try_to("read", path=str(it.work / "way-out")) in REFUSED
        told = await it.try_to("run", words=["/bin/sh", "-c", f"cat {it.data_dir}/operator.token"])
        assert told.startswith("1 ")
        assert "Permission denied" in told
        assert (it.data_dir / "operator.token").read_text() == "secret"


@needs_landlock
async def test_other_processes_are_closed_to_it(tmp_path: Path, sibling: int) -> None:
    gateway = os.getpid()
    async with cell(tmp_path) as it:
        for pid in (gateway, sibling, 1):
            for name in ("environ", "mem", "maps", "cmdline", "fd/0"):
                assert await it.try_to("read", path=f"/proc/{pid}/{name}") in REFUSED, name
            assert await it.try_to("attach", pid=pid) in REFUSED
        assert "secret" not in str(await it.try_to("environ"))


@needs_landlock
async def test_one_server_is_closed_to_another(tmp_path: Path) -> None:
    async with cell(tmp_path, env={"OWN": "for-s-alone"}) as it:
        await it.world.call("attempt", how="write", path="note", text="of s")
        other = config(tmp_path / "other", it.data_dir)._replace(server="t")
        (tmp_path / "other").mkdir()
        it.world.servers.configure([config(it.work, it.data_dir, env={"OWN": "for-s-alone"}), other])
        await it.world.until(lambda: ("t", "connected", "") in it.world.reports)
        pid = await it.try_to("pid")

        async def other_tries(how: str, **given: Any) -> str:
            reply = await it.world.servers.call("t", "attempt", {"how": how, **given})
            told = json.loads(json.loads(reply.body)["content"][0]["text"])
            return str(told.get("did", told.get("failed")))

        for name in ("environ", "mem", "cmdline"):
            assert await other_tries("read", path=f"/proc/{pid}/{name}") in REFUSED
        assert await other_tries("attach", pid=pid) in REFUSED
        assert await other_tries("read", path=str(it.work / "note")) in REFUSED
        assert await other_tries("list", path=str(it.data_dir / "tool-servers" / "s")) in REFUSED
        assert "for-s-alone" in Path(f"/proc/{pid}/environ").read_text(), "or the attempts above prove nothing"


@pytest.mark.skipif(support().landlock < SCOPED_ABI, reason=f"needs Landlock of ABI {SCOPED_ABI} (Linux 6.12)")
async def test_signals_and_abstract_sockets_end_at_its_own_processes(tmp_path: Path, sibling: int) -> None:
    name = f"gateway-test-{os.getpid()}"
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind("\0" + name)
        listening.listen()
        async with cell(tmp_path) as it:
            for pid in (os.getpid(), sibling):
                assert await it.try_to("signal", pid=pid) == "EPERM"
            assert await it.try_to("abstract", name=name) == "EPERM"
            told = await it.try_to("run", words=["/bin/sh", "-c", "sleep 60 & kill $! && echo ended"])
            assert "ended" in told, "its own processes are its own"


@pytest.mark.parametrize("lacks", [None, NOTHING])
async def test_no_privilege_is_left_with_and_without_landlock(tmp_path: Path, lacks: Support | None) -> None:
    async with cell(tmp_path, lacks=lacks) as it:
        found = await it.try_to("status")
        assert found["NoNewPrivs"] == "1"
        sets = {name: int(bits, 16) for name, bits in found.items() if name.startswith("Cap")}
        if os.geteuid() != 0:
            del sets["CapBnd"]  # whoever lacks CAP_SETPCAP can't shrink it; no_new_privs keeps it from mattering
        assert set(sets.values()) == {0}
        assert await it.try_to("descriptors") == ["0", "1", "2", "3"], "3 is the folder that it lists"
        if lacks is None and support().landlock:
            assert await it.try_to("namespace") in REFUSED


@needs_root
async def test_without_landlock_dropped_capabilities_still_close_memory_that_forbids_inspection(tmp_path: Path) -> None:
    words = ["import ctypes, sys; ctypes.CDLL(None).prctl(4, 0, 0, 0, 0); print(flush=True); sys.stdin.read()"]
    with subprocess.Popen(
        [sys.executable, "-c", *words], env={"TOKEN": "secret"}, stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as process:
        assert process.stdout is not None
        process.stdout.readline()
        async with cell(tmp_path, lacks=NOTHING) as it:
            for name in ("environ", "mem", "maps"):
                assert await it.try_to("read", path=f"/proc/{process.pid}/{name}") in REFUSED, name
            assert await it.try_to("attach", pid=process.pid) in REFUSED
        process.kill()


@needs_landlock
def test_the_launcher_confines_a_plain_user_as_well(tmp_path: Path) -> None:
    """Most gateways are not run by root; nor is this one, then, nor the process beside it."""
    python = shutil.which("python3", path="/usr/bin:/bin")
    if python is None:
        pytest.skip("this system has no python3 that every user may execute")
    plain: dict[str, Any] = (
        {} if os.geteuid() != 0 else {"user": "nobody", "group": pwd.getpwnam("nobody").pw_gid, "extra_groups": []}
    )
    for folder in (tmp_path, *tmp_path.parents):
        if folder.is_relative_to(tempfile.gettempdir()) and folder != Path(tempfile.gettempdir()):
            folder.chmod(0o755)
    script, secret = tmp_path / "server.py", tmp_path / "secret"
    shutil.copy(SERVER, script)
    secret.write_text("secret")
    reading, writing = os.pipe()
    waiting = [python, "-c", "import sys; print(flush=True); sys.stdin.read()"]
    with (
        subprocess.Popen(
            waiting, env={"TOKEN": "s"}, stdin=subprocess.PIPE, stdout=subprocess.PIPE, **plain
        ) as sibling,
        subprocess.Popen(
            [python, "-I", "-S", "-c", starting._LAUNCHER, str(ROOT), str(writing)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            pass_fds=(writing,),
            cwd="/",
            **plain,
        ) as launched,
    ):
        os.close(writing)
        assert sibling.stdout is not None
        sibling.stdout.readline()
        rules = [(str(path.resolve()), landlock.READ) for path in (*SYSTEM, script) if path.exists()]
        orders: dict[str, Any] = {
            "program": python,
            "command": [python, "-S", str(script)],
            "env": {},
            "cwd": "/",
            "user": None,
        }
        line = json.dumps({**orders, "landlock": support().landlock, "rules": rules}).encode()
        calls = [
            {"how": "status"},
            {"how": "read", "path": str(secret)},
            *({"how": "read", "path": f"/proc/{sibling.pid}/{name}"} for name in ("environ", "mem", "maps")),
            {"how": "attach", "pid": sibling.pid},
        ]
        messages = [{"id": n, "method": "tools/call", "params": {"arguments": call}} for n, call in enumerate(calls)]
        told, _ = launched.communicate(
            len(line).to_bytes(HEAD_BYTES, "big")
            + line
            + b"".join(json.dumps(one).encode() + b"\n" for one in messages),
            timeout=30,
        )
        assert os.read(reading, 1000) == b"", "the launcher says nothing where all is well"
        os.close(reading)
        answers = [json.loads(json.loads(one)["result"]["content"][0]["text"]) for one in told.splitlines()]
        sibling.kill()
    status, *attempts = answers
    assert {int(status["did"][name], 16) for name in ("CapPrm", "CapEff", "CapInh", "CapAmb")} == {0}
    assert status["did"]["NoNewPrivs"] == "1"
    assert len(attempts) == len(calls) - 1
    assert {one.get("failed") for one in attempts} <= REFUSED


# ---------------------------------------------------------------- what it does get


@needs_landlock
async def test_its_own_folders_are_its_own(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "given").write_text("to read")
    (tmp_path / "out").mkdir()
    async with cell(tmp_path, read=(str(tmp_path / "in"),), write=(str(tmp_path / "out"),)) as it:
        own = await it.try_to("environ")
        assert Path(own["HOME"]) == it.data_dir / "tool-servers" / "s"
        for folder in (own["HOME"], own["TMPDIR"], str(it.work), str(tmp_path / "out")):
            assert await it.try_to("write", path=f"{folder}/a") == "written"
            assert await it.try_to("rename", path=f"{folder}/a", to=f"{it.work}/b") == "renamed", "also between folders"
            assert await it.try_to("unlink", path=f"{it.work}/b") is None
        assert await it.try_to("cwd") == str(it.work)
        assert await it.try_to("read", path=str(tmp_path / "in" / "given")) == "to read"
        assert await it.try_to("write", path=str(tmp_path / "in" / "given")) in REFUSED
        assert await it.try_to("write", path=f"{own['HOME']}/kept") == "written"
        assert await it.try_to("run", words=["/bin/sh", "-c", "cd $TMPDIR && mkdir shut && chmod 0 shut"]) == "0 "
        temporary = Path(own["TMPDIR"])
        assert temporary.is_dir()
    assert not temporary.parent.exists()
    assert (it.data_dir / "tool-servers" / "s" / "kept").exists()


async def test_what_a_killed_gateway_left_is_removed_by_the_next(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    left = tmp_path / "gateway-tool-of-a-dead-one"
    (left / "tmp" / "deep").mkdir(parents=True)
    async with cell(tmp_path) as it:
        assert not left.exists()
        await it.try_to("write", path="x")
        assert len(list(tmp_path.glob("gateway-tool-*"))) == 1
    assert not list(tmp_path.glob("gateway-tool-*"))


@needs_landlock
async def test_system_configuration_is_readable_but_not_what_only_root_may_read(tmp_path: Path) -> None:
    async with cell(tmp_path) as it:
        assert "root:" in await it.try_to("read", path="/etc/passwd")
        assert await it.try_to("read", path="/etc/shadow") in REFUSED | {"ENOENT"}
        assert "usr" in str(await it.try_to("run", words=["/bin/sh", "-c", "command -v sh; echo /usr"]))
        assert await it.try_to("write", path="/dev/null") == "written"
        assert await it.try_to("read", path="/dev/kmsg") in REFUSED | {"ENOENT"}


@needs_landlock
async def test_a_secret_file_in_a_system_folder_is_left_out(tmp_path: Path) -> None:
    """Here: below the folder of the interpreter, which every server gets."""
    venv = tmp_path / "venv"
    (venv / "bin").mkdir(parents=True)
    (venv / "pyvenv.cfg").write_text(f"home = {Path(sys.executable).resolve().parent}\n")
    (venv / "bin" / "python").symlink_to(Path(sys.executable).resolve())
    for name in ("key", "open"):
        (venv / "secrets" / name).parent.mkdir(exist_ok=True)
        (venv / "secrets" / name).write_text("secret")
    async with cell(tmp_path) as it:
        own = config(it.work, it.data_dir, secret=(venv / "secrets" / "key",))
        own = own._replace(command=(str(venv / "bin" / "python"), "-S", str(SERVER)))
        it.world.reports.clear()
        it.world.servers.configure([own])
        await it.world.until(lambda: "connected" in it.world.states())
        assert await it.try_to("read", path=str(venv / "secrets" / "key")) in REFUSED
        assert await it.try_to("read", path=str(venv / "secrets" / "open")) == "secret"


@needs_landlock
async def test_a_server_can_not_widen_what_its_next_start_gives_it(tmp_path: Path) -> None:
    """It owns its working folder, and with it links, a script's first line and the description of an environment."""
    work, secret = tmp_path / "work", tmp_path / "private"
    secret.mkdir()
    (secret / "key").write_text("secret")
    (secret / "bin").mkdir()
    (secret / "bin" / "key").write_text("secret")
    venv = work / "venv"
    (venv / "bin").mkdir(parents=True)
    (venv / "bin" / "python").symlink_to("/usr/bin/python3")
    (venv / "pyvenv.cfg").write_text(f"home = {work / 'fake'}\n")
    (work / "fake").mkdir()
    (work / "fake" / "python3").symlink_to(secret / "key")
    (work / "shared").symlink_to(secret)
    (work / "argument").symlink_to(secret / "key")
    (work / "server.py").symlink_to(SERVER)
    if not Path("/usr/bin/python3").exists():
        pytest.skip("this system has no /usr/bin/python3")
    data_dir = data_dir_in(tmp_path)
    async with World(homes=data_dir / "tool-servers") as world:
        own = config(work, data_dir, read=(str(work / "shared"), str(SERVER)), write=(str(work / "shared" / "bin"),))
        command = (str(venv / "bin" / "python"), "-S", str(work / "server.py"), str(work / "argument"))
        await world.connect(own._replace(command=command))
        it = Cell(world, data_dir, work)
        for path in (secret / "key", secret / "bin" / "key", work / "shared" / "key", work / "argument"):
            assert await it.try_to("read", path=str(path)) in REFUSED, path


@needs_root
@pytest.mark.parametrize("lacks", [None, NOTHING])
async def test_it_runs_as_another_user_where_that_is_configured(tmp_path: Path, lacks: Support | None) -> None:
    python = shutil.which("python3", path="/usr/bin:/bin")
    if python is None:
        pytest.skip("this system has no python3 that every user may execute")
    for folder in (tmp_path, *tmp_path.parents):
        if folder.is_relative_to(tempfile.gettempdir()) and folder != Path(tempfile.gettempdir()):
            folder.chmod(0o755)
    script = tmp_path / "server.py"
    shutil.copy(SERVER, script)
    data_dir, nobody = data_dir_in(tmp_path), pwd.getpwnam("nobody")
    async with World(homes=data_dir / "tool-servers", lacks=lacks) as world:
        own = config(tmp_path, data_dir, cwd=None, user="nobody", env={"GIVEN": "secret"})
        await world.connect(own._replace(command=(python, "-S", str(script))))
        it = Cell(world, data_dir, tmp_path)
        found = await it.try_to("status")
        assert found["Uid"].split() == [str(nobody.pw_uid)] * 4
        assert set(found["Groups"].split()) == {str(one) for one in os.getgrouplist("nobody", nobody.pw_gid)}
        assert int(found["CapEff"], 16) == 0
        assert await it.try_to("read", path=str(data_dir / "operator.token")) in REFUSED
        assert await it.try_to("read", path=f"/proc/{os.getpid()}/environ") in REFUSED
        assert await it.try_to("write", path="in-its-home") == "written"
        home = Path((await it.try_to("environ"))["HOME"])
    assert not home.exists(), "the data directory is closed to it, so its home is temporary"


# ---------------------------------------------------------------- what is refused


async def refusal(folder: Path, lacks: Support | None = None, **more: Any) -> str:
    """Why a server is not started."""
    data_dir, work = data_dir_in(folder), folder / "work"
    work.mkdir(exist_ok=True)
    async with World(homes=data_dir / "tool-servers", lacks=lacks) as world:
        world.servers.configure([config(work, data_dir, **more)])
        await world.until(lambda: "unreachable" in world.states())
        return next(reason for _, state, reason in world.reports if state == "unreachable")


async def test_a_folder_that_holds_secrets_or_what_the_gateway_runs_by_is_not_given_away(tmp_path: Path) -> None:
    var = tmp_path / "var"
    (tmp_path / "to-var").symlink_to(var)
    (tmp_path / "rules").mkdir()
    token = tmp_path / "work" / "token"
    assert "contains" in await refusal(tmp_path, cwd=tmp_path)
    assert "which holds secrets" in await refusal(tmp_path, write=(str(tmp_path / "to-var"),))
    assert "which holds secrets" in await refusal(tmp_path, read=(str(var / "audit"),))
    assert "which holds secrets" in await refusal(tmp_path, secret=(token,))
    assert "could change what confines it" in await refusal(
        tmp_path, write=(str(tmp_path / "rules"),), fixed=(tmp_path / "rules" / "gateway.yaml",)
    )
    assert "could change what confines it" in await refusal(tmp_path, write=(str(CODE[0].parent),))
    assert "does not exist" in await refusal(tmp_path, read=(str(tmp_path / "missing"),))


@pytest.mark.parametrize("lacks", [NOTHING, Support(2, "the Landlock of this kernel is too old")])
async def test_required_refuses_where_the_system_can_not_confine(tmp_path: Path, lacks: Support) -> None:
    why = await refusal(tmp_path, lacks=lacks, mode="required")
    assert "must be confined" in why
    assert lacks.shortfall is not None
    assert lacks.shortfall in why


async def test_best_effort_goes_on_and_says_which_servers_are_not_confined(tmp_path: Path) -> None:
    async with cell(tmp_path, lacks=NOTHING) as it:
        assert it.world.servers.unconfined() == ["s"]
        assert await it.try_to("read", path=str(it.data_dir / "operator.token")) == "secret", "nothing else is promised"


async def test_off_runs_it_as_any_child(tmp_path: Path) -> None:
    async with cell(tmp_path, mode="off") as it:
        assert it.world.servers.unconfined() == []
        assert (await it.try_to("environ"))["HOME"] == "/nowhere"
        assert (await it.try_to("status"))["NoNewPrivs"] == "0"


@pytest.mark.parametrize(
    ("command", "why"),
    [
        (("no-such-program",), "there is no program no-such-program"),
        (("/etc/passwd",), "there is no program /etc/passwd"),
        ((str(SERVER.parent),), "there is no program"),
    ],
)
async def test_a_program_that_can_not_be_started_says_why(tmp_path: Path, command: tuple[str, ...], why: str) -> None:
    data_dir = data_dir_in(tmp_path)
    async with World(homes=data_dir / "tool-servers") as world:
        world.servers.configure([config(tmp_path / "var-not", data_dir, cwd=None)._replace(command=command)])
        await world.until(lambda: "unreachable" in world.states())
        assert why in next(reason for _, state, reason in world.reports if state == "unreachable")


async def test_an_unknown_user_says_why(tmp_path: Path) -> None:
    assert "no user nobody-of-that-name" in await refusal(tmp_path, user="nobody-of-that-name")


def test_versions_of_landlock_handle_what_they_know() -> None:
    assert landlock.handled(1) == (1 << 13) - 1
    assert landlock.handled(3) == (1 << 15) - 1
    assert landlock.handled(LEAST_ABI) & landlock.TRUNCATE
    assert landlock.handled(7) == (1 << 16) - 1
