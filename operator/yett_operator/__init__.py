"""The cluster side: watches policies and pods, compiles documents, serves them to loaders.

It stands on `yett_policy` and never imports `yett_loader`.
"""
