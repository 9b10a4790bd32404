"""The gateway as the bench runs it: everything on, one agent, models at the mock upstream.

usage: python -m bench.subject FOLDER UPSTREAM_URL    prints {"url", "key", "ready_s"} when it is ready
"""

from __future__ import annotations

import json
import shutil
import sys
import time
from pathlib import Path

STARTED_S = time.monotonic()
ROOT = Path(__file__).resolve().parent.parent

_CONFIG = """
version: 1
environment: dev
providers: {{mock: {{type: openai, base_url: "{upstream}/v1"}}}}
models:
{models}
agents: [{{id: bench, team: bench, use_case: bench, owners: {{business: nobody}}}}]
limits:
  default:
    requests_per_minute: 100000000
    concurrency: 100000
    tokens_per_minute: 100000000000
    budgets: [{{window: day, usd: "1000000"}}, {{window: month, usd: "10000000"}}]
tool_registry: tools
policy: {{path: policies}}
undeclared_client_tools: observe
"""
_MODEL = (
    '  - {{alias: {0}, provider: mock, model: {0}, price: {{input_usd_per_mtok: "1", output_usd_per_mtok: "2"}},'
    " max_output_tokens: 1024}}"
)
MODELS = ("mock", "mock-d20", "mock-i10", "mock-tools-i10")


def prepare(folder: Path, upstream: str) -> Path:
    """Write the bench's configuration: the shipped policies, and one more agent in their data."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "tools").mkdir(exist_ok=True)
    shutil.copytree(ROOT / "policies", folder / "policies", dirs_exist_ok=True)
    grants = folder / "policies" / "grants" / "data.yaml"
    names = ", ".join(MODELS)
    text = (ROOT / "policies" / "grants" / "data.yaml").read_text()
    grants.write_text(text.replace("agents:\n", f"agents:\n  bench: {{models: [{names}]}}\n", 1))
    config = folder / "gateway.yaml"
    config.write_text(_CONFIG.format(upstream=upstream, models="\n".join(_MODEL.format(name) for name in MODELS)))
    return config


def main() -> None:
    """Serve until told to stop."""
    folder, upstream = Path(sys.argv[1]), sys.argv[2]
    config = prepare(folder, upstream)

    from gateway.app import App
    from gateway.process import load
    from gateway.serve import serve

    async def ready(app: App, url: str) -> None:
        ready_s = time.monotonic() - STARTED_S
        _, key = await app.registry.keys.create("bench", person=None)
        print(json.dumps({"url": url, "key": key, "ready_s": ready_s}), flush=True)

    process, problems = load()
    assert process is not None, problems
    place = {"data_dir": folder / "var", "config": config, "port": 0, "log_level": "warning"}
    serve(process.model_copy(update=place), on_ready=ready)


if __name__ == "__main__":
    main()
