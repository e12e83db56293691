"""A bar chart as SVG text, groups of bars, one colour a side, for light and dark pages."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

WIDTH, LABEL, VALUE = 760, 210, 120
PAD, BAR, GAP, GROUP_GAP, TOP = 20, 16, 3, 14, 72
LETTER = 7.2
"""Width of a letter, roughly: the fonts of those who look at it are not known."""
COLOURS = ("#2f6fde", "#a3abb8", "#e08a2e", "#5aa469")

STYLE = """\
.paper { fill: #fff; stroke: #d8dee4 } text { font: 13px system-ui, sans-serif; fill: #24292f }
.title { font-size: 16px; font-weight: 600 } .note { fill: #6a737d; font-size: 12px }
@media (prefers-color-scheme: dark) {
  .paper { fill: #16181c; stroke: #2f343c } text { fill: #e6edf3 } .note { fill: #9aa4af } }"""


@dataclass(frozen=True)
class Group:
    """Bars that belong together, one for each side, each as long as its value. `note` is below the label."""

    label: str
    values: Sequence[float]
    texts: Sequence[str]
    note: str = ""
    scale: str = ""
    """Groups that name the same share it. Without, a group has its own: its longest bar has full length."""

    @property
    def height(self) -> int:
        return max(len(self.values), 2 if self.note else 1) * (BAR + GAP) + GROUP_GAP


def bars(title: str, sides: Sequence[str], groups: Sequence[Group]) -> str:
    """The chart, each value written behind its bar."""
    height = TOP + sum(group.height for group in groups) + PAD - GROUP_GAP
    lines = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" width="{WIDTH}" role="img">',
        f"<title>{escape(title)}</title><style>{STYLE}</style>",
        f'<path class="paper" d="M.5 .5h{WIDTH - 1}v{height - 1}h-{WIDTH - 1}z"/>',
        f'<text class="title" x="{PAD}" y="32">{escape(title)}</text>',
    ]
    x = float(PAD)
    for colour, side in zip(COLOURS, sides, strict=False):
        lines.append(f'<rect x="{x:.0f}" y="44" width="12" height="12" rx="2" fill="{colour}"/>')
        lines.append(f'<text x="{x + 18:.0f}" y="55">{escape(side)}</text>')
        x += 40 + LETTER * len(side)
    longest: dict[str, float] = {}
    for group in groups:
        longest[group.scale] = max(longest.get(group.scale, 0.0), *group.values)
    y = TOP
    for group in groups:
        lines += _group(group, y, (longest[group.scale] if group.scale else max(group.values)) or 1.0)
        y += group.height
    return "\n".join([*lines, "</svg>", ""])


def _group(group: Group, y: int, longest: float) -> list[str]:
    lines = [f'<text x="{PAD}" y="{y + 13}">{escape(group.label)}</text>']
    if group.note:
        lines.append(f'<text class="note" x="{PAD}" y="{y + BAR + GAP + 13}">{escape(group.note)}</text>')
    for i, (value, text) in enumerate(zip(group.values, group.texts, strict=True)):
        top = y + i * (BAR + GAP)
        length = max(1.0, value / longest * (WIDTH - LABEL - VALUE))
        lines.append(
            f'<rect x="{LABEL}" y="{top}" width="{length:.1f}" height="{BAR}" rx="2" fill="{COLOURS[i]}"/>'
        )
        lines.append(f'<text x="{LABEL + length + 8:.1f}" y="{top + 13}">{escape(text)}</text>')
    return lines
