"""CORS: which pages of other origins a browser lets call this server."""

from __future__ import annotations

from urllib.parse import urlsplit

from corral.config import ServerConfig

LOCAL_HOSTS = ("localhost", "127.0.0.1", "::1")


class Cors:
    """The CORS headers that the configuration asks for."""

    def __init__(self, config: ServerConfig) -> None:
        self._origins = frozenset(config.cors_origins)
        self.preflight = {
            "Access-Control-Allow-Methods": config.cors_methods,
            "Access-Control-Allow-Headers": config.cors_headers,
        }
        """Headers of the answer to an OPTIONS request."""
        if config.cors_credentials:
            self.preflight["Access-Control-Allow-Credentials"] = "true"

    def allows(self, origin: str) -> bool:
        """Whether a page of this origin, as `https://chat.example`, may read the answers."""
        if "*" in self._origins or origin in self._origins:
            return True
        return "localhost" in self._origins and _host(origin) in LOCAL_HOSTS


def _host(origin: str) -> str | None:
    try:
        return urlsplit(origin).hostname
    except ValueError:  # brackets that hold no address
        return None
