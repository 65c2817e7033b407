"""buildah with a store in our cache, in a mount namespace of its own: it leaves no mounts."""

from __future__ import annotations

from pathlib import Path

from cluster.paths import cache
from yett_lab.run import command


def buildah(*arguments: str, what: str, timeout: float = 900) -> str:
    """Run it, return stdout; `what` completes "cannot ..." in the error."""
    root = cache() / "buildah"
    root.mkdir(parents=True, exist_ok=True)
    options = [
        "--root",
        str(root / "root"),
        "--runroot",
        str(root / "run"),
        "--storage-driver",
        _driver(root),
    ]
    return command(["unshare", "-m", "buildah", *options, *arguments], what=what, timeout=timeout)


def _driver(root: Path) -> str:
    kind = command(["stat", "-f", "-c", "%T", str(root)], what="see the file system").strip()
    return "vfs" if kind == "overlayfs" else "overlay"  # an overlay does not stand on another
