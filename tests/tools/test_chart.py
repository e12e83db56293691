"""The bar chart of the benchmarks."""

from __future__ import annotations

import xml.etree.ElementTree as ET

from corral.tools.chart import LABEL, VALUE, WIDTH, Group, bars

SVG = "{http://www.w3.org/2000/svg}"


def test_the_longest_bar_of_each_group_is_full_and_others_are_in_proportion() -> None:
    groups = [Group("speed", [30.0, 10.0], ["30", "10"], "3x"), Group("wait", [1.0, 4.0], ["1 s", "4 s"])]
    root = ET.fromstring(bars("a < b", ["ours", "theirs"], groups))
    full = WIDTH - LABEL - VALUE
    drawn = [float(rect.attrib["width"]) for rect in root.iter(SVG + "rect")][2:]  # two are the legend
    assert drawn == [full, round(full / 3, 1), full / 4, full]
    texts = [text.text for text in root.iter(SVG + "text")]
    assert texts == ["a < b", "ours", "theirs", "speed", "3x", "30", "10", "wait", "1 s", "4 s"]


def test_zeros_are_drawn() -> None:
    assert "0 ms" in bars("t", ["a"], [Group("g", [0.0], ["0 ms"])])


def test_groups_of_one_scale_are_compared_with_each_other() -> None:
    groups = [
        Group("a", [5.0], ["5"], "n", scale="s"),
        Group("b", [10.0], ["10"], scale="s"),
        Group("c", [1.0], ["1"]),
    ]
    root = ET.fromstring(bars("t", ["ours"], groups))
    rects = list(root.iter(SVG + "rect"))[1:]
    full = WIDTH - LABEL - VALUE
    assert [float(rect.attrib["width"]) for rect in rects] == [full / 2, full, full]
    note = next(text for text in root.iter(SVG + "text") if text.text == "n")
    assert float(note.attrib["y"]) < float(rects[1].attrib["y"])  # nothing is written over the next group
