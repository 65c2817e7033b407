"""What can go wrong on a node.

LoaderError
├── KernelError(operation, name, errno)
│   ├── NotSupported(feature, since)
│   ├── VerifierError(log)
│   └── AbiMismatch
├── NotReady            the node lacks something: bpffs, BTF, a privilege, a pin
├── SnapshotError       what a caller handed over is malformed
└── StoreError          what is in force cannot be kept on disk

`str(error)` is one sentence for people: verb, object, reason, and what to do where we know.
"""

from __future__ import annotations

import os


class LoaderError(Exception):
    """Base of everything this package raises on purpose."""


class KernelError(LoaderError):
    """The kernel or libbpf refused `operation` on the object `name`."""

    def __init__(self, operation: str, name: str, errno: int, detail: str = "") -> None:
        self.operation = operation
        self.name = name
        self.errno = errno
        self.detail = detail
        reason = detail or os.strerror(errno)
        super().__init__(f"cannot {operation} {name}: {reason}")


class NotSupported(KernelError):  # noqa: N818 - reads better
    """The running kernel lacks `feature`, which exists since kernel `since`."""

    def __init__(self, operation: str, name: str, errno: int, feature: str, since: str) -> None:
        self.feature = feature
        self.since = since
        detail = (
            f"this kernel ({os.uname().release}) has no {feature}; use kernel {since} or newer, "
            "or one whose vendor carries it"
        )
        super().__init__(operation, name, errno, detail)


class VerifierError(KernelError):
    """The verifier refused a program; `log` is all it said."""

    def __init__(self, operation: str, name: str, errno: int, log: str) -> None:
        self.log = log
        said = log.partition("-- BEGIN PROG LOAD LOG --")[2].partition("-- END PROG LOAD LOG --")[0] or log
        lines = [line for line in said.splitlines() if line.strip() and not line.startswith("processed ")]
        last = lines[-1] if lines else "it said nothing"
        super().__init__(
            operation, name, errno, f"the verifier refused it: {last} ({len(lines)} lines of log in all)"
        )


class AbiMismatch(KernelError):  # noqa: N818 - reads better
    """What is pinned and what this loader ships do not fit together."""

    def __init__(self, operation: str, name: str, detail: str) -> None:
        super().__init__(operation, name, 0, detail)


class NotReady(LoaderError):  # noqa: N818 - reads better
    """The node lacks something that an administrator must provide."""


class SnapshotError(LoaderError):
    """A snapshot, or another input from outside, is malformed; nothing of it was applied."""


class StoreError(LoaderError):
    """The state directory does not take what is in force."""
