"""The node agent: receive -> encode -> plan -> apply; the kernel holds the truth.

Here belongs what touches this node: maps, programs, links, interfaces, the node-local API.
Policies and their semantics belong to `yett_policy`.  Imports `yett_policy`, never
`yett_operator`; only `kernel/` imports the bindings in `_libbpf`.
"""
