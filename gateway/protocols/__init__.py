"""Wire vocabulary that doors, guards and upstreams share: what a name, a number or a key means to the other side.

Owns: rules about JSON text that must be the same wherever the gateway reads it.
Never: knows an action, a target or a policy; it imports nothing else of the gateway.
Fails closed: what two readers may take differently is reported as such, and the caller refuses it.
"""
