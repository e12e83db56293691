"""From what was asked for to a file of this machine."""

from __future__ import annotations

from pathlib import Path
from urllib.parse import urlsplit, urlunsplit

from corral.config import DownloadConfig
from corral.download import places, url
from corral.download.choose import shard_names
from corral.download.http import check_url
from corral.download.progress import Progress
from corral.errors import DownloadError


def fetch(config: DownloadConfig, progress: Progress) -> Path:
    """The file to load; of a split model, the first shard. Raises DownloadError."""
    if config.hf_repo is not None:
        from corral.download import hub

        return hub.download(config, progress)
    assert config.model_url is not None
    return _from_url(config, config.model_url, progress)


def _from_url(config: DownloadConfig, address: str, progress: Progress) -> Path:
    check_url(address)
    parts = urlsplit(address)
    # a token is for the hub, whoever else is asked
    token = config.hf_token if parts.netloc == urlsplit(config.endpoint).netloc else None
    addresses = [urlunsplit(parts._replace(path=path)) for path in shard_names(parts.path)]
    if len(addresses) > 1 and config.sha256:
        raise DownloadError(f"--sha256 is of one file, and {address} has {len(addresses)} shards")
    if len(addresses) > 1 and config.output and config.output.endswith(".gguf"):
        raise DownloadError(f"{address} has {len(addresses)} shards, expected a folder, got {config.output}")
    paths = [
        url.download(
            url.Job(
                url=each,
                target=places.url_path(each, config.url_cache, config.output),
                sha256=config.sha256 or "",
                token=token,
                offline=config.offline,
            ),
            progress,
        )
        for each in addresses
    ]
    return paths[0]
