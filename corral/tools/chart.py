"""A bar chart as SVG text, groups of bars, one colour a side, for light and dark pages."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

WIDTH, LABEL, VALUE = 760, 230, 150
BAR, GAP, GROUP_GAP, TOP = 16, 3, 12, 64
COLOURS = ("#2f6fde", "#b3b9c4", "#e08a2e", "#5aa469")

STYLE = """\
text { font: 13px system-ui, sans-serif; fill: #24292f } .title { font-size: 16px; font-weight: 600 }
.note { fill: #6a737d; font-size: 12px }
@media (prefers-color-scheme: dark) { text { fill: #e6edf3 } .note { fill: #9aa4af } }"""


@dataclass(frozen=True)
class Group:
    """Bars that belong together, one for each side, each as long as its value. `note` is below the label."""

    label: str
    values: Sequence[float]
    texts: Sequence[str]
    note: str = ""


def bars(title: str, sides: Sequence[str], groups: Sequence[Group]) -> str:
    """The chart. The longest bar of each group has full length: groups may have units of their own."""
    height = TOP + sum(len(group.values) * (BAR + GAP) + GROUP_GAP for group in groups)
    lines = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" width="{WIDTH}" role="img">',
        f"<title>{escape(title)}</title><style>{STYLE}</style>",
        f'<text class="title" x="0" y="18">{escape(title)}</text>',
    ]
    for i, side in enumerate(sides):
        x = 150 * i
        lines.append(f'<rect x="{x}" y="32" width="12" height="12" rx="2" fill="{COLOURS[i]}"/>')
        lines.append(f'<text x="{x + 18}" y="43">{escape(side)}</text>')
    y = TOP
    for group in groups:
        lines += _group(group, y)
        y += len(group.values) * (BAR + GAP) + GROUP_GAP
    return "\n".join([*lines, "</svg>", ""])


def _group(group: Group, y: int) -> list[str]:
    longest = max(group.values) or 1.0
    lines = [f'<text x="0" y="{y + 13}">{escape(group.label)}</text>']
    if group.note:
        lines.append(f'<text class="note" x="0" y="{y + BAR + GAP + 13}">{escape(group.note)}</text>')
    for i, (value, text) in enumerate(zip(group.values, group.texts, strict=True)):
        top = y + i * (BAR + GAP)
        length = max(1.0, value / longest * (WIDTH - LABEL - VALUE))
        lines.append(
            f'<rect x="{LABEL}" y="{top}" width="{length:.1f}" height="{BAR}" rx="2" fill="{COLOURS[i]}"/>'
        )
        lines.append(f'<text x="{LABEL + length + 8:.1f}" y="{top + 13}">{escape(text)}</text>')
    return lines
