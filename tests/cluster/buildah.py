"""buildah with everything that it keeps in our cache, in a mount namespace of its own: it leaves no mounts."""

from __future__ import annotations

import fcntl
from pathlib import Path

from cluster.paths import cache
from yett_lab.run import command

# What buildah keeps outside its store it makes at these places, whatever its options are.
_SCRIPT = r"""
set -e
keep=$1
shift
for place in /etc/cni /var/lib/containers; do
  [ -d "$place" ] || { mkdir "$place" && made="$place ${made-}"; }
  mkdir -p "$keep$place"
  mount --bind "$keep$place" "$place"
done
status=0
buildah "$@" || status=$?
for place in ${made-}; do
  umount "$place" && rmdir "$place"
done
exit "$status"
"""


def buildah(*arguments: str, what: str, timeout: float = 900) -> str:
    """Run it, one at a time, return stdout; `what` completes "cannot ..." in the error."""
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
    argv = ["unshare", "-m", "sh", "-c", _SCRIPT, "buildah", str(root), *options, *arguments]
    with (root / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        return command(argv, what=what, timeout=timeout)


def _driver(root: Path) -> str:
    kind = command(["stat", "-f", "-c", "%T", str(root)], what="see the file system").strip()
    return "vfs" if kind == "overlayfs" else "overlay"  # an overlay does not stand on another
