"""Files of the Hugging Face hub, in its cache: one copy for all programs that use it.

The library brings resumption, locks between processes, and the layout of the cache. Importing it takes a
while, so only a process that downloads does (`corral/download/process.py`).
"""

from __future__ import annotations

import contextlib
import errno
import os
import warnings
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from typing import Any

from corral.config import DownloadConfig
from corral.download import places
from corral.download.choose import REVISION, choose, choose_file, snapshots, split_repo
from corral.download.progress import Progress
from corral.errors import DownloadError

TIMEOUT = 30.0
"""Seconds for the list of files."""


class Unreachable(DownloadError):
    """The hub did not answer: what the cache has may do."""


def download(config: DownloadConfig, progress: Progress) -> Path:
    """The first file of the model; further shards are beside it. Raises DownloadError."""
    assert config.hf_repo is not None
    repo, tag = split_repo(config.hf_repo)
    if config.offline:
        return cached(config, repo, tag)
    root = Path(config.output or config.hub_cache)
    if root.exists() and not os.access(root, os.W_OK):
        try:
            path = cached(config, repo, tag)
        except DownloadError:
            raise DownloadError(
                places.cant_write(root, PermissionError(errno.EACCES, "no permission"))
            ) from None
        progress.note(f"{root} can't be written: what is in it is used as it is")
        return path
    try:
        return _download(config, repo, tag, progress)
    except Unreachable as error:
        try:
            path = cached(config, repo, tag)
        except DownloadError:
            raise error from None
        progress.note(f"{error}; using {path}, which is here already")
        return path


def cached(config: DownloadConfig, repo: str, tag: str) -> Path:
    """The same from what is here already: of the newest revision that has it whole. Raises DownloadError."""
    folders = [Path(config.output)] if config.output else snapshots(Path(config.hub_cache), repo)
    for folder in folders:
        files = [
            str(path.relative_to(folder)) for path in folder.rglob("*.gguf") if path.is_file()
        ]  # a link whose file is gone is none
        with contextlib.suppress(DownloadError):
            return folder / _choose(config, files, repo, tag)[0]
    where = config.output or config.hub_cache
    raise DownloadError(
        f"{config.hf_repo} is not in {where}, and --offline forbids to fetch it; "
        f"`corral pull {config.hf_repo}` does"
    )


def _choose(config: DownloadConfig, files: list[str], repo: str, tag: str) -> list[str]:
    return choose_file(files, config.hf_file, repo) if config.hf_file else choose(files, tag, repo)


def _download(config: DownloadConfig, repo: str, tag: str, progress: Progress) -> Path:
    from huggingface_hub import HfApi

    api = HfApi(
        endpoint=config.endpoint, token=config.hf_token or False, library_name="corral"
    )  # False: not one that the library might find by itself
    with _plain_errors(config, repo):
        info = api.model_info(repo, revision=REVISION, files_metadata=True, timeout=TIMEOUT)
    siblings = {sibling.rfilename: sibling for sibling in info.siblings or []}
    names = _choose(config, list(siblings), repo, tag)
    if any(name.startswith("/") or ".." in name.split("/") for name in names):
        raise DownloadError(f"{repo} has a file with an unsafe name: {names[0]!r}")
    root = Path(config.output or config.hub_cache)
    places.make_folder(root)
    paths = []
    for name in names:
        sibling = siblings[name]
        sum_of_file = sibling.lfs.sha256 if sibling.lfs else ""
        paths.append(_file(config, repo, name, sibling.size, sum_of_file, progress))
    return paths[0]


def _file(
    config: DownloadConfig, repo: str, name: str, size: int | None, sha256: str, progress: Progress
) -> Path:
    from huggingface_hub import hf_hub_download

    bar = _bar_class(progress, Path(config.output or config.hub_cache), name, size)
    with _plain_errors(config, repo), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of a full disk: our own error is next
        path = Path(
            hf_hub_download(
                repo,
                name,
                revision=REVISION,
                cache_dir=config.hub_cache,
                local_dir=config.output,
                endpoint=config.endpoint,
                token=config.hf_token or False,
                library_name="corral",
                tqdm_class=bar,
            )
        )
    if bar.came and sha256:
        found = places.file_sha256(path)
        if found != sha256:
            path.resolve().unlink()
            path.unlink(missing_ok=True)
            raise DownloadError(
                f"{name} of {repo}: sha256 is {found}, expected {sha256}; what came was deleted"
            )
    return path


def _bar_class(progress: Progress, folder: Path, name: str, size: int | None) -> Any:
    """What the library takes for a bar: the members of tqdm that it uses."""

    class Reported:
        came = 0
        """Bytes from the network."""

        def __init__(self, *, total: int | None = None, initial: int = 0, **_more: Any) -> None:
            self.total, self.n = total or size, initial
            if self.total:
                places.check_space(folder, self.total - initial, name)
            progress.start(name.rpartition("/")[2], self.total, initial)

        def update(self, count: float | None = 1) -> None:
            Reported.came += int(count or 0)
            progress.advance(int(count or 0))

        def update_transfer(self, count: float) -> None:
            """Bytes on the wire. That it is here keeps the library from making a second bar for them."""

        def __enter__(self) -> Reported:
            return self

        def __exit__(self, *_: object) -> None:
            self.close()

        def close(self) -> None:
            progress.finish()

        def __getattr__(self, _name: str) -> Any:
            return lambda *_, **__: None  # set_description, refresh and the like

    return Reported


@contextlib.contextmanager
def _plain_errors(config: DownloadConfig, repo: str) -> Iterator[None]:
    """What the library raises, as a DownloadError that says what to do."""
    from huggingface_hub import errors

    requests = http_library()
    page = f"{config.endpoint}/{repo}"
    try:
        yield
    except errors.GatedRepoError:
        how = (
            "your token has no access yet; accept the terms on its page"
            if config.hf_token
            else "accept the terms on its page, then give --hf-token or HF_TOKEN"
        )
        raise DownloadError(f"{page} is gated: {how}") from None
    except errors.RepositoryNotFoundError as error:
        status = error.response.status_code
        if status == 401 and config.hf_token:
            raise DownloadError(f"{page}: 401: the token of --hf-token or HF_TOKEN is not valid") from None
        how = "check the name" + (
            "" if config.hf_token else "; if it is private, give --hf-token or HF_TOKEN"
        )
        raise DownloadError(f"{page}: {status}: no such model: {how}") from None
    except errors.LocalEntryNotFoundError as error:
        raise _of_cause(error, page) from None
    except errors.HfHubHTTPError as error:
        status = error.response.status_code
        if status >= 500 or status == 429:
            raise Unreachable(f"{page}: the hub answers with status {status}; try again later") from None
        raise DownloadError(f"{page}: {status}: {_refusal(status, config.hf_token)}") from None
    except errors.OfflineModeIsEnabled:
        raise Unreachable(f"{page}: HF_HUB_OFFLINE is set") from None
    except (requests.HTTPError, requests.InvalidURL) as error:
        raise Unreachable(f"{page}: no answer: {str(error) or type(error).__name__}") from None
    except OSError as error:
        if error.errno is None:  # the library's own: a size that is wrong, for example
            raise DownloadError(f"{page}: {' '.join(str(error).split())[:300]}") from None
        path = Path(os.fsdecode(error.filename or config.output or config.hub_cache))
        raise DownloadError(places.cant_write(path, error)) from None


def _refusal(status: int, token: str | None) -> str:
    if status not in (401, 403):
        return "refused"
    if not token:
        return "not for everybody; give --hf-token or HF_TOKEN"
    return "the token is not valid" if status == 401 else "the token may not read this model"


def http_library() -> Any:
    """What the hub's library sends requests with: httpx, or since its version 2 httpx2."""
    from huggingface_hub.errors import HfHubHTTPError

    return import_module(HfHubHTTPError.__bases__[0].__module__.partition(".")[0])


def _of_cause(error: BaseException, page: str) -> DownloadError:
    """The library raises "not found locally" whatever kept it from asking."""
    while error.__cause__ is not None:
        error = error.__cause__
    return Unreachable(f"{page}: no answer: {' '.join(str(error).split())[:200]}")
