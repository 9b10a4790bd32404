"""The OpenAI door: chat completions (plain and streaming) and models, for clients that only set a base URL.

Owns the dialect: reading requests, rewriting answers, rendering refusals. Never decides. Fails closed: what can't be
read is refused, what is not governed yet (responses, embeddings, ...) is refused and recorded.
"""
