"""Kernel images out of Debian's packages, kept outside the tree.

apt does the download, with sources of its own that point at the mirror this machine uses:
neither its configuration nor its lists are touched.
"""

from __future__ import annotations

import io
import os
import re
import subprocess
import tarfile
import tempfile
from pathlib import Path

from kernels.errors import KernelsError

SUITES = {"6.1": "bookworm", "6.12": "bookworm-backports"}
"""Kernel series to the Debian suite that has it."""


def cache() -> Path:
    """Where images are kept, one file each, named after the kernel's release."""
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(base) / "yett" / "kernels"


def image(series: str) -> Path:
    """The kernel image of a series, from the cache or else from Debian."""
    if series not in SUITES:
        raise KernelsError(f"cannot fetch kernel {series}: write one of {', '.join(SUITES)}, running")
    cached = sorted(cache().glob(f"vmlinuz-{series}.*"), key=_version)
    return cached[-1] if cached else _download(series)


def _version(path: Path) -> list[int]:
    return [int(number) for number in re.findall(r"\d+", path.name)]


def _download(series: str) -> Path:
    with tempfile.TemporaryDirectory(prefix="yett-kernels-") as name:
        apt = _Apt(Path(name), f"deb {_mirror()} {SUITES[series]} main\n")
        release = apt.newest(series)
        print(f"kernels: fetching Linux {release} from Debian's {SUITES[series]}", flush=True)
        package = apt.download(f"linux-image-{release}")
        data = _member(package, f"./boot/vmlinuz-{release}")
    cache().mkdir(parents=True, exist_ok=True)
    target = cache() / f"vmlinuz-{release}"
    part = target.with_suffix(f".{os.getpid()}.part")
    part.write_bytes(data)
    return part.rename(target)


def _mirror() -> str:
    """The address of Debian's main archive as this machine's apt knows it."""
    targets = _run(
        "apt-get", "indextargets", "--format", "$(ORIGIN) $(RELEASE) $(REPO_URI)", "Created-By: Packages"
    )
    for line in targets.splitlines():
        origin, _, rest = line.partition(" ")
        release, _, address = rest.partition(" ")
        if origin == "Debian" and "-" not in release:
            return address
    raise KernelsError(
        "cannot fetch kernels: apt knows no Debian archive here. Run apt-get update on a Debian machine, "
        f"or put vmlinuz-RELEASE files into {cache()}"
    )


class _Apt:
    """apt with sources, lists and cache of its own in a temporary directory."""

    def __init__(self, directory: Path, sources: str) -> None:
        self._directory = directory
        directory.chmod(0o755)  # apt downloads as another user
        (directory / "sources.list").write_text(sources)
        (directory / "lists" / "partial").mkdir(parents=True)
        self._options = [
            f"-o{key}={value}"
            for key, value in {
                "Dir::Etc::sourcelist": directory / "sources.list",
                "Dir::Etc::sourceparts": "-",
                "Dir::State::lists": directory / "lists",
                "Dir::Cache": directory,
                "APT::Sandbox::User": "root",
                "Acquire::Retries": 3,
                "Acquire::Languages": "none",
            }.items()
        ]
        self._run("apt-get", "-qq", "update")

    def newest(self, series: str) -> str:
        """Release of the newest kernel for virtual machines in a series."""
        names = self._run("apt-cache", "pkgnames", f"linux-image-{series}.").split()
        found = [Path(name.removeprefix("linux-image-")) for name in names if name.endswith("-cloud-amd64")]
        if not found:
            raise KernelsError(
                f"cannot fetch kernel {series}: the Debian mirror has none in {SUITES[series]}"
            )
        return max(found, key=_version).name

    def download(self, package: str) -> Path:
        """The package as a file."""
        self._run("apt-get", "-qq", "download", package)
        return next(self._directory.glob("*.deb"))

    def _run(self, command: str, *args: str) -> str:
        return _run(command, *self._options, *args, cwd=self._directory)


def _run(*command: str, cwd: Path | None = None) -> str:
    try:
        return subprocess.run(command, check=True, capture_output=True, text=True, cwd=cwd).stdout
    except FileNotFoundError:
        raise KernelsError(
            f"cannot fetch kernels: {command[0]} is not here, this is not Debian. "
            f"Put vmlinuz-RELEASE files into {cache()}"
        ) from None
    except subprocess.CalledProcessError as error:
        last = (error.stderr.strip().splitlines() or ["no message"])[-1]
        raise KernelsError(
            f"cannot fetch kernels: {command[0]} failed ({last}). Repair apt, then repeat"
        ) from None


def _member(package: Path, name: str) -> bytes:
    tar = subprocess.run(["dpkg-deb", "--fsys-tarfile", package], check=True, capture_output=True).stdout
    with tarfile.open(fileobj=io.BytesIO(tar)) as archive:
        member = archive.extractfile(name)
        if member is None:
            raise KernelsError(f"cannot fetch kernels: {package.name} holds no {name}")
        return member.read()
