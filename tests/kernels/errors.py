"""What can go wrong around the kernels, as one sentence each."""


class KernelsError(Exception):
    """Verb, object, reason, what to do."""
