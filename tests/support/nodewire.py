"""Frames that reach the governed hook although no router would forward them."""

from __future__ import annotations

import socket
from errno import ENOBUFS
from types import TracebackType
from typing import Self

from support import packet as pk
from support.netns import Topology
from support.rawtcp import Wire


class NodeWire:
    """Ingress: the node's own interface towards the server.  Egress: the client's eth0."""

    def __init__(self, topology: Topology, wire: Wire, direction: str) -> None:
        self._topology = topology
        self._wire = wire
        self._socket: socket.socket | None = None
        if direction == "ingress":
            with topology.node:
                self._socket = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0)
            self._socket.bind((topology.server.ifname, 0))

    def send_ip(self, packet: bytes, *, vlan: int | None = None, ethertype: int | None = None) -> None:
        """Send one frame, as if it had been routed already."""
        if self._socket is None:
            self._wire.send(packet, vlan=vlan, ethertype=ethertype)
            return
        kind = pk.ethertype_of(packet) if ethertype is None else ethertype
        server = self._topology.server
        try:
            self._socket.send(pk.frame(server.mac, server.gateway_mac, packet, kind, vlan=vlan))
        except OSError as error:
            if error.errno != ENOBUFS:  # what a sender hears of a frame that egress dropped
                raise

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._socket is not None:
            self._socket.close()
