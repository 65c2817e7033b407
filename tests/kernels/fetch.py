"""Kernel images out of Debian's packages, kept outside the tree.

apt does the download, with sources of its own that point at the mirror this machine uses:
neither its configuration nor its lists are touched.
"""

from __future__ import annotations

import io
import lzma
import os
import re
import subprocess
import tarfile
import tempfile
from dataclasses import dataclass
from pathlib import Path

from kernels.errors import KernelsError

SUITES = {"6.1": "bookworm", "6.12": "bookworm-backports"}
"""Kernel series to the Debian suite that has it."""


MODULES = ("net/sched/sch_ingress.ko", "net/sched/cls_bpf.ko")
"""What the programs need that Debian's kernels have as modules, in the order of loading."""


@dataclass(frozen=True)
class Kernel:
    """A kernel's files in the cache."""

    directory: Path

    @property
    def release(self) -> str:
        """As uname -r prints it."""
        return self.directory.name

    @property
    def image(self) -> Path:
        """The file to boot."""
        return self.directory / "vmlinuz"

    @property
    def modules(self) -> list[Path]:
        """Uncompressed, in the order of loading."""
        return [self.directory / Path(name).name for name in MODULES]


def cache() -> Path:
    """Where kernels are kept, one directory each, named after the release."""
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(base) / "yett" / "kernels"


def kernel(series: str) -> Kernel:
    """The newest kernel of a series in the cache, or else in Debian."""
    if series not in SUITES:
        raise KernelsError(f"cannot fetch kernel {series}: write {', '.join(SUITES)} or running")
    cached = sorted(cache().glob(f"{series}.*"), key=_version)
    return Kernel(cached[-1] if cached else _download(series))


def _version(path: Path) -> list[int]:
    return [int(number) for number in re.findall(r"\d+", path.name)]


def _download(series: str) -> Path:
    with tempfile.TemporaryDirectory(prefix="yett-kernels-") as name:
        apt = _Apt(Path(name), f"deb {_mirror()} {SUITES[series]} main\n")
        release = apt.newest(series)
        print(f"kernels: fetching Linux {release} from Debian's {SUITES[series]}", flush=True)
        files = _unpack(apt.download(f"linux-image-{release}"), release)
    cache().mkdir(parents=True, exist_ok=True)
    part = Path(tempfile.mkdtemp(prefix="part-", dir=cache()))
    for file, data in files.items():
        (part / file).write_bytes(data)
    return part.rename(cache() / release)


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
        f"or put their vmlinuz and modules into {cache()}/RELEASE"
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
            f"Put their vmlinuz and modules into {cache()}/RELEASE"
        ) from None
    except subprocess.CalledProcessError as error:
        last = (error.stderr.strip().splitlines() or ["no message"])[-1]
        raise KernelsError(
            f"cannot fetch kernels: {command[0]} failed ({last}). Repair apt, then repeat"
        ) from None


def _unpack(package: Path, release: str) -> dict[str, bytes]:
    """The image and the modules, by file name."""
    wanted = {f"./boot/vmlinuz-{release}": "vmlinuz"}
    wanted |= {f"./lib/modules/{release}/kernel/{module}": Path(module).name for module in MODULES}
    tar = subprocess.run(["dpkg-deb", "--fsys-tarfile", package], check=True, capture_output=True).stdout
    found = {}
    with tarfile.open(fileobj=io.BytesIO(tar)) as archive:
        for member in archive:
            file = archive.extractfile(member) if member.isfile() else None
            target = wanted.get(member.name.removesuffix(".xz"))
            if file and target:
                data = file.read()
                found[target] = lzma.decompress(data) if member.name.endswith(".xz") else data
    if missing := set(wanted.values()) - set(found):
        raise KernelsError(f"cannot fetch kernels: {package.name} holds no {', '.join(sorted(missing))}")
    return found
