"""The ids recorded for real vocabularies, and how long it takes to get them."""

from __future__ import annotations

import random
import threading
import time
from pathlib import Path

import pytest

from corral.gguf.reader import GGUFFile
from corral.tokenizer.tokenizer import Tokenizer, load_tokenizer

NAMES = ["llama-spm", "llama-bpe", "qwen2"]
WORDPIECE = "bert-bge"  # which loses white space, case and accents
SEPARATOR = "\n__ggml_vocab_test__\n"
LENGTH = 100_000

# what llama.cpp gives for the texts below
SMOLLM2 = [1, 4093, 198, 11512, 81, 46316, 47, 216, 33, 34, 35, 2, 198]
GEMMA3 = [2, 105, 2364, 109, 138, 10979, 255969, 184, 10956, 163543, 238, 106, 137, 115]


@pytest.fixture(scope="module")
def tokenizers(vocab_dir: Path) -> dict[str, Tokenizer]:
    present = (name for name in (*NAMES, WORDPIECE) if name in NAMES or _path(vocab_dir, name).exists())
    return {name: load_tokenizer(GGUFFile.open(_path(vocab_dir, name))) for name in present}


def _path(vocab_dir: Path, name: str) -> Path:
    return vocab_dir / f"ggml-vocab-{name}.gguf"


def _skip_if_absent(vocab_dir: Path, name: str) -> None:
    if name == WORDPIECE and not _path(vocab_dir, name).exists():
        pytest.skip(f"no {_path(vocab_dir, name).name} in {vocab_dir}, a copy may lack it")


@pytest.mark.parametrize("name", [*NAMES, WORDPIECE])
def test_recorded_ids(tokenizers: dict[str, Tokenizer], vocab_dir: Path, name: str) -> None:
    _skip_if_absent(vocab_dir, name)
    with Path(f"{_path(vocab_dir, name)}.inp").open(encoding="utf-8", newline="") as file:
        texts = file.read().split(SEPARATOR)
    lines = Path(f"{_path(vocab_dir, name)}.out").read_text().split("\n")
    assert len(texts) > 40
    for text, line in zip(texts, lines, strict=False):
        ids = tokenizers[name].encode(text, add_special=False, parse_special=False)
        assert ids == [int(word) for word in line.split()], text


@pytest.mark.parametrize("name", NAMES)
def test_no_token_stands_for_more_than_the_longest(tokenizers: dict[str, Tokenizer], name: str) -> None:
    tokenizer = tokenizers[name]
    texts = [table.decode(errors="ignore") for table in tokenizer.token_bytes_table(special=True)]
    assert max(map(len, texts)) <= tokenizer.longest < 1000
    for text in (" " * 5000, "=" * 5000, "a" * 5000, "\n" * 5000, "-" * 5000, "的" * 5000):
        assert len(text) // tokenizer.longest <= len(tokenizer.encode(text))


@pytest.mark.parametrize("name", NAMES)
def test_no_text_is_lost(tokenizers: dict[str, Tokenizer], name: str) -> None:
    tokenizer, source = tokenizers[name], random.Random(1)
    for _ in range(300):
        text = "".join(
            chr(source.choice((32, 10, 65, 97, 233, 0x4F60, 0x1F600, source.randrange(0xD800))))
            for _ in range(20)
        )
        decoded = tokenizer.decode(tokenizer.encode(text, add_special=False, parse_special=False))
        assert decoded.removeprefix(b" " if name == "llama-spm" else b"") == text.encode()


@pytest.mark.parametrize(
    ("name", "special"),
    [
        ("llama-spm", {"bos": 1, "eos": 2, "unk": 0, "eot": None}),
        ("llama-bpe", {"bos": 128000, "eos": 128001, "unk": None, "eot": 128009}),
        ("qwen2", {"bos": 151643, "eos": 151643, "unk": None, "eot": 151645}),
        (WORDPIECE, {"bos": 101, "eos": None, "unk": 100, "sep": 102}),
    ],
)
def test_special_ids(
    tokenizers: dict[str, Tokenizer], vocab_dir: Path, name: str, special: dict[str, int | None]
) -> None:
    _skip_if_absent(vocab_dir, name)
    for role, id in special.items():
        assert getattr(tokenizers[name].special, role) == id


def test_a_chat_prompt(tokenizers: dict[str, Tokenizer]) -> None:
    text = "<|im_start|>user\nHi<|im_end|>\n"
    assert tokenizers["qwen2"].encode(text) == [151644, 872, 198, 13048, 151645, 198]


@pytest.mark.slow
@pytest.mark.parametrize(
    "text", ["a", " ", "1", "\n", "!", "😀", "\0", "e\u0301", " a", "<|", "中", "\r\n x"]
)
@pytest.mark.parametrize("name", NAMES)
def test_long_texts_take_linear_time(tokenizers: dict[str, Tokenizer], name: str, text: str) -> None:
    whole = (text * LENGTH)[:LENGTH]
    start = time.perf_counter()
    ids = tokenizers[name].encode(whole, add_special=False)
    # tens of milliseconds when the machine is idle; anything quadratic takes minutes
    assert time.perf_counter() - start < 2
    assert tokenizers[name].decode(ids).endswith(whole.encode())


@pytest.mark.slow
def test_encoding_leaves_other_threads_running(tokenizers: dict[str, Tokenizer]) -> None:
    for tokenizer in tokenizers.values():
        text = "the quick brown fox jumps over the lazy dog. " * 40_000
        thread = threading.Thread(target=tokenizer.encode, args=(text,))
        worst, last = 0.0, time.perf_counter()
        thread.start()
        while thread.is_alive():
            time.sleep(0.001)
            now = time.perf_counter()
            worst, last = max(worst, now - last), now
        assert worst < 0.25


@pytest.mark.model
def test_smollm2(smollm2_path: Path) -> None:
    tokenizer = load_tokenizer(GGUFFile.open(smollm2_path))
    assert tokenizer.encode("<|im_start|>user\nça va? 123<|im_end|>\n") == SMOLLM2
    assert (tokenizer.bos_id, tokenizer.eos_id, tokenizer.add_bos, tokenizer.warnings) == (1, 2, False, ())
    assert {0, 2} <= tokenizer.eog_ids


@pytest.mark.model
def test_gemma3(gemma3_path: Path) -> None:
    tokenizer = load_tokenizer(GGUFFile.open(gemma3_path))
    assert (
        tokenizer.encode("<start_of_turn>user\n\n\n  Hi\t\t<h1>日本 😀\0<end_of_turn>" + "\n" * 40) == GEMMA3
    )
    assert (tokenizer.bos_id, tokenizer.eos_id, tokenizer.special.eot, tokenizer.add_bos) == (2, 1, 106, True)
    assert tokenizer.eog_ids == {1, 106}  # and not </s>, an HTML tag here
