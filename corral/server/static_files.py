"""Files of a folder, where there is no route: our chat page, or what `--path` names."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from starlette.datastructures import MutableHeaders
from starlette.exceptions import HTTPException
from starlette.responses import RedirectResponse
from starlette.staticfiles import StaticFiles
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from corral.config import ServerConfig
from corral.errors import OptionError

PAGE_FOLDER = Path(__file__).parent / "page"
PAGE_PATHS = ("", "/", *(f"/{file.name}" for file in sorted(PAGE_FOLDER.iterdir())))
"""What the chat page is made of: served without a key, and while a model loads."""
PAGE_HEADERS = {
    # the page loads nothing from elsewhere and runs no script but its own, whatever a model writes
    "Content-Security-Policy": "default-src 'self'; frame-ancestors 'none'; base-uri 'none'",
    "X-Content-Type-Options": "nosniff",
    "Cache-Control": "no-cache",
}


def check_folder(folder: str | None) -> None:
    """Raises OptionError."""
    if folder is not None and not Path(folder).is_dir():
        raise OptionError(f"error: --path {folder}: not a folder")


class NoRoute:
    """Answers what no route answers: a file if there is one, else 404.

    A folder's `index.html` stands for the folder. What is outside of the folder is not there, neither by
    `..` nor by a symbolic link.
    """

    def __init__(self, config: ServerConfig) -> None:
        self._prefix = config.api_prefix
        self._files: ASGIApp | None = None
        self._headers: Mapping[str, str] = {}
        if config.static_path is not None:
            self._files = StaticFiles(directory=config.static_path, html=True, check_dir=False)
        elif config.ui:
            self._files = StaticFiles(directory=PAGE_FOLDER, html=True)
            self._headers = PAGE_HEADERS

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        path = scope["path"]
        if (
            self._files is None
            or scope["method"] not in ("GET", "HEAD")
            or not (path + "/").startswith(self._prefix + "/")
        ):
            raise HTTPException(404)
        if path == self._prefix:  # without the slash the page's relative addresses would be wrong
            await RedirectResponse(path + "/")(scope, receive, send)
            return

        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                MutableHeaders(scope=message).update(self._headers)
            await send(message)

        try:
            await self._files({**scope, "root_path": self._prefix}, receive, send_with_headers)
        except HTTPException as error:  # also for a file that may not be read
            raise HTTPException(404) from error
