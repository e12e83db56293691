"""The exception tree.

Three kinds, never mixed: the caller's mistake (`RequestError`, `ModelFileError`,
`OptionError`, `DownloadError`), the state of
the system (`Unavailable`, `Overloaded`), and our own bug (`InternalError`, or any exception that is not a
`CorralError`). Each leaf knows the HTTP status and the `type` of llama-server's error envelope.
"""

from __future__ import annotations

from typing import Any


class CorralError(Exception):
    """Base of everything corral raises on purpose."""

    status = 500
    type = "server_error"
    retry_after: int = 0
    """Seconds after which the same may work; 0: it will not."""

    def extra(self) -> dict[str, Any]:
        """Further members of the error envelope, beside code, message and type."""
        return {}


class ModelFileError(CorralError):
    """A model file that can't be used. One line: file, field, value, what would be right."""

    def __init__(self, path: object, field: str, value: object, expected: str) -> None:
        self.path, self.field, self.value, self.expected = str(path), field, value, expected
        shown = str(value)
        if len(shown) > 120:
            shown = shown[:117] + "..."
        super().__init__(f"{self.path}: {field} is {shown!s}, expected {expected}".replace("\n", " "))


class OptionError(CorralError):
    """A command-line flag, environment variable or configuration value that can't be used."""


class DownloadError(CorralError):
    """A model that can't be fetched. One line: the address, what happened, what to do."""


class RequestError(CorralError):
    """The client's mistake."""

    status = 400
    type = "invalid_request_error"


class AuthenticationError(RequestError):
    status = 401
    type = "authentication_error"


class NotFound(RequestError):
    status = 404
    type = "not_found_error"


class PayloadTooLarge(RequestError):
    status = 413


class NotSupported(RequestError):
    """A sound request for something this server, model or build can't do."""

    status = 501
    type = "not_supported_error"


class ContextSizeError(RequestError):
    """A prompt that can never fit."""

    type = "exceed_context_size_error"

    def __init__(self, n_prompt_tokens: int, n_ctx: int, *, at_least: bool = False) -> None:
        """`at_least`: the prompt has so many tokens or more; nobody has counted them."""
        self.n_prompt_tokens, self.n_ctx = n_prompt_tokens, n_ctx
        super().__init__(
            f"request ({'at least ' * at_least}{n_prompt_tokens} tokens) exceeds the available context size "
            f"({n_ctx} tokens), try increasing --ctx-size"
        )

    def extra(self) -> dict[str, Any]:
        return {"n_prompt_tokens": self.n_prompt_tokens, "n_ctx": self.n_ctx}


class InputTooLarge(ContextSizeError):
    """A text to embed that can never fit."""

    def __init__(self, n_prompt_tokens: int, n_ctx: int, *, at_least: bool = False) -> None:
        super().__init__(n_prompt_tokens, n_ctx)
        self.args = (
            f"input ({'at least ' * at_least}{n_prompt_tokens} tokens) is too large to process: it exceeds "
            f"the available context size ({n_ctx} tokens)",
        )


class Unavailable(CorralError):
    """The model is loading or the engine is restarting: try again soon."""

    status = 503
    type = "unavailable_error"

    def __init__(self, message: str, retry_after: int = 1) -> None:
        self.retry_after = retry_after
        super().__init__(message)


class Overloaded(CorralError):
    """The queue is full."""

    status = 429
    type = "unavailable_error"

    def __init__(self, message: str, retry_after: int = 1) -> None:
        self.retry_after = retry_after
        super().__init__(message)


class InternalError(CorralError):
    """An invariant of ours was broken while serving one request."""
