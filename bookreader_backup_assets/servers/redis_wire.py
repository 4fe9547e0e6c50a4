"""A word with a Redis server in its own protocol: enough to know whether one that we start is there."""

from __future__ import annotations

import contextlib
import socket

from bookreader_backup_assets.core.secret import Secret

Address = int | str
"""A port of 127.0.0.1, or the path of a socket."""
_PATIENCE = 5.0


def ask(address: Address, password: Secret | None, *command: bytes) -> bytes:
    """Return what the server answers to a command, up to 4 kB of it; nothing if it does not answer."""
    commands = [command] if password is None else [(b"AUTH", password.reveal().encode()), command]
    family = socket.AF_INET if isinstance(address, int) else socket.AF_UNIX
    with contextlib.suppress(OSError), socket.socket(family) as link:
        link.settimeout(_PATIENCE)
        link.connect(("127.0.0.1", address) if isinstance(address, int) else address)
        for words in commands:
            link.sendall(b"*%d\r\n" % len(words) + b"".join(b"$%d\r\n%s\r\n" % (len(w), w) for w in words))
            answer = link.recv(4096)
        return answer
    return b""


def free_port() -> int:
    """Return a port of 127.0.0.1 that nobody listens on now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def where(address: Address) -> tuple[str, ...]:
    """Return the address as arguments of redis-cli."""
    return ("-h", "127.0.0.1", "-p", str(address)) if isinstance(address, int) else ("-s", address)
