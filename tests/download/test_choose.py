"""Which files of a repository are the model."""

from __future__ import annotations

import pytest

from corral.download.choose import choose, choose_file, shard_names, split_repo
from corral.errors import DownloadError

MANY = ["README.md", "m-F16.gguf", "m-Q8_0.gguf", "m-Q4_K_M.gguf", "m-Q4_K_S.gguf", "mmproj-m-Q4_K_M.gguf"]
SPLIT = ["q/m-Q4_K_M-00002-of-00002.gguf", "q/m-Q4_K_M-00001-of-00002.gguf", "m-Q8_0.gguf"]


@pytest.mark.parametrize(
    ("files", "tag", "first", "count"),
    [
        (MANY, "", "m-Q4_K_M.gguf", 1),
        (MANY, "q8_0", "m-Q8_0.gguf", 1),
        (MANY, "Q4_K_S", "m-Q4_K_S.gguf", 1),
        (MANY[:3], "", "m-Q8_0.gguf", 1),
        (["b.gguf", "a.gguf", "imatrix.gguf"], "", "a.gguf", 1),
        (["m.Q4_K_M.gguf"], "q4_k_m", "m.Q4_K_M.gguf", 1),
        (["Q4_K_M.dir/x.gguf"], "", "Q4_K_M.dir/x.gguf", 1),
        (SPLIT, "", SPLIT[1], 2),
        (SPLIT, "Q8_0", "m-Q8_0.gguf", 1),
    ],
)
def test_a_quantization(files: list[str], tag: str, first: str, count: int) -> None:
    chosen = choose(files, tag, "u/m")
    assert (chosen[0], len(chosen)) == (first, count)


@pytest.mark.parametrize(
    ("files", "tag", "said"),
    [
        (["README.md", "mmproj-x.gguf"], "", "u/m has no GGUF file"),
        (MANY, "Q2_K", "no GGUF file of quantization 'Q2_K'; it has m-F16.gguf, m-Q4_K_M.gguf"),
        (MANY, ".*", "quantization '.*'"),
        (SPLIT[1:], "", "u/m lacks 1 of the 2 shards of q/m-Q4_K_M-00001-of-00002.gguf: q/m-Q4_K_M-00002"),
    ],
)
def test_there_is_none(files: list[str], tag: str, said: str) -> None:
    with pytest.raises(DownloadError) as caught:
        choose(files, tag, "u/m")
    assert said in str(caught.value)


def test_a_file_by_its_name() -> None:
    assert choose_file(MANY, "mmproj-m-Q4_K_M.gguf", "u/m") == ["mmproj-m-Q4_K_M.gguf"]
    assert len(choose_file(SPLIT, SPLIT[0], "u/m")) == 2
    with pytest.raises(DownloadError, match=r"u/m has no file 'x\.gguf'; it has m-F16\.gguf"):
        choose_file(MANY, "x.gguf", "u/m")


@pytest.mark.parametrize(
    "text", ["", "m", "u/", "/m", "u/m/x", "../m", "u/..", "u m/x", "http://h/m", "u/m\n"]
)
def test_what_is_no_repository(text: str) -> None:
    with pytest.raises(DownloadError, match="expected USER/MODEL"):
        split_repo(text)


def test_repositories() -> None:
    assert split_repo("u/m-1.5_x") == ("u/m-1.5_x", "")
    assert split_repo("u/m:Q4_K_M") == ("u/m", "Q4_K_M")


def test_a_count_of_shards_is_bounded() -> None:
    assert shard_names("m-00001-of-99999.gguf") == ["m-00001-of-99999.gguf"]
