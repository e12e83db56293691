"""The table of flags against itself, against the configuration it fills, and against the contract."""

from __future__ import annotations

import dataclasses
import re
from pathlib import Path

import pytest

from corral import usage
from corral.config import DownloadConfig, EngineConfig, ModelConfig, ServerConfig
from corral.flag import Flag, Mode
from corral.options import FLAGS, OTHER_VARIABLES
from corral.sampling.params import SamplingParams

ROOT = Path(__file__).resolve().parent.parent
BY_NAME = {name: flag for flag in FLAGS for name in (*flag.names, *flag.off_names)}
VARIABLES = {name for flag in FLAGS for name in (*flag.env, *flag.off_env)} | OTHER_VARIABLES.keys()
SECTIONS = {"model": ModelConfig, "download": DownloadConfig, "engine": EngineConfig, "server": ServerConfig}
FIELDS = {
    f"{section}.{field}"
    for section, kind in SECTIONS.items()
    for field in (item.name for item in dataclasses.fields(kind))
} | {f"sampling.{field}" for field in SamplingParams.__struct_fields__}


def test_no_name_twice() -> None:
    names = [name for flag in FLAGS for name in (*flag.names, *flag.off_names)]
    assert sorted(names) == sorted(set(names))
    variables = [name for flag in FLAGS for name in (*flag.env, *flag.off_env)]
    assert sorted(variables) == sorted(set(variables))


@pytest.mark.parametrize("flag", FLAGS, ids=lambda flag: flag.name)
def test_row(flag: Flag) -> None:
    assert all(re.fullmatch(r"--?[A-Za-z0-9][A-Za-z0-9.-]*", name) for name in (*flag.names, *flag.off_names))
    assert all(re.fullmatch(r"[A-Z][A-Z0-9_]*", name) for name in (*flag.env, *flag.off_env))
    assert flag.help == flag.help.strip() != ""
    assert not flag.off_names or flag.is_switch
    assert bool(flag.reason) == (flag.mode in (Mode.ACCEPTED, Mode.REFUSED))
    assert bool(flag.field) == (flag.mode is Mode.WORKS)


@pytest.mark.parametrize("flag", [flag for flag in FLAGS if flag.field], ids=lambda flag: flag.name)
def test_a_working_flag_has_a_field(flag: Flag) -> None:
    checked_elsewhere = {"action", "engine.threads_batch"}
    assert flag.field in FIELDS | checked_elsewhere or flag.field.startswith("rope.")


def _default_of(field: str) -> object:
    section, name = field.split(".", 1)
    if section == "rope":
        return None
    if section == "sampling":
        return getattr(SamplingParams(), name)
    return next(item.default for item in dataclasses.fields(SECTIONS[section]) if item.name == name)


@pytest.mark.parametrize(
    "flag",
    [f for f in FLAGS if "." in f.field and f.default not in (None, "") and f.on is True],
    ids=lambda flag: flag.name,
)
def test_the_default_shown_is_the_default_used(flag: Flag) -> None:
    shown = flag.default if isinstance(flag.default, bool) else flag.kind.read(str(flag.default))
    expected = _default_of(flag.field)
    # None means 'as if not given'
    assert shown is None or shown == expected


@pytest.mark.parametrize("flag", [f for f in FLAGS if f.mode is Mode.PLANNED], ids=lambda flag: flag.name)
def test_a_planned_default_is_let_through(flag: Flag) -> None:
    if flag.default is None:
        assert flag.default not in flag.same
    else:
        value = flag.default if flag.is_switch else flag.kind.read(str(flag.default))
        assert value in flag.same


# -- the contract --------------------------------------------------------------------------------------------


@pytest.fixture(scope="session")
def contract_text(shared_dir: Path) -> str:
    path = shared_dir / "guide" / "contract-flags.md"
    if not path.is_file():
        pytest.skip(f"no contract: {path} does not exist")
    return path.read_text(encoding="utf-8")


def _contract_rows(text: str) -> list[tuple[list[str], list[str], str]]:
    """(names, variables, mode) of each row of sections c.1 to c.3."""
    rows = []
    for line in text.splitlines():
        cells = [cell.strip() for cell in re.split(r"(?<!\\)\|", line)[1:-1]]
        if len(cells) == 6 and cells[4] in ("impl", "accept", "later"):
            names = re.findall(r"(?<![\w\[<-])--?[A-Za-z][\w.-]*", cells[0].split("`")[1])
            rows.append((names, re.findall(r"`(\w+)`", cells[1]), cells[4]))
    return rows


def test_every_row_of_the_contract_is_in_the_table(contract_text: str) -> None:
    rows = _contract_rows(contract_text)
    assert len(rows) == 255
    missing = {name for names, _, _ in rows for name in names} - BY_NAME.keys()
    assert not missing
    missing = {name for _, variables, _ in rows for name in variables} - VARIABLES
    assert not missing


def test_the_names_of_a_row_are_one_flag(contract_text: str) -> None:
    for names, variables, _ in _contract_rows(contract_text):
        assert len({id(BY_NAME[name]) for name in names}) == 1, names
        flag = BY_NAME[names[0]]
        own = set(variables) - {"HF_TOKEN"}  # set everywhere, also by people who download nothing
        assert own <= {*flag.env, *flag.off_env}, names


def test_modes_of_the_contract(contract_text: str) -> None:
    allowed = {
        "impl": {Mode.WORKS, Mode.PLANNED, Mode.ACCEPTED},
        "accept": {Mode.ACCEPTED, Mode.PLANNED},
        "later": {Mode.REFUSED},
    }
    # without effect here although the contract has them do something; each row gives its reason
    no_effect = {
        "--swa-full",
        "--flash-attn",
        "--repack",
        "--threads-http",
        "--slot-prompt-similarity",
        "--cont-batching",
    }
    for names, _, mode in _contract_rows(contract_text):
        flag = BY_NAME[names[0]]
        assert flag.mode in allowed[mode], names
        if mode == "impl" and flag.mode is Mode.ACCEPTED:
            assert flag.name in no_effect
        if mode == "accept":
            assert flag.mode is Mode.ACCEPTED, names


def test_old_names_of_the_contract(contract_text: str) -> None:
    section = contract_text.split("### c.4")[1].split("### c.5")[0]
    rows = [line for line in section.splitlines() if line.startswith("| `") and "`full` image" not in line]
    assert len(rows) >= 17
    for line in rows:
        cell = line.split("|")[1]
        for name in re.findall(r"(?<![\w=-])--?[a-z][\w-]*", cell):
            name = {"-m": "--spec-ngram-size-m"}.get(name, name)
            assert name in BY_NAME, line
        for name in re.findall(r"LLAMA_ARG_\w+", cell):
            assert name in VARIABLES, line


def test_other_variables_of_the_contract(contract_text: str) -> None:
    section = contract_text.split("### c.5")[1]
    names = {
        name
        for line in section.splitlines()
        if line.startswith("| `")
        for name in re.findall(r"`(\w+)`", line.split("|")[1])
    }
    assert len(names) > 15
    assert names <= VARIABLES


# -- what is made of it --------------------------------------------------------------------------------------


def test_the_page_of_flags_is_current() -> None:
    written = (ROOT / "docs" / "options.md").read_text(encoding="utf-8")
    assert written == usage.markdown(), "run: python -m corral.usage > docs/options.md"


@pytest.mark.parametrize("width", [72, 80, 200])
def test_help_fits_the_terminal(width: int) -> None:
    text = usage.help_text("llama-server", width)
    long = [line for line in text.splitlines() if len(line) > min(width, 110)]
    # a single word, such as a flag with a long list of choices, may stick out
    assert all(len(line.split()) <= 3 for line in long), long
    assert "--ctx-size N" in text
    assert "(env: LLAMA_ARG_CTX_SIZE)" in text
    assert "(default: 8080)" in text


def test_help_names_every_flag() -> None:
    text = usage.help_text("llama-server", 100)
    words = set(re.findall(r"--[\w.-]+", text))
    absent = {f.name for f in FLAGS if not f.hidden and not {*f.names, *f.off_names} & words}
    assert not absent


def test_help_lists_the_name_that_asks_for_a_change() -> None:
    planned = usage.help_text("llama-server", 100).split("Not built yet")[1]
    assert "--no-cont-batching" in planned
    assert " --cont-batching" not in planned


def test_bash_completion_is_bash() -> None:
    import shutil
    import subprocess

    bash = shutil.which("bash")
    if bash is None:
        pytest.skip("no bash")
    script = usage.bash_completion("llama-server") + (
        'COMP_WORDS=(llama-server --ctx); COMP_CWORD=1; _llama_server; echo "${COMPREPLY[*]}"\n'
        'COMP_WORDS=(llama-server --isa avx2); COMP_CWORD=2; _llama_server; echo "${COMPREPLY[*]}"\n'
    )
    out = subprocess.run([bash, "-c", script], capture_output=True, text=True, check=True).stdout
    assert out.splitlines() == ["--ctx-checkpoints --ctx-size", "avx2"]
