"""From what is in the cluster to what loaders must have.

The compiler runs in a process of its own: working out a big change takes seconds of CPU, which
would be missed by every websocket, probe and lease on the event loop.  What it returns is
already encoded, so the event loop never looks into a document.
"""
