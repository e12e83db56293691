"""From argv, environment and configuration files to values, by the table of `corral/options.py`.

The order of precedence is default < /etc/llama.cpp/config.ini < the user's config.ini < environment < command
line. Nothing else in corral reads an environment variable.
"""

from __future__ import annotations

import enum
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from corral.config import DownloadConfig, EngineConfig, Parsed
from corral.errors import OptionError
from corral.flag import Flag, Mode
from corral.options import FLAGS, OTHER_VARIABLES

SYSTEM_FILE = Path("/etc/llama.cpp/config.ini")


class Source(enum.IntEnum):
    """Where a value comes from; a later one wins."""

    SYSTEM_FILE = 1
    USER_FILE = 2
    ENVIRONMENT = 3
    COMMAND_LINE = 4


class Given(NamedTuple):
    """One value that someone gave to one flag."""

    flag: Flag
    value: Any
    name: str
    """As it was written: a flag's name, a variable, or a key and its file."""
    source: Source


def parse(argv: Sequence[str], environ: Mapping[str, str], system_file: Path = SYSTEM_FILE) -> Parsed:
    """The values that reach the configuration, and what to warn about.

    A flag like --help ends the reading: the result is then `{"action": "help"}` and nothing else.

    Raises:
        OptionError: an unknown flag, a value that can't be used, or a flag that this version does not have;
            the message is complete, possibly of several lines.
    """
    command_line = list(_from_command_line(argv))
    for given in command_line:
        if given.flag.field == "action":
            return Parsed({"action": given.value})
    warnings: list[str] = []
    everything = [
        *_from_file(system_file, Source.SYSTEM_FILE),
        *_from_file(_user_file(environ), Source.USER_FILE),
        *_from_environment(environ, warnings),
        *command_line,
    ]
    effective = _winners(everything, warnings)
    for given in effective:
        _check_mode(given, warnings)
    values = _fold((given for given in effective if given.flag.field), warnings)
    _check_together(values, warnings)
    if "download.hf_repo" in values or "download.model_url" in values:
        values |= {f"download.{name}": value for name, value in download_places(environ).items()}
    return Parsed(values, warnings)


def forced_isa(environ: Mapping[str, str]) -> str:
    """The ISA variant for `corral bench` without --isa: the server's variable counts there, too."""
    return environ.get("CORRAL_ISA", "").strip() or EngineConfig().isa


def download_places(environ: Mapping[str, str]) -> dict[str, str]:
    """Fields of DownloadConfig that variables decide: the caches, and where the hub is."""
    home = environ.get("XDG_CACHE_HOME") or f"{environ.get('HOME') or '/tmp'}/.cache"
    hub_home = environ.get("HF_HOME") or f"{home}/huggingface"
    hub_names = ("LLAMA_CACHE", "HF_HUB_CACHE", "HUGGINGFACE_HUB_CACHE")
    endpoint = environ.get("MODEL_ENDPOINT") or environ.get("HF_ENDPOINT") or DownloadConfig().endpoint
    return {
        "hub_cache": next(filter(None, map(environ.get, hub_names)), f"{hub_home}/hub"),
        "url_cache": environ.get("LLAMA_CACHE") or f"{home}/llama.cpp",
        "endpoint": endpoint.rstrip("/"),
    }


# -- sources -------------------------------------------------------------------------------------------------


def _index() -> dict[str, tuple[Flag, bool]]:
    """Flag and whether it is turned on, by name."""
    return {name: (flag, True) for flag in FLAGS for name in flag.names} | {
        name: (flag, False) for flag in FLAGS for name in flag.off_names
    }


def _canonical(name: str) -> str:
    """`--ctx_size` is `--ctx-size`."""
    return name.replace("_", "-") if name.startswith("--") else name


def _from_command_line(argv: Sequence[str]) -> Iterator[Given]:
    index = _index()
    rest = list(reversed(argv))
    while rest:
        written = rest.pop()
        name, equals, inline = written.partition("=")
        name = _canonical(name)
        if name not in index:
            raise OptionError(_unknown(written, index))
        flag, on = index[name]
        try:
            words = [inline] if equals else _take(flag, rest, index)
            yield Given(flag, _read(flag, on, words), name, Source.COMMAND_LINE)
        except ValueError as error:
            message = f'error while handling argument "{name}": {error}\n\nusage:\n{_usage(flag)}'
            raise OptionError(message) from None
        if flag.field == "action":
            return


def _take(flag: Flag, rest: list[str], index: Mapping[str, object]) -> list[str]:
    """Removes the words of this flag's value from the end of `rest`."""
    if flag.is_switch:
        return []
    if flag.kind.bare:
        # what is no flag can only be its value, if a wrong one
        taken = rest and (not rest[-1].startswith("-") or _readable(flag, rest[-1]))
        return [rest.pop()] if taken else [flag.kind.bare]
    words = []
    for _ in range(flag.kind.words):
        if not rest or _canonical(rest[-1].partition("=")[0]) in index:
            raise ValueError("expected value for argument")
        words.append(rest.pop())
    return words


def _readable(flag: Flag, word: str) -> bool:
    try:
        flag.kind.read(word)
    except ValueError:
        return False
    return True


def _read(flag: Flag, on: bool, words: Sequence[str]) -> Any:
    for word in words:
        # a byte that is not UTF-8 arrives as a lone surrogate, which nothing can encode
        if not word.isascii() and any("\ud800" <= char <= "\udfff" for char in word):
            raise ValueError(f"expected UTF-8, got {word!r}")
    if flag.is_switch:
        # a switch may carry a word, as in --cont-batching=false
        return flag.on if on == all(flag.kind.read(word) for word in words) else flag.off
    return flag.kind.read(" ".join(words))


def _unknown(written: str, index: Mapping[str, object]) -> str:
    name = _canonical(written.partition("=")[0])
    message = f"error: invalid argument: {written}"
    if not name.startswith("-"):
        return f"{message}\n(it follows no flag; the model is --model FILE)"
    near = _nearest(name, index)
    return f"{message}\n(the nearest flag is {near})" if near else message


def _nearest(name: str, known: Iterable[str]) -> str | None:
    """The most similar known name, of the same letters if one is: `--prot` is `--port`, not `--prio`."""
    import difflib  # only needed for a message

    near = difflib.get_close_matches(name, list(known), n=3, cutoff=0.65)
    return max(near, key=lambda other: sorted(other) == sorted(name), default=None)


def _usage(flag: Flag) -> str:
    from corral.usage import entry  # only needed for this message

    return entry(flag, width=100)


def _from_environment(environ: Mapping[str, str], warnings: list[str]) -> Iterator[Given]:
    # an empty variable is an unset one: compose files pass LLAMA_ARG_X=${VAR:-}
    present = {name: text for name, text in environ.items() if text.strip()}
    for flag in FLAGS:
        for name in flag.env:
            if name in present:
                try:
                    yield Given(flag, _read(flag, True, [present[name]]), name, Source.ENVIRONMENT)
                except ValueError as error:
                    raise OptionError(
                        f'error while handling environment variable "{name}": {error}'
                    ) from None
        for name in flag.off_env:
            if name in present:
                yield Given(flag, flag.off, name, Source.ENVIRONMENT)
    known = {name for flag in FLAGS for name in (*flag.env, *flag.off_env)} | OTHER_VARIABLES.keys()
    for name in sorted(present):
        if name.startswith("LLAMA_ARG_") and name not in known:
            near = _nearest(name, known)
            hint = f" (the nearest is {near})" if near else ""
            warnings.append(f"{name} is not a variable of this server: ignored{hint}")


def _user_file(environ: Mapping[str, str]) -> Path | None:
    if environ.get("XDG_CONFIG_HOME"):
        return Path(environ["XDG_CONFIG_HOME"]) / "llama.cpp" / "config.ini"
    if environ.get("HOME"):
        return Path(environ["HOME"]) / ".config" / "llama.cpp" / "config.ini"
    return None


def _from_file(path: Path | None, source: Source) -> Iterator[Given]:
    """The values before the first section and in `[*]` or `[default]`: other sections describe single models.

    A key is a flag's name with or without its dashes, or its variable. Unknown keys are left alone.
    """
    if path is None:
        return
    try:
        content = path.read_text(encoding="utf-8")
    except (FileNotFoundError, NotADirectoryError, PermissionError):
        return
    except (OSError, UnicodeDecodeError) as error:
        raise OptionError(f"error: can't read {path}: {error}") from None

    import configparser  # only needed when there is a file

    ini = configparser.ConfigParser(
        default_section="*",
        interpolation=None,
        delimiters=("=",),
        inline_comment_prefixes=(";", "#"),
        strict=False,
    )
    ini.optionxform = str  # type: ignore[assignment,method-assign]  # keys keep their case: -lv is not -LV
    try:
        ini.read_string("[*]\n" + content, source=str(path))
    except configparser.Error as error:
        raise OptionError(f"error: {path} is not an INI file: {' '.join(str(error).split())}") from None
    index = _index()
    variables = {name: (flag, True) for flag in FLAGS for name in flag.env} | {
        name: (flag, False) for flag in FLAGS for name in flag.off_env
    }
    section = ini["default"] if ini.has_section("default") else ini["*"]
    for key, text in section.items():
        dashed = "-" + key.replace("_", "-")
        found = (
            variables.get(key) or index.get(_canonical(key)) or index.get("-" + dashed) or index.get(dashed)
        )
        if found is None or found[0].field == "action":
            continue
        flag, on = found
        try:
            yield Given(flag, _read(flag, on, [text]), f"{key} in {path}", source)
        except ValueError as error:
            raise OptionError(f'error while handling "{key}" in {path}: {error}') from None


# -- what they come to ---------------------------------------------------------------------------------------


def _winners(everything: Sequence[Given], warnings: list[str]) -> list[Given]:
    """Of each flag, what the strongest source said; of a flag that does not repeat, the last of it."""
    by_flag: dict[int, list[Given]] = {}
    for given in everything:
        by_flag.setdefault(id(given.flag), []).append(given)
    result = []
    for given_ones in by_flag.values():
        strongest = [given for given in given_ones if given.source == given_ones[-1].source]
        last = strongest[-1]
        if last.source is Source.COMMAND_LINE and last.flag.mode is not Mode.ACCEPTED:
            # one without effect overrides nothing: it has a warning of its own
            warnings.extend(
                f"{last.name} overrides the environment variable {given.name}"
                for given in given_ones
                if given.source is Source.ENVIRONMENT and given.value != last.value
            )
        if len(strongest) > 1 and not last.flag.kind.repeats:
            warnings.append(f"{last.name} is given {len(strongest)} times, the last one counts")
            strongest = [last]
        result.extend(strongest)
    order = {id(given): position for position, given in enumerate(everything)}
    return sorted(result, key=lambda given: (given.source, order[id(given)]))


def _check_mode(given: Given, warnings: list[str]) -> None:
    flag = given.flag
    if given.value is None or given.value in flag.same:
        return
    variable = given.source is Source.ENVIRONMENT
    name = f"{given.name} ({flag.name})" if variable and flag.names else given.name
    if flag.mode is Mode.PLANNED:
        shown = "" if flag.is_switch else f" {_shown(given.value)}"
        raise OptionError(f"error: {name}{shown} is not built yet (planned): {flag.help}")
    if flag.mode is Mode.REFUSED:
        raise OptionError(f"error: {name} is not supported: {flag.reason}")
    if flag.mode is Mode.ACCEPTED:
        warnings.append(f"{name} has no effect: {flag.reason}")


def _shown(value: Any) -> str:
    return ",".join(map(str, value)) if isinstance(value, tuple) else str(value)


def _fold(effective: Iterable[Given], warnings: list[str]) -> dict[str, Any]:
    """Values by field. Several flags may set one field: they join, or the last one replaces the others."""
    values: dict[str, Any] = {}
    setters: dict[str, Given] = {}
    for given in effective:
        field, merge = given.flag.field, given.flag.kind.merge
        earlier = setters.get(field)
        if (
            earlier
            and earlier.source == given.source
            and given.flag.kind.replaces
            and earlier.flag is not given.flag
        ):
            warnings.append(f"{given.name} replaces {earlier.name}")
        values[field] = merge(values.get(field), given.value)
        setters[field] = given
    return values


def _check_together(values: dict[str, Any], warnings: list[str]) -> None:
    """Values that only mean something beside another."""
    batch_threads = values.pop("engine.threads_batch", None)
    if batch_threads is not None and batch_threads != values.get("engine.threads"):
        warnings.append(
            f"--threads-batch {batch_threads} has no effect: prompts use the same pool as --threads"
        )
    if values.get("model.load_mode") == "dio":
        warnings.append("load mode dio (direct I/O) is not built: the file is read with mode none")
        values["model.load_mode"] = "none"
