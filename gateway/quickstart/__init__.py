"""What `make run` shows: a ledger to act on, and the gateway started with everything ready to paste.

Product code that users run, but nothing the gateway itself depends on. The ledger is a tool server of its own process;
it enforces nothing that is policy's to enforce. Fails closed like the gateway it starts.
"""
