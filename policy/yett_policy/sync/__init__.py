"""What operator and loaders say to each other: bytes <-> values, every bound checked.

Both sides speak through this and neither imports the other.  The protocol itself is described
in docs/sync-protocol.md.
"""
