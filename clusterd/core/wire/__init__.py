"""PARSES: the native wire, bytes to messages and back. PROTOCOL.md in this folder is the contract.

`frames` knows the multipart shape and its limits, `session` signs, verifies, numbers and acknowledges, `handshake` proves
who is speaking, `messages` lists what may be said in each direction, `codec` turns them into MessagePack, `payload` splits
users' objects into a body and out-of-band buffers. Nothing here touches a socket, a clock or a source of randomness.
"""
