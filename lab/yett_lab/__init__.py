"""The lab: a small cluster of network namespaces on one machine, with real enforcement.

Here: nodes and pods as namespaces, stand-ins for images, Services, and the control plane of
the lab, which compiles policies and hands them to the same loader that production runs.
Not here: printing, options (yett_cli), what a policy means (yett_policy), the kernel (yett_loader).
Nothing is added to the machine's own network namespace.
"""
