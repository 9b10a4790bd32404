"""Secrets leave the environment that the kernel shows, and nothing that reads the environment notices."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from gateway import environment

ROOT = Path(__file__).parents[2]

HIDE = "import sys; from gateway import environment; environment.hide()\n"
TELL = (
    "import json, os; print(json.dumps({'environ': dict(os.environ), 'argv': sys.argv, 'stdin': sys.stdin.read(),"
    " 'pid': os.getpid(), 'fds': sorted(os.listdir('/proc/self/fd')),"
    " 'shown': open('/proc/self/environ', 'rb').read().decode('utf-8', 'surrogateescape')}))"
)

linux = pytest.mark.skipif(sys.platform != "linux", reason="only Linux has /proc")


def told_by(code: str, environ: dict[str, str], **options: Any) -> tuple[int, dict[str, Any]]:
    """What a program prints, and the process id that it was started with."""
    import json

    with subprocess.Popen(
        [sys.executable, "-c", code, "a word", "--and=more"],
        env=environ,
        cwd=ROOT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        **options,
    ) as process:
        out, _ = process.communicate("for the program", timeout=60)
    assert process.returncode == 0
    return process.pid, json.loads(out)


@linux
@pytest.mark.parametrize("size", [10, 300_000])
def test_the_same_process_goes_on_with_everything_and_shows_nothing(size: int) -> None:
    odd = "caf\udce9 = 1\n"  # a byte that is no UTF-8, an equals sign, a line end
    secrets = {"OPENAI_API_KEY": "s3cret" + "x" * 10, "GATEWAY_DATABASE_URL": "postgresql://me:pass@db/x", "ODD": odd}
    secrets |= {f"BIG_{n}": "y" * 100_000 for n in range(size // 100_000)}
    given = {"PATH": os.environ["PATH"], "LANG": "C.UTF-8", **secrets}
    pid, told = told_by(HIDE + TELL, given)
    assert told["pid"] == pid
    assert {name: told["environ"][name] for name in given} == given
    assert environment.PIPE not in told["environ"]
    assert told["argv"] == ["-c", "a word", "--and=more"]
    assert told["stdin"] == "for the program"
    assert told["fds"] == ["0", "1", "2", "3"], "3 is the folder that it lists"
    assert "LANG=C.UTF-8" in told["shown"]
    for name, value in secrets.items():
        assert name not in told["shown"]
        assert value not in told["shown"]


@linux
def test_where_there_is_nothing_to_hide_it_is_not_executed_again() -> None:
    code = "import sys; sys.modules['marker'] = sys\n" + HIDE + "assert 'marker' in sys.modules\n" + TELL
    _, told = told_by(code, {"PATH": os.environ["PATH"], "HOME": "/nowhere"})
    assert told["environ"]["HOME"] == "/nowhere"


@linux
def test_a_child_gets_all_and_shows_nothing() -> None:
    code = "import sys; from gateway import environment; environment.take()\n" + TELL
    with environment.of_child({"PATH": os.environ["PATH"], "TOKEN": "s3cret"}) as (environ, descriptors):
        _, told = told_by(code, environ, pass_fds=descriptors)
    assert told["environ"]["TOKEN"] == "s3cret"
    assert "s3cret" not in told["shown"]
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.fstat(descriptors[0])


@linux
def test_memory_is_closed_to_the_same_user_without_capabilities() -> None:
    """Asked by a child of the process, of the same user, that has dropped what root could do."""
    code = HIDE + (
        "import os, subprocess\n"
        "from gateway.upstreams.confinement import privileges\n"
        "look = 'import sys; from gateway.upstreams.confinement import privileges; privileges.limit(); privileges.drop()\\n'\n"
        'look += \'for name in ("environ", "mem", "maps"):\\n\'\n'
        'look += \'    try: open("/proc/%d/%s" % (int(sys.argv[1]), name), "rb")\\n\'\n'
        "look += '    except PermissionError: continue\\n'\n"
        "look += '    sys.exit(name + \" is open\")\\n'\n"
        "subprocess.run([sys.executable, '-c', look, str(os.getpid())], check=True)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], env={"PATH": os.environ["PATH"], "TOKEN": "s3cret"}, cwd=ROOT, check=False
    )
    assert done.returncode == 0


def test_more_than_a_pipe_holds_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "write", lambda _descriptor, data: len(data) - 1)
    with pytest.raises(environment.EnvironmentTooLargeError, match="unset what the gateway does not need"):
        environment._pipe_with({"A": "b"})
