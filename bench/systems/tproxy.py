"""What every transparent proxy needs of the node: packets for the server end in a local socket."""

from __future__ import annotations

import subprocess

from bench.world import PORT, UPLOAD_PORT
from support.netns import Topology, ip, sysctl

PROXY_PORT = 15001
_MARK = 1
_TABLE = 100


def divert(topology: Topology, *, replies: bool, port: int = PROXY_PORT) -> None:
    """Send the client's connections to `port`; with `replies`, the server's answers to the
    client's address are the proxy's too, which connects from there.
    """
    mark = f"-j MARK --set-mark {_MARK}"
    socket = "-m socket --transparent"
    server = f"-d {topology.server.v4} --dport {PORT}:{UPLOAD_PORT}"
    to = f"--on-port {port} --tproxy-mark {_MARK}/{_MARK}"
    lines = ["*mangle", ":DIVERT - [0:0]", f"-A DIVERT {mark}", "-A DIVERT -j ACCEPT"]
    # Not a SYN: TPROXY ends a TIME-WAIT that it meets; diverted to that, the client would wait 10 ms.
    lines += [f"-A PREROUTING -i {topology.client.ifname} -p tcp ! --syn {socket} -j DIVERT"]
    if replies:
        lines += [f"-A PREROUTING -i {topology.server.ifname} -p tcp {socket} -j DIVERT"]
    lines += [
        f"-A PREROUTING -i {topology.client.ifname} -p tcp {server} -j TPROXY {to}",
        "COMMIT",
        "",
    ]
    with topology.node:
        restore("\n".join(lines))
        ip(f"""
            rule add fwmark {_MARK} lookup {_TABLE}
            route add local 0.0.0.0/0 dev lo table {_TABLE}
        """)
        sysctl("net/ipv4/ip_nonlocal_bind", 1)


def restore(text: str, *, keep: bool = False) -> None:
    """Load iptables rules in the namespace of the calling thread; `keep`: those that are there stay."""
    argv = ["iptables-restore", *(["--noflush"] if keep else [])]
    done = subprocess.run(argv, input=text.encode(), capture_output=True, check=False, timeout=300)
    if done.returncode:
        raise RuntimeError(
            f"cannot load iptables rules: {done.stderr.decode(errors='replace').strip()[-300:]}"
        )
