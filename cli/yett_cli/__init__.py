"""`yettctl`: what people type, also as the kubectl plugin `kubectl-yett`.

Here: options, printing, exit codes.  Not here: decisions; commands call the lab, the policy core
and the node's API.  Imports are lazy: `yettctl --help` loads no command.
Exit codes: 0 fine, 1 a finding, 2 usage or bad input, 3 the node, lab or cluster failed.
"""
