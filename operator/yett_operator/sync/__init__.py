"""The operator's side of the sync stream: snapshots and changes out, acknowledgements in.

It knows a `SnapshotSource` and an `AckSink` (see `ports`) and nothing of compiler, API server
or status.  The protocol is described in docs/sync-protocol.md.
"""
