"""The log: the `logging` module, set up once by whoever owns the process."""

from __future__ import annotations

import json
import logging
import sys
from typing import Literal, TextIO

from corral.config import ServerConfig
from corral.errors import CorralError, OptionError

TRACE = 5
"""Below DEBUG: everything."""
LEVELS = {
    0: logging.CRITICAL,
    1: logging.ERROR,
    2: logging.WARNING,
    3: logging.INFO,
    4: logging.DEBUG,
}
"""Level of `logging` by verbosity; more is TRACE, less is silence."""
COLORS = {logging.WARNING: "33", logging.ERROR: "31", logging.CRITICAL: "31;1", logging.DEBUG: "2"}
"""SGR codes of the terminal."""


def setup(config: ServerConfig, stream: TextIO | None = None) -> None:
    """Sends what is logged to `stream` (None: by --log-stream) and to the log file, shaped as flags ask for.

    Raises:
        OptionError: the log file can't be written.
    """
    shown = logging.StreamHandler(stream) if stream else StandardHandler(config.log_stream)
    colored = config.log_colors == "on" or (config.log_colors == "auto" and shown.stream.isatty())
    handlers: list[logging.Handler] = [shown]
    handlers[0].setFormatter(_formatter(config, colored))
    if config.log_file is not None:
        try:
            handlers.append(logging.FileHandler(config.log_file, encoding="utf-8"))
        except OSError as error:
            raise OptionError(f"error: --log-file {config.log_file}: can't write: {error.strerror}") from None
        handlers[1].setFormatter(_formatter(config, colored=False))
    silent = config.verbosity < 0
    level = logging.CRITICAL + 1 if silent else LEVELS.get(config.verbosity, TRACE)
    logging.basicConfig(level=level, handlers=handlers, force=True)


def say_why(error: CorralError) -> bool:
    """Log what ends the program, as and where all else is logged; False if errors are not logged."""
    logger = logging.getLogger("corral")
    logger.error("%s", str(error).removeprefix("error: "))
    return logger.isEnabledFor(logging.ERROR)


class StandardHandler(logging.StreamHandler[TextIO]):
    """Writes to what `sys.stderr` or `sys.stdout` is at the moment: a progress bar puts itself there."""

    def __init__(self, which: Literal["stderr", "stdout"]) -> None:
        self._which = which
        super().__init__(getattr(sys, which))

    def emit(self, record: logging.LogRecord) -> None:
        self.stream = getattr(sys, self._which)
        super().emit(record)


def _formatter(config: ServerConfig, colored: bool) -> logging.Formatter:
    if config.log_jsonl:
        return JsonFormatter()
    return LineFormatter(prefix=config.log_prefix, timestamps=config.log_timestamps, colored=colored)


class LineFormatter(logging.Formatter):
    """A message a line. Without `prefix` only what is worse than information is marked as such."""

    def __init__(self, *, prefix: bool, timestamps: bool, colored: bool) -> None:
        super().__init__()
        self.prefix, self.timestamps, self.colored = prefix, timestamps, colored

    def format(self, record: logging.LogRecord) -> str:
        text = super().format(record)
        level = record.levelname.lower()
        if self.prefix:
            text = f"{level} {record.name}: {text}"
        elif record.levelno >= logging.WARNING:
            text = f"{level}: {text}"
        if self.timestamps:
            text = f"{self.formatTime(record)} {text}"
        color = COLORS.get(record.levelno)
        return f"\x1b[{color}m{text}\x1b[0m" if self.colored and color else text


class JsonFormatter(logging.Formatter):
    """A JSON object a line: `time` (seconds since 1970), `level`, `logger`, `message`, `traceback` if any.

    A record with `fields` has those too: see `server/access_log.py`.
    """

    def format(self, record: logging.LogRecord) -> str:
        entry: dict[str, object] = {
            "time": round(record.created, 6),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
        }
        entry |= getattr(record, "fields", {})
        if record.exc_info:
            entry["traceback"] = self.formatException(record.exc_info)
        return json.dumps(entry, ensure_ascii=False)
