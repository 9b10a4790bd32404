"""Where actions are performed: model providers and tool servers, each reached with its own credential.

Owns: connections to upstreams, their dialects, retries before the first byte, the credentials that stand for
the gateway (references, resolved late). Never: decides, records, counts money, or forwards an agent's
credential. Fails closed: what can't be reached, understood or trusted is a `Refusal` that tells what the
upstream said without its secrets.

`models.py` builds the model providers (`openai.py`, `longtail.py`, `demo.py`);
`tool_servers.py` the tool servers (`mcp_http.py`, `mcp_stdio.py`).
`wire.py` is the HTTP client of both.
"""
