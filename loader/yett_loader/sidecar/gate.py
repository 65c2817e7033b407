"""The way into the sidecar: an interface, two routing rules, and the program on it.

Everything outlives this process, like the programs of the pods: with the loader gone, packets
still reach Envoy.  Making it again changes nothing.
"""

from __future__ import annotations

import logging
import shutil
import subprocess
from contextlib import suppress
from pathlib import Path
from socket import AF_INET, AF_INET6, if_nametoindex

from pyroute2 import IPRoute, NetlinkError

from yett_loader.errors import LoaderError
from yett_loader.kernel import Hook, Link, Program, abi, tc

log = logging.getLogger(__name__)

NAME = "yett-gate"
_PEER = "yett-gate-peer"
_ADDRESS = "192.0.0.11"
"""Of no use but that a loose reverse-path filter asks for one (RFC 6890: never forwarded)."""
TABLE = 31_079
"""Of the routes that deliver every address here, for what comes in by the gate."""
PRIORITY = 8
"""Of the rules: before whatever a CNI says."""
_EXISTS = 17
_GONE = (2, 3, 19, 97)
_SYSCTLS = (Path("/host/proc/sys"), Path("/proc/sys"))
"""A container's own is read-only, so its manifest mounts the network's part a second time."""
_LIBERAL = "net/netfilter/nf_conntrack_tcp_be_liberal"
"""kube-proxy has a switch for it, too.  Not there without connection tracking, which the rules below bring."""
_UNTRACKED = f"""\
add table inet yett_sidecar
delete table inet yett_sidecar
table inet yett_sidecar {{
  chain gate {{ type filter hook prerouting priority raw; iif "{NAME}" notrack; }}
  chain upstream {{
    type filter hook output priority raw
    meta mark {abi.number("SIDECAR_INGRESS"):#x} notrack
    meta mark {abi.number("SIDECAR_ANSWER"):#x} notrack
  }}
}}
"""
"""Connection tracking has seen these packets once, under the addresses before or after a
service's translation; a second look under the others would be another connection to it.
Numbers, no name and no set: every packet of the node meets these rules.
"""


class GateError(LoaderError):
    """The way into the sidecar cannot be made."""


def make() -> int:
    """The gate, up and routed; its interface number."""
    try:
        with IPRoute() as netlink:
            with _tolerating(_EXISTS):
                # A veth, which every node has; nothing ever leaves by it, so its peer is idle.
                netlink.link("add", ifname=NAME, kind="veth", peer={"ifname": _PEER})
            index = if_nametoindex(NAME)
            for number in (index, if_nametoindex(_PEER)):
                netlink.link("set", index=number, state="up", arp=False)
            with _tolerating(_EXISTS):
                netlink.addr("add", index=index, address=_ADDRESS, prefixlen=32)
            for family in (AF_INET, AF_INET6):
                with _tolerating(_EXISTS):
                    netlink.rule("add", family=family, iifname=NAME, table=TABLE, priority=PRIORITY)
                with _tolerating(_EXISTS):
                    netlink.route(
                        "add",
                        family=family,
                        dst="default",
                        type="local",
                        scope="host" if family == AF_INET else "universe",
                        oif=if_nametoindex("lo"),
                        table=TABLE,
                    )
    except (NetlinkError, OSError) as error:
        raise GateError(f"cannot make the interface {NAME}, the way into the sidecar: {error}") from error
    # Early demultiplexing would find the sidecar's sockets by packets that are still on their way
    # to the hook that judges them, and forwarding drops a packet that has a socket.
    _sysctl("net/ipv4/tcp_early_demux", "0")
    _sysctl(f"net/ipv4/conf/{NAME}/accept_local", "1")
    settle()
    _untrack()
    if _sysctls().joinpath(_LIBERAL).exists():
        # Of a client on the short way (redirect.bpf.h) connection tracking sees some packets only.  Those
        # would be outside of its window, and kube-proxy has a rule that drops what is.
        _sysctl(_LIBERAL, "1")
    return index


def settle() -> None:
    """Have as little of a reverse-path filter as may be; to be repeated when settings of interfaces change.

    The pods' addresses are real, but not behind the gate, so it must not be strict (1); and to be loose (2) costs
    each packet a second look at the routes, more than the gate's program does.  What counts is the greater of
    the gate's own and what holds for all interfaces.  Whether a source is the node's own needs no look
    either: a hook has seen all that comes here.
    """
    strict = _read("net/ipv4/conf/all/rp_filter") == "1"
    _sysctl(f"net/ipv4/conf/{NAME}/rp_filter", "2" if strict else "0")


def attach(index: int, program: Program, pin: Path) -> None:
    """Run `program` on what comes in by the gate; its link is pinned at `pin`."""
    if pin.is_dir() or not pin.exists():
        _attach_new(index, program, pin)
        return
    with Link.open(pin) as link:
        info = link.info()
        if info.ifindex == index:
            if info.program_id != program.info().id:
                link.update(program)
            return
    pin.unlink()  # the interface was made anew
    _attach_new(index, program, pin)


def remove(pin: Path) -> None:
    """Take the gate away: packets for the sidecar are dropped."""
    if pin.is_dir():
        pin.rmdir()
    else:
        pin.unlink(missing_ok=True)
    with IPRoute() as netlink:
        for family in (AF_INET, AF_INET6):
            with _tolerating(*_GONE):
                netlink.rule("del", family=family, iifname=NAME, table=TABLE, priority=PRIORITY)
            with _tolerating(*_GONE):
                netlink.flush_routes(family=family, table=TABLE)
        with suppress(OSError), _tolerating(*_GONE):
            netlink.link("del", index=if_nametoindex(NAME))
    if shutil.which("nft"):
        _nft("add table inet yett_sidecar\ndelete table inet yett_sidecar\n")


def _attach_new(index: int, program: Program, pin: Path) -> None:
    from errno import EINVAL  # noqa: PLC0415

    from yett_loader import features  # noqa: PLC0415
    from yett_loader.errors import KernelError  # noqa: PLC0415

    try:
        with Link.create(program, index, Hook.INGRESS) as link:
            link.pin(pin)
    except KernelError as error:
        if error.errno != EINVAL or features.has(features.TCX) is not False:
            raise
        tc.attach(program, index, Hook.INGRESS)
        pin.mkdir(exist_ok=True)


def _untrack() -> None:
    if shutil.which("nft") is None:
        log.warning("nft is not installed: behind a service's address the sidecar cannot be reached")
        return
    _nft(_UNTRACKED)


def _nft(script: str) -> None:
    done = subprocess.run(["nft", "-f", "-"], input=script, text=True, capture_output=True, check=False)
    if done.returncode:
        log.warning("cannot exempt the sidecar from connection tracking: %s", done.stderr.strip())


def _sysctls() -> Path:
    return next(base for base in _SYSCTLS if (base / "net").is_dir())


def _sysctl(name: str, value: str) -> None:
    if _read(name) == value:
        return
    path = _sysctls() / name
    try:
        path.write_text(value)
    except OSError as error:
        raise GateError(
            f"cannot set {path} to {value}: {error.strerror}; in a container, mount the node's /proc/sys/net "
            f"at {_SYSCTLS[0]}/net"
        ) from error


def _read(name: str) -> str:
    path = _sysctls() / name
    try:
        return path.read_text().strip()
    except OSError as error:
        raise GateError(f"cannot read {path}: {error.strerror}; is the interface {NAME} there?") from error


class _tolerating:  # noqa: N801 - a context manager, reads as a word
    """Suppress netlink errors of these numbers."""

    def __init__(self, *codes: int) -> None:
        self._codes = codes

    def __enter__(self) -> None:
        """Nothing to prepare."""

    def __exit__(self, kind: object, error: object, trace: object) -> bool:
        return isinstance(error, NetlinkError) and error.code in self._codes
