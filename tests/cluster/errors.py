"""What can go wrong with a test cluster, as one sentence each."""

from yett_lab.errors import LabError


class ClusterError(LabError):
    """Verb, object, reason, what to do."""
