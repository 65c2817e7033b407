"""The kinds that yett adds to a cluster, generated from the models that read them.

`python -m yett_operator.crd DIR` writes them; nothing here runs in a cluster.
"""
