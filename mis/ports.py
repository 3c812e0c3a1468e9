"""Free TCP ports of this machine."""

import socket

from mis.errors import MisError

LOOPBACK = "127.0.0.1"
PORTS_TRIED = 20


def free_port(host: str = LOOPBACK, *, first: int = 0) -> int:
    """Return a port on which a server could listen now.

    Args:
        host: The address of this machine under which the server will listen.
        first: The first port that is tried, followed by the next ones; by default the operating system chooses.

    Raises:
        MisError: `PORTS_TRIED` ports from `first` on are in use.
    """
    for port in range(first, min(first + PORTS_TRIED, 65536)):
        with socket.socket() as probe:
            # As servers do: a port whose last connections are still closing is free.
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind((host, port))
            except OSError:
                continue
            return int(probe.getsockname()[1])
    raise MisError(
        f"one of {PORTS_TRIED} ports must be free", got=f"all in use from {first} on", do="name another port"
    )
