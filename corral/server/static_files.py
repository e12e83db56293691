"""Files of a folder, where there is no route: `--path`."""

from __future__ import annotations

from pathlib import Path

from starlette.exceptions import HTTPException
from starlette.staticfiles import StaticFiles
from starlette.types import ASGIApp, Receive, Scope, Send

from corral.errors import OptionError


def check_folder(folder: str | None) -> None:
    """Raises OptionError."""
    if folder is not None and not Path(folder).is_dir():
        raise OptionError(f"error: --path {folder}: not a folder")


class NoRoute:
    """Answers what no route answers: a file if there is one, else 404.

    A folder's `index.html` stands for the folder. What is outside of the folder is not there, neither by
    `..` nor by a symbolic link.
    """

    def __init__(self, folder: str | None, prefix: str) -> None:
        self._prefix = prefix
        self._files: ASGIApp | None = None
        if folder is not None:
            self._files = StaticFiles(directory=folder, html=True, check_dir=False)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if (
            self._files is None
            or scope["method"] not in ("GET", "HEAD")
            or not scope["path"].startswith(self._prefix + "/")
        ):
            raise HTTPException(404)
        try:
            await self._files({**scope, "root_path": self._prefix}, receive, send)
        except HTTPException as error:  # also for a file that may not be read
            raise HTTPException(404) from error
