"""What the table of flags looks like: `--help`, one flag's entry, docs/options.md, bash completion.

`python -m corral.usage > docs/options.md` writes the page.
"""

from __future__ import annotations

import textwrap
from collections.abc import Iterator

from corral.flag import Flag, Mode
from corral.options import FLAGS, GROUPS, OTHER_VARIABLES

INDENT = 34


def _default(flag: Flag) -> str:
    if flag.default is None or flag.default == "":
        return ""
    if isinstance(flag.default, bool):
        return "on" if flag.default else "off"
    return str(flag.default)


def _head(flag: Flag) -> str:
    short_first = sorted(flag.names, key=lambda name: (name.startswith("--"), flag.names.index(name)))
    short = [name for name in short_first if not name.startswith("--")][:1]
    head = ", ".join([*short, flag.name] if flag.name not in short else short)
    if flag.off_names:
        head += f", {flag.off_names[0]}"
    return f"{head} {flag.kind.metavar}".rstrip()


def entry(flag: Flag, width: int) -> str:
    """The flag, its help, default and variables, wrapped to `width` columns."""
    notes = (
        [f"default: {_default(flag)}"] if _default(flag) and not (flag.is_switch and not flag.default) else []
    )
    notes += [f"env: {flag.env[0]}"] if flag.env else []
    if flag.mode is not Mode.WORKS:
        notes.append(flag.mode.value)
    # a no-break space holds each note on one line
    text = " ".join([flag.help, *(f"({note})".replace(" ", "\N{NO-BREAK SPACE}") for note in notes)])
    wrapped = textwrap.wrap(text, max(width - INDENT, 24), break_long_words=False, break_on_hyphens=False)
    body = [line.replace("\N{NO-BREAK SPACE}", " ") for line in wrapped]
    head = "  " + _head(flag)
    if len(head) < INDENT - 1:
        body[0] = f"{head:<{INDENT}}" + body[0]
        rest = body[1:]
    else:
        rest, body = body, [head]
    return "\n".join([body[0], *(" " * INDENT + line for line in rest)])


def help_text(program: str, width: int = 100) -> str:
    """Everything `--help` prints: what works, group by group, then the names of what does not."""
    width = min(max(width, 72), 110)
    lines = [f"usage: {program} --model FILE [flags]", ""]
    lines += textwrap.wrap(
        "Serves a GGUF language model over HTTP. Takes the flags and variables of llama-server; a flag wins "
        "over its variable, a variable over llama.cpp/config.ini.",
        width,
    )
    for group, flags in GROUPS.items():
        shown = [flag for flag in flags if flag.mode is Mode.WORKS and not flag.hidden]
        if shown:
            lines += ["", f"{group}:", *(entry(flag, width) for flag in shown)]
    for mode, title in (
        (Mode.PLANNED, "Not built yet (refused when the value would change something)"),
        (Mode.ACCEPTED, "Taken with a warning, without effect"),
        (Mode.REFUSED, "Not supported"),
    ):
        names = " ".join(_changing_name(flag) for flag in FLAGS if flag.mode is mode)
        wrapped = textwrap.wrap(names, width - 2, break_on_hyphens=False)
        lines += ["", f"{title}:", *("  " + line for line in wrapped)]
    return "\n".join(lines) + "\n"


def _changing_name(flag: Flag) -> str:
    """The name that asks for a change: the negated one of a switch that is on."""
    return flag.off_names[0] if flag.default is True and flag.off_names else flag.name


def bash_completion(program: str) -> str:
    """A script for `source <(llama-server --completion-bash)`: flags, file names, words of a choice."""
    flags = [flag for flag in FLAGS if flag.mode is not Mode.REFUSED]
    every_name = sorted({name for flag in flags for name in (*flag.names, *flag.off_names)})
    words = [("|".join(flag.names), " ".join(flag.kind.choices)) for flag in flags if flag.kind.choices]
    cases = [
        f"        {names}) COMPREPLY=($(compgen -W '{choices}' -- \"$word\"));;" for names, choices in words
    ]
    files = [name for flag in flags if flag.kind.metavar in ("FILE", "DIR") for name in flag.names]
    function = "_" + program.replace("-", "_").replace(" ", "_")
    return "\n".join(
        [
            f"{function}() {{",
            '    local word="${COMP_WORDS[COMP_CWORD]}" before="${COMP_WORDS[COMP_CWORD-1]}"',
            '    case "$before" in',
            f'        {"|".join(files)}) COMPREPLY=($(compgen -f -- "$word"));;',
            *cases,
            f"        *) COMPREPLY=($(compgen -W '{' '.join(every_name)}' -- \"$word\"));;",
            "    esac",
            "}",
            f"complete -o filenames -F {function} {program.split()[0]}",
            "",
        ]
    )


def _cell(text: str) -> str:
    return text.replace("|", "\\|") or "–"


def _code(names: tuple[str, ...]) -> str:
    return ", ".join(f"`{name}`" for name in names)


def _rows(flags: tuple[Flag, ...]) -> Iterator[str]:
    for flag in flags:
        names = _code((*flag.names, *flag.off_names)) + (f" {flag.kind.metavar}" if flag.kind.metavar else "")
        state = flag.mode.value + (f": {flag.reason}" if flag.reason else "")
        cells = (names, _code((*flag.env, *flag.off_env)), _default(flag), flag.help, state)
        yield "| " + " | ".join(_cell(cell) for cell in cells) + " |"


def markdown() -> str:
    """docs/options.md."""
    lines = [
        "# Flags and variables",
        "",
        "<!-- Written by `python -m corral.usage > docs/options.md` from corral/options.py: do not edit. -->",
        "",
        "Precedence: default < `/etc/llama.cpp/config.ini` < `$XDG_CONFIG_HOME/llama.cpp/config.ini` "
        "(or `~/.config/...`) < environment < command line. An empty variable counts as unset. "
        "`_` equals `-` in long flags, and `--flag=value` is the same as `--flag value`.",
        "",
        "| State | What happens |",
        "|---|---|",
        "| works | it does what it says |",
        "| not built yet | refuses to start, unless the value asks for what happens anyway |",
        "| no effect | taken, with one warning that gives the reason |",
        "| not supported | refuses to start, with the reason |",
    ]
    for group, flags in GROUPS.items():
        lines += [
            "",
            f"## {group}",
            "",
            "| Flag | Variable | Default | What | State |",
            "|---|---|---|---|---|",
        ]
        lines += _rows(flags)
    lines += ["", "## Other variables", "", "| Variable | What becomes of it |", "|---|---|"]
    lines += [f"| `{name}` | {what} |" for name, what in OTHER_VARIABLES.items()]
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    print(markdown(), end="")
