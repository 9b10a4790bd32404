"""How tool servers that the gateway runs are confined before their program starts.

Owns: which paths a server may use (`plan.py`, `program.py`, `folders.py`), what this system can enforce (`support.py`),
and the launcher, which enforces it and then executes the server (`launcher.py` over `landlock.py` and `privileges.py`).
Never does: talk to a server. Fails closed: a server that can't be confined as its configuration asks is not started.

The launcher's three modules use the standard library only, so that a server starts quickly.
"""
