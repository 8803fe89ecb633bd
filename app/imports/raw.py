"""What a file is read into, and how one that cannot be is refused."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

MOST_BYTES = 16 * 1024 * 1024
MOST_ROWS = 100_000
MOST_COLUMNS = 64
MOST_CELL = 4000
SAVE_AS = "请在 Excel 或 WPS 中另存为 .xlsx 或 .csv 后再上传"


class Unreadable(Exception):
    """The file cannot be taken; `str()` says in Chinese what to mend."""


@dataclass(frozen=True, slots=True)
class Row:
    """One row with its number as the spreadsheet shows it (from 1), cells from column A on. `under`: where a cell was merged
    with those above it, what stands in the merged cell, by column."""

    number: int
    cells: list[str]
    under: Mapping[int, str] = field(default_factory=dict)
