"""What `gateway` can do, one module per group of commands.

Commands are clients of the API; only check, migrate, audit verify and those that run a gateway touch files. They
import what they need when they run, so that `gateway --help` stays quick.
"""
