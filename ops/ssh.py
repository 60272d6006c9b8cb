"""The SSH connection that every operation shares."""

import socket
from typing import Any

import paramiko


def send_at_once() -> None:
    """Switches Nagle's algorithm off on every SSH connection that this process opens.

    paramiko writes small packets and waits for their answers; with Nagle's algorithm each exec costs about
    48 ms on a LAN instead of 5 ms (`make bench`). Every transport passes through here, reconnects too.
    """
    original = paramiko.Transport.__init__
    if getattr(original, "sends_at_once", False):
        return

    def open_transport(self: paramiko.Transport, sock: Any, *args: Any, **kwargs: Any) -> None:
        original(self, sock, *args, **kwargs)
        # a jump host's channel is no socket, and carries its own setting
        if isinstance(self.sock, socket.socket) and self.sock.family in (socket.AF_INET, socket.AF_INET6):
            self.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    open_transport.sends_at_once = True  # type: ignore[attr-defined]
    paramiko.Transport.__init__ = open_transport  # type: ignore[method-assign]
