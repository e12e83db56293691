"""The sockets a server listens on, bound before anything slow begins."""

from __future__ import annotations

import contextlib
import errno
import os
import socket
import stat
from collections.abc import Sequence

from corral.errors import OptionError

BACKLOG = 2048


def bind(hosts: Sequence[str], port: int, *, reuse_port: bool = False) -> list[socket.socket]:
    """Listens on every address of every host; with port 0 all take the port that the first one got.

    With `reuse_port`, other processes that ask for it too may listen there at the same time.
    A host that ends in `.sock` is the path of a unix socket; `::` alone takes IPv4 as well, which is all that
    a container may have. Raises OptionError that names the address.
    """
    sockets: list[socket.socket] = []
    try:
        for host in hosts:
            if host.endswith(".sock"):
                sockets.append(_unix(host))
                continue
            if port == 0:
                port = next((s.getsockname()[1] for s in sockets if s.family != socket.AF_UNIX), 0)
            sockets += _tcp(host, port, reuse_port, both_versions=len(hosts) == 1)
    except BaseException:
        close(sockets)
        raise
    return sockets


def url(sock: socket.socket, *, tls: bool = False) -> str:
    """Where a client finds the socket."""
    name = sock.getsockname()
    if sock.family == socket.AF_UNIX:
        return f"unix://{name}"
    host = f"[{name[0]}]" if sock.family == socket.AF_INET6 else name[0]
    return f"http{'s' * tls}://{host}:{name[1]}"


def close(sockets: Sequence[socket.socket]) -> None:
    for sock in sockets:
        sock.close()


def unlink(hosts: Sequence[str]) -> None:
    """Removes the files of the unix sockets among the hosts."""
    for host in hosts:
        if host.endswith(".sock"):
            with contextlib.suppress(OSError):
                os.unlink(host)


def _tcp(host: str, port: int, reuse_port: bool, both_versions: bool) -> list[socket.socket]:
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    except (socket.gaierror, UnicodeError) as error:
        raise OptionError(f"--host {host}: not an address or a name that can be resolved: {error}") from None
    sockets: list[socket.socket] = []
    for family, kind, protocol, _, address in dict.fromkeys(found):
        if sockets and port == 0:
            address = (address[0], sockets[0].getsockname()[1], *address[2:])
        sock = socket.socket(family, kind, protocol)
        try:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, reuse_port)
            if family == socket.AF_INET6:
                sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, not (both_versions and host == "::"))
            sock.bind(address)
            sock.listen(BACKLOG)
        except OSError as error:
            sock.close()
            if error.errno == errno.EADDRNOTAVAIL and sockets:
                continue  # a name such as localhost with an address family that is switched off here
            close(sockets)
            raise OptionError(_refused(host, port, error)) from None
        sock.setblocking(False)
        sockets.append(sock)
    return sockets


def _refused(host: str, port: int, error: OSError) -> str:
    why = {
        errno.EADDRINUSE: "another process listens there; stop it or choose another --port",
        errno.EACCES: f"no permission; ports below 1024 are for root, --port 8080 is not (uid {os.getuid()})",
        errno.EADDRNOTAVAIL: "not an address of this machine; --host 0.0.0.0 listens on all of them",
    }.get(error.errno or 0, os.strerror(error.errno or 0))
    return f"couldn't bind to {host}, port {port}: {why}"


def _unix(path: str) -> socket.socket:
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        with contextlib.suppress(FileNotFoundError):
            if stat.S_ISSOCK(os.stat(path).st_mode) and not _answers(path):
                os.unlink(path)  # left by a server that was killed
        sock.bind(path)
        sock.listen(BACKLOG)
    except OSError as error:
        sock.close()
        raise OptionError(
            f"--host {path}: can't listen on this unix socket: {error.strerror or error}"
        ) from None
    sock.setblocking(False)
    return sock


def _answers(path: str) -> bool:
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        return probe.connect_ex(path) == 0
