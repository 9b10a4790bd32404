"""What a newcomer reads once the quickstart runs: addresses, the sign-in link, the key, and commands to paste."""

from __future__ import annotations

import shlex
from pathlib import Path

from gateway.process import Process

AGENT = "demo-agent"


def _default() -> Path:
    return Path(Process.model_fields["data_dir"].default)


def page(url: str, key: str, console: str, data_dir: Path, *, environment: Path | None = None) -> str:
    """The page. `data_dir` is what the command line names to find the gateway; `environment` a file with all that it
    has to know, for a gateway that is more than its data directory."""
    # The commands below are pasted into another terminal, without our environment; they look for the default one.
    first = "" if environment is None else f"set -a; . {shlex.quote(str(environment))}; set +a; "
    is_known = environment is not None or data_dir.absolute() == _default().absolute()
    where = "" if is_known else f" --data-dir {shlex.quote(str(data_dir))}"
    return f"""
The Agent Governance Gateway is ready on {url}

  Console (sign in once with this link; Chrome, Edge and Firefox open its address as it is)
    {console}

  Agent key of {AGENT}
    {key}

Paste into another terminal, in this folder:

  1. A model call, with curl
    curl -s {url}/v1/chat/completions -H "Authorization: Bearer {key}" -H "Content-Type: application/json" \
-d '{{"model": "demo", "messages": [{{"role": "user", "content": "Hello!"}}]}}'

  2. The same with the official OpenAI SDK
    .venv/bin/python -c 'import openai; c = openai.OpenAI(base_url="{url}/v1", api_key="{key}"); \
print(c.chat.completions.create(model="demo", messages=[{{"role": "user", "content": "Hello!"}}])\
.choices[0].message.content)'

  3. A tool call, with the official MCP SDK
    .venv/bin/python -m gateway.quickstart.try_mcp {url}/mcp/ledger {key} \
transfer '{{"to": "acme-gmbh", "amount_cents": 2500, "reference": "INV-1"}}'

What happened is in the console, and in the trail: {first}.venv/bin/gateway audit query{where}; \
.venv/bin/gateway audit verify{where}
An agent's own tools that no manifest declares are let through and recorded, because {data_dir / "quickstart.yaml"}
says so; elsewhere they are denied. Stop with Ctrl-C.
"""
