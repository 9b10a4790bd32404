"""What telemetry costs: one gateway without a collector and others with one, in turns, in one run.

usage: python -m bench.telemetry [--rounds N] [--seconds S] [--before FOLDER]
Prints CPU per governed call and its ratio to the gateway that exports nothing. `--before` names another checkout whose
gateway, exporting nothing, joins the turns. The collector is a process that takes everything and reads nothing.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import shutil
import statistics
import sys
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from bench import payload
from bench.run import ROOT, WORK, Subject, _line, _load, _pinned, _process

SUBJECTS: dict[str, dict[str, str]] = {
    "nothing": {},
    "metrics and logs": {"OTEL_TRACES_EXPORTER": "none"},
    "traces, one in ten": {"OTEL_TRACES_SAMPLER": "traceidratio", "OTEL_TRACES_SAMPLER_ARG": "0.1"},
    "traces, all": {},
}


@contextlib.contextmanager
def _gateway(name: str, upstream: str, collector: str, root: Path) -> Iterator[Subject]:
    folder = WORK / f"telemetry-{name.replace(' ', '-')}"
    shutil.rmtree(folder, ignore_errors=True)
    environment = {**os.environ, **SUBJECTS.get(name, {}), "PYTHONPATH": str(root)}
    if name in SUBJECTS and name != "nothing":
        environment["OTEL_EXPORTER_OTLP_ENDPOINT"] = collector
        environment["OTEL_METRIC_EXPORT_INTERVAL"] = "5000"
    command = _pinned(0, [sys.executable, str(root / "bench" / "subject.py"), str(folder), upstream])
    with _process(command, WORK / "telemetry.log", env=environment) as child:
        ready = json.loads(_line(child))
        yield Subject(name, ready["url"] + "/v1/chat/completions", ready["key"], child.pid)


class _Takes(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["content-length"]))
        self.send_response(200)
        self.send_header("content-length", "0")
        self.end_headers()

    def log_message(self, *arguments: Any) -> None:
        return


def collect() -> None:
    """Serve as the collector; prints the port."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), _Takes)
    print(server.server_address[1], flush=True)
    server.serve_forever()


def main() -> None:
    """Run the turns, print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=2.0)
    parser.add_argument("--before", type=Path)
    parser.add_argument("--collect", action="store_true", help="serve as the collector")
    chosen = parser.parse_args()
    if chosen.collect:
        collect()
        return
    WORK.mkdir(parents=True, exist_ok=True)
    body = payload.write(WORK / "payload")["chat"]
    costs: dict[str, list[float]] = {}
    with contextlib.ExitStack() as stack:

        def start(module: str, *more: str) -> str:
            command = _pinned(1, [sys.executable, "-m", module, *more])
            child = stack.enter_context(_process(command, WORK / "telemetry-peers.log"))
            return f"http://127.0.0.1:{int(_line(child))}"

        upstream, collector = start("bench.upstream"), start("bench.telemetry", "--collect")
        roots = dict.fromkeys(SUBJECTS, ROOT)
        if chosen.before is not None:
            roots["before"] = chosen.before
        subjects = [stack.enter_context(_gateway(name, upstream, collector, root)) for name, root in roots.items()]
        for number in range(chosen.rounds + 1):  # the first warms up
            for subject in subjects:
                cost = _load(subject, body, 32, chosen.seconds)["cpu_us"]
                if number:
                    costs.setdefault(subject.name, []).append(cost)
    print("| exports | CPU per call (us) | against nothing |\n|---|---:|---:|")
    for name, found in costs.items():
        ratio = statistics.median(one / nothing for one, nothing in zip(found, costs["nothing"], strict=True))
        print(f"| {name} | {statistics.median(found):,.0f} | {ratio:.2f} |")


if __name__ == "__main__":
    main()
