"""The bench of docs/performance.md: direct, through the gateway, and through LiteLLM's proxy, in one run.

usage: python -m bench.run [--rounds N] [--seconds S] [--without-litellm] [--versus CHECKOUT] [--out FILE]
--versus: another checkout of the gateway (with its own .venv) takes its turn too, and the ratios are printed.
Each subject is pinned to core 0; the mock upstream and the load to core 1. Subjects take turns within a round, and
every figure is the median over the rounds. CPU is what the kernel counted for the subject, all threads.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import shutil
import signal
import statistics
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from bench import payload
from bench.measure import cpu_us, resident_mb

ROOT = Path(__file__).resolve().parent.parent
WORK = ROOT / "bench" / "work"
LITELLM = ROOT / ".venv-litellm" / "bin" / "litellm"
LITELLM_KEY = "sk-bench"
OTHER = "other version"


class Subject(NamedTuple):
    """Something that answers chat completions at `url`."""

    name: str
    url: str
    token: str
    pid: int | None  # None: the mock itself


def _pinned(core: int, command: list[str]) -> list[str]:
    return ["taskset", "-c", str(core), *command] if shutil.which("taskset") and (os.cpu_count() or 1) > 1 else command


@contextlib.contextmanager
def _process(command: list[str], log: Path, **more: Any) -> Iterator[subprocess.Popen[str]]:
    with log.open("w") as errors:
        more.setdefault("cwd", ROOT)
        child = subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=errors, text=True, start_new_session=True, **more
        )
    try:
        yield child
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(child.pid, signal.SIGTERM)
        with contextlib.suppress(subprocess.TimeoutExpired):
            child.wait(timeout=20)
        with contextlib.suppress(ProcessLookupError):
            os.killpg(child.pid, signal.SIGKILL)
        child.wait()


def _line(child: subprocess.Popen[str]) -> str:
    assert child.stdout is not None
    line = child.stdout.readline()
    if not line:
        raise SystemExit(f"A subject of the bench did not start; see {WORK}/*.log.")
    return line


@contextlib.contextmanager
def _gateway(upstream: str, name: str = "gateway", checkout: Path = ROOT) -> Iterator[tuple[Subject, dict[str, float]]]:
    """The gateway, started twice: the second start is the one that counts."""
    folder = WORK / name
    shutil.rmtree(folder, ignore_errors=True)
    python = sys.executable if checkout == ROOT else str(checkout / ".venv" / "bin" / "python")
    command = _pinned(0, [python, "-m", "bench.subject", str(folder), upstream])
    with _process(command, WORK / f"{name}-first.log", cwd=checkout) as child:
        _line(child)
    with _process(command, WORK / f"{name}.log", cwd=checkout) as child:
        ready = json.loads(_line(child))
        facts = {"ready_s": ready["ready_s"], "idle_mb": resident_mb(child.pid)}
        yield Subject(name, ready["url"] + "/v1/chat/completions", ready["key"], child.pid), facts
        facts["load_mb"] = resident_mb(child.pid)


@contextlib.contextmanager
def _litellm(upstream: str) -> Iterator[tuple[Subject, dict[str, float]]]:
    """LiteLLM's proxy, tuned as its documentation says, one worker."""
    models = [
        {
            "model_name": name,
            "litellm_params": {"model": f"openai/{name}", "api_base": f"{upstream}/v1", "api_key": "none"},
        }
        for name in ("mock", "mock-d20", "mock-i10", "mock-tools-i10")
    ]
    config = WORK / "litellm.yaml"
    config.write_text(
        json.dumps(
            {
                "model_list": models,
                "litellm_settings": {"num_retries": 0},
                "general_settings": {"master_key": LITELLM_KEY},
            }
        )
    )
    port = _free_port()
    environment = os.environ | {
        "LITELLM_MODE": "PRODUCTION",
        "LITELLM_LOG": "ERROR",
        "LITELLM_LOCAL_MODEL_COST_MAP": "True",
        "NO_DOCS": "True",
    }
    command = [str(LITELLM), "--config", str(config), "--host", "127.0.0.1", "--port", str(port), "--num_workers", "1"]
    started = time.monotonic()
    with _process(_pinned(0, command), WORK / "litellm.log", env=environment) as child:
        url = f"http://127.0.0.1:{port}/v1/chat/completions"
        while not _answers(url, LITELLM_KEY):
            if child.poll() is not None or time.monotonic() - started > 120:
                raise SystemExit(f"LiteLLM's proxy did not start; see {WORK}/litellm.log.")
            time.sleep(0.1)
        facts = {"ready_s": time.monotonic() - started, "idle_mb": resident_mb(child.pid)}
        yield Subject("litellm", url, LITELLM_KEY, child.pid), facts
        facts["load_mb"] = resident_mb(child.pid)


def _free_port() -> int:
    import socket

    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def _answers(url: str, token: str) -> bool:
    headers = {"content-type": "application/json", "authorization": f"Bearer {token}"}
    try:
        with urllib.request.urlopen(urllib.request.Request(url, payload.BODIES["chat"], headers), timeout=30) as answer:
            return bool(answer.status == 200)
    except OSError:
        return False


def _load(subject: Subject, body: Path, connections: int, seconds: float) -> dict[str, float]:
    command = [
        sys.executable,
        "-m",
        "bench.load",
        subject.url,
        str(body),
        str(connections),
        str(seconds),
        subject.token,
    ]
    before = cpu_us(subject.pid) if subject.pid else 0.0
    done = subprocess.run(
        _pinned(1, command), cwd=ROOT, capture_output=True, text=True, timeout=seconds + 150, check=True
    )
    if done.returncode:
        raise SystemExit(f"The load on {subject.name} failed: {done.stderr[-2000:]}")
    spent = cpu_us(subject.pid) - before if subject.pid else 0.0
    result: dict[str, float] = json.loads(done.stdout)
    if result["errors"]:
        raise SystemExit(f"{subject.name} answered {result['errors']} calls with an error; see {WORK}/*.log.")
    after = _until_quiet(subject.pid) - before if subject.pid else 0.0
    result["cpu_us"] = spent / max(1, result["ok"])
    result["cpu_us_with_rest"] = after / max(1, result["ok"])
    result["cpu_us_per_chunk"] = spent / max(1, result["chunks"])
    return result


def _until_quiet(pid: int) -> float:
    """CPU time once the work that was put off until nobody asks (the log's projection) is done, in us."""
    last = cpu_us(pid)
    for _ in range(100):
        time.sleep(0.2)
        now = cpu_us(pid)
        if now - last < 10_000:  # less than 5 % of a core
            return now
        last = now
    return last


CASES = (
    ("c1", "chat", 1),
    ("c32", "chat", 32),
    ("c8-20ms", "chat-d20", 8),
    ("text", "stream", 8),
    ("tools", "stream-tools", 8),
)


def _round(subjects: list[Subject], files: dict[str, Path], seconds: float) -> dict[str, dict[str, dict[str, float]]]:
    found: dict[str, dict[str, dict[str, float]]] = {}
    for subject in subjects:
        _load(subject, files["chat"], 8, 1.0)  # warm
        for case, body, connections in CASES:
            found.setdefault(subject.name, {})[case] = _load(subject, files[body], connections, seconds)
    return found


def _median(rounds: list[dict[str, dict[str, dict[str, float]]]], name: str, case: str, key: str) -> float:
    return statistics.median(one[name][case][key] for one in rounds)


def report(rounds: list[dict[str, dict[str, dict[str, float]]]], facts: dict[str, dict[str, float]]) -> str:
    """The table, as Markdown."""
    names = ["direct", *facts]
    lines = ["| | " + " | ".join(names) + " |", "|---|" + "---:|" * len(names)]

    def row(title: str, case: str, key: str, unit: str = "", scale: float = 1.0, digits: int = 0) -> None:
        cells = [f"{_median(rounds, name, case, key) * scale:,.{digits}f}{unit}" for name in names]
        lines.append(f"| {title} | " + " | ".join(cells) + " |")

    row("calls per second, 32 connections", "c32", "per_s")
    row("CPU per call, 32 connections (us)", "c32", "cpu_us")
    row("the same with the work put off until idle (us)", "c32", "cpu_us_with_rest")
    row("p50, 1 connection (us)", "c1", "p50_us")
    row("p99, 1 connection (us)", "c1", "p99_us")
    row("CPU per call, 1 connection (us)", "c1", "cpu_us")
    row("p50, 20 ms upstream, 8 connections (ms)", "c8-20ms", "p50_us", scale=0.001, digits=1)
    row("CPU per streamed chunk, text (us)", "text", "cpu_us_per_chunk")
    row("first chunk p50, text (us)", "text", "first_p50_us")
    row("CPU per streamed answer, tool calls (us)", "tools", "cpu_us")
    for title, key, digits in (
        ("ready after (s)", "ready_s", 2),
        ("resident, idle (MB)", "idle_mb", 0),
        ("resident, after load (MB)", "load_mb", 0),
    ):
        cells = [f"{facts[name][key]:.{digits}f}" if key in facts.get(name, {}) else "" for name in names]
        lines.append(f"| {title} | " + " | ".join(cells) + " |")
    added = _median(rounds, "gateway", "c1", "p50_us") - _median(rounds, "direct", "c1", "p50_us")
    lines.append(f"\nAdded by the gateway at one connection: {added:,.0f} us p50.")
    chunks = payload_chunks()
    per_tool_chunk = _median(rounds, "gateway", "tools", "cpu_us") / chunks
    lines.append(f"Streamed tool calls: {per_tool_chunk:,.0f} us of CPU per chunk of the upstream's {chunks}.")
    if "litellm" in names:
        ratio = _median(rounds, "litellm", "c32", "cpu_us") / _median(rounds, "gateway", "c32", "cpu_us")
        lines.append(f"Calls per core against LiteLLM's proxy: {ratio:.0f} times.")
    return "\n".join(lines)


def report_ratios(rounds: list[dict[str, dict[str, dict[str, float]]]]) -> str:
    """This version against the other one: median over the rounds, and the range."""
    lines = ["", "| this version / the other | median | min | max |", "|---|---:|---:|---:|"]
    for title, case, key in (
        ("CPU per call, 32 connections", "c32", "cpu_us"),
        ("the same with the work put off until idle", "c32", "cpu_us_with_rest"),
        ("CPU per call, 1 connection", "c1", "cpu_us"),
        ("CPU per streamed chunk, text", "text", "cpu_us_per_chunk"),
        ("CPU per streamed answer, tool calls", "tools", "cpu_us"),
    ):
        ratios = [one["gateway"][case][key] / one[OTHER][case][key] for one in rounds]
        low, middle, high = min(ratios), statistics.median(ratios), max(ratios)
        lines.append(f"| {title} | {middle:.3f} | {low:.3f} | {high:.3f} |")
    return "\n".join(lines)


def payload_chunks() -> int:
    """Events of a streamed answer of the mock."""
    from bench.upstream import CHUNKS

    return CHUNKS + 1


def main() -> None:
    """Run, print the table, write every figure."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=3.0)
    parser.add_argument("--without-litellm", action="store_true")
    parser.add_argument("--versus", type=Path, metavar="CHECKOUT")
    parser.add_argument("--out", type=Path, default=WORK / "result.json")
    chosen = parser.parse_args()
    WORK.mkdir(parents=True, exist_ok=True)
    files = payload.write(WORK / "payload")
    with contextlib.ExitStack() as stack:
        mock = stack.enter_context(
            _process(_pinned(1, [sys.executable, "-m", "bench.upstream"]), WORK / "upstream.log")
        )
        upstream = f"http://127.0.0.1:{int(_line(mock))}"
        facts: dict[str, dict[str, float]] = {}
        subjects = [Subject("direct", f"{upstream}/v1/chat/completions", "none", None)]
        peers = [_gateway(upstream)]
        if chosen.versus is not None:
            peers.append(_gateway(upstream, OTHER, chosen.versus.resolve()))
        if not chosen.without_litellm:
            peers.append(_litellm(upstream))
        for peer in peers:
            subject, facts_of = stack.enter_context(peer)
            subjects.append(subject)
            facts[subject.name] = facts_of
        rounds = []
        for number in range(chosen.rounds):
            rounds.append(_round(subjects if number % 2 else subjects[::-1], files, chosen.seconds))
            print(f"round {number + 1} of {chosen.rounds}, load average {os.getloadavg()[0]:.1f}", file=sys.stderr)
    chosen.out.write_text(json.dumps({"rounds": rounds, "facts": facts}, indent=1))
    print(report(rounds, facts))
    if chosen.versus is not None:
        print(report_ratios(rounds))


if __name__ == "__main__":
    main()
