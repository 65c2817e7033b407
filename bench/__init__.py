"""Benchmarks: yett beside its peers on one topology, in one interleaved run.

`scripts/bench` runs it; the result is a JSON file, from which the page and its plots are drawn.
Nothing imports this package; it stands on the loader, the policy core, and the tests' namespaces.
"""
