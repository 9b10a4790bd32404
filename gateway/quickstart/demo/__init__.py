"""`make demo`: a whole story against a gateway, told by the official SDKs that agents really use.

Runs in an environment that has those SDKs and nothing else of ours, so it imports nothing of the gateway: it is an
agent and a person at a terminal, and asks through the doors and the command line like anybody else. Whatever is not as
told ends it with exit code 1 and one sentence.
"""
