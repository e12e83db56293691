"""`corral health`: is the server in this container ready? For HEALTHCHECK and exec probes.

It needs no settings: it finds the server among the processes it may see, and the kernel says what that
listens on, so --port, --host, unix sockets and TLS need not be repeated. It is run every few seconds next to
a busy server, so it imports little.
"""

from __future__ import annotations

import os
import socket
import sys
import time
from collections.abc import Iterator, Sequence

USAGE = """\
usage: corral health [URL] [--timeout SECONDS]

Exit code 0 if the server answers that it is ready, else 1. Without a URL it asks the server that runs in this
container (or for this user of this machine), wherever it listens. With one, such as http://127.0.0.1:8080 or
unix:///run/llama.sock, it asks there; a path before /health is the --api-prefix. 5 seconds are the default.
"""
MOST_BYTES = 1 << 16
"""Of an answer; a ready server sends 15."""
LISTEN = "0A"
"""TCP_LISTEN of the kernel's include/net/tcp_states.h, as /proc/net/tcp has it."""
ACCEPTS = 1 << 16
"""__SO_ACCEPTCON of the kernel's include/linux/net.h, in the flags of /proc/net/unix."""

Address = tuple[str, int] | str
"""Host and port, or the path of a unix socket."""


class Unhealthy(Exception):
    """The message says why."""


def main(words: Sequence[str]) -> int:
    """Prints one line about the server and returns the exit code."""
    try:
        address, path, tls, timeout = _arguments(words)
    except ValueError as error:
        print(f"error: {error}\n\n{USAGE}", end="", file=sys.stderr)
        return 1
    if not path:
        print(USAGE, end="")
        return 0
    try:
        shown, status, body = check(address, path, tls, timeout)
    except Unhealthy as error:
        print(f"unhealthy: {error}")
        return 1
    print(f"{'healthy' if status == 200 else 'unhealthy'}: {shown} says {status} {body}".strip())
    return 0 if status == 200 else 1


def check(address: Address | None, path: str, tls: bool | None, timeout: float) -> tuple[str, int, str]:
    """(what was asked, HTTP status, body). `address`, `tls` None: find out. Raises Unhealthy."""
    deadline = time.monotonic() + timeout
    if address is None:
        pid, address = find()
        path = _prefix(pid) + path
    shown = address if isinstance(address, str) else "{}:{}".format(*address)
    try:
        answer = b"" if tls else _get(address, path, deadline)
        if not answer.startswith(b"HTTP/") and tls is not False:
            answer = _get(address, path, deadline, tls=True)
    except TimeoutError:
        raise Unhealthy(f"{shown} did not answer within {timeout:g} s") from None
    except OSError as error:
        raise Unhealthy(f"{shown}: {error.strerror or error}") from None
    head, _, body = answer.partition(b"\r\n\r\n")
    words = head.split(maxsplit=2)
    if len(words) < 2 or not words[0].startswith(b"HTTP/") or not words[1].isdigit():
        raise Unhealthy(f"{shown} does not speak HTTP")
    return shown + path, int(words[1]), body.decode("utf-8", "replace").strip()


def _arguments(words: Sequence[str]) -> tuple[Address | None, str, bool | None, float]:
    """(address, path, TLS, seconds); an empty path asks for the usage. Raises ValueError."""
    rest = list(words)
    address: Address | None = None
    path, tls, timeout = "/health", None, 5.0
    while rest:
        word = rest.pop(0)
        if word in ("-h", "--help"):
            return None, "", None, 0
        if word.partition("=")[0] == "--timeout":
            value = word.partition("=")[2] or (rest.pop(0) if rest else "")
            try:
                timeout = float(value)
            except ValueError:
                timeout = 0
            if not 0 < timeout < 1e6:
                raise ValueError(f"--timeout: expected seconds above 0, got {value!r}")
        elif word.startswith("-") or address is not None:
            raise ValueError(f"invalid argument: {word}")
        else:
            address, path, tls = _url(word)
    return address, path, tls, timeout


def _url(text: str) -> tuple[Address, str, bool]:
    from urllib.parse import urlsplit  # costs as much as the rest of the program

    if text.startswith("unix://"):
        return text.removeprefix("unix://"), "/health", False
    parts = urlsplit(text)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise ValueError(f"expected http://HOST:PORT, https://HOST:PORT or unix:///PATH, got {text!r}")
    tls = parts.scheme == "https"
    path = parts.path.rstrip("/")
    return (
        (parts.hostname, parts.port or (443 if tls else 80)),
        path if path.endswith("/health") else path + "/health",
        tls,
    )


# -- whom to ask ---------------------------------------------------------------------------------------------


def find() -> tuple[int, Address]:
    """The server that we can see, by process id, and where it listens; of several, the first.

    Raises Unhealthy."""
    pids = sorted(int(name) for name in os.listdir("/proc") if name.isdecimal())
    found = [pid for pid in pids if pid != os.getpid() and _serves(_arguments_of(pid))]
    for pid in found:
        for address in listening(pid):
            return pid, address
    if found:
        raise Unhealthy(f"the server (process {found[0]}) does not listen yet")
    raise Unhealthy("no llama-server or corral serve runs here")


def _arguments_of(pid: int, what: str = "cmdline") -> list[str]:
    try:
        with open(f"/proc/{pid}/{what}", "rb") as file:
            return file.read(MOST_BYTES).decode("utf-8", "replace").split("\0")
    except OSError:
        return []


def _prefix(pid: int) -> str:
    """The --api-prefix this process was started with: the last on its command line, else its variable."""
    words = _arguments_of(pid)
    found = ""
    for word in _arguments_of(pid, "environ"):
        if word.startswith("LLAMA_ARG_API_PREFIX="):
            found = word.partition("=")[2]
    for i, word in enumerate(words):
        name, equals, value = word.partition("=")
        if name.replace("_", "-") == "--api-prefix":
            found = value if equals else "".join(words[i + 1 : i + 2])
    return found.rstrip("/")


def _serves(words: Sequence[str]) -> bool:
    """Is it `llama-server ...` or `corral serve ...`, as a script that an interpreter runs?"""
    for i, word in enumerate(words[:6]):
        name = word.rpartition("/")[2]
        if name == "llama-server" or (name in ("corral", "corral.cli") and words[i + 1 : i + 2] == ["serve"]):
            return True
    return False


def listening(pid: int) -> Iterator[Address]:
    """The sockets of this process that accept connections: TCP first."""
    inodes = set()
    try:
        for name in os.listdir(f"/proc/{pid}/fd"):
            try:
                target = os.readlink(f"/proc/{pid}/fd/{name}")
            except OSError:
                continue  # closed meanwhile
            if target.startswith("socket:["):
                inodes.add(target[8:-1])
    except OSError as error:
        raise Unhealthy(
            f"can't see what process {pid} listens on ({error.strerror}); run as its user, or give a URL"
        ) from None
    for table in ("tcp", "tcp6"):
        for fields in _rows(pid, table, 10):
            if fields[3] == LISTEN and fields[9] in inodes:
                yield _tcp_address(fields[1])
    for fields in _rows(pid, "unix", 8):
        if int(fields[3], 16) & ACCEPTS and fields[6] in inodes:
            yield fields[7]


def _rows(pid: int, table: str, columns: int) -> Iterator[list[str]]:
    try:
        with open(f"/proc/{pid}/net/{table}", encoding="utf-8", errors="surrogateescape") as file:
            next(file, None)  # the heading
            for line in file:
                fields = line.split(maxsplit=columns - 1 if table == "unix" else -1)
                if len(fields) >= columns:
                    yield [field.rstrip("\n") for field in fields]
    except OSError:
        return


def _tcp_address(text: str) -> tuple[str, int]:
    """`0100007F:1F90` is 127.0.0.1:8080: words of 32 bits in the machine's order. Any address means ours.

    What listens on `::` is asked over IPv4 where the machine, as many a container, has no other.
    """
    digits, _, port = text.partition(":")
    words = [int(digits[i : i + 8], 16).to_bytes(4, sys.byteorder) for i in range(0, len(digits), 8)]
    packed = b"".join(words)
    family = socket.AF_INET if len(packed) == 4 else socket.AF_INET6
    if not any(packed):
        six = family == socket.AF_INET6 and _has_ipv6()
        return ("::1" if six else "127.0.0.1"), int(port, 16)
    return socket.inet_ntop(family, packed), int(port, 16)


def _has_ipv6() -> bool:
    try:
        with open("/proc/net/if_inet6", encoding="ascii") as file:
            return bool(file.read(1))
    except OSError:
        return False


# -- asking --------------------------------------------------------------------------------------------------


def _get(address: Address, path: str, deadline: float, tls: bool = False) -> bytes:
    """What the server answers, of which nothing when it closes the connection at once."""
    family = socket.AF_UNIX if isinstance(address, str) else socket.AF_INET
    if not isinstance(address, str):
        family = socket.getaddrinfo(*address, type=socket.SOCK_STREAM)[0][0]
    with socket.socket(family, socket.SOCK_STREAM) as sock:
        sock.settimeout(_left(deadline))
        sock.connect(address)
        return _exchange(_wrapped(sock) if tls else sock, path, deadline)


def _wrapped(sock: socket.socket) -> socket.socket:
    import ssl  # only where it is needed

    # the certificate names the public host; who owns the socket we know from the kernel
    context = ssl.create_default_context()
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return context.wrap_socket(sock)


def _exchange(sock: socket.socket, path: str, deadline: float) -> bytes:
    sock.sendall(f"GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n".encode())
    answer = b""
    try:
        while len(answer) < MOST_BYTES:
            sock.settimeout(_left(deadline))
            piece = sock.recv(MOST_BYTES)
            if not piece:
                break
            answer += piece
    except ConnectionError:
        pass  # a server that expects TLS hangs up on us
    return answer


def _left(deadline: float) -> float:
    left = deadline - time.monotonic()
    if left <= 0:
        raise TimeoutError
    return left
