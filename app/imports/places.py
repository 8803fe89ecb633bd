"""Which region a row means, by code or name, within what the importer sees. Pure: all regions are given."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property

_VILLAGE_ENDS = re.compile(r"(?:村民委员会|村委会|村委|居民委员会|居委会|居委|社区|村)+$")
_TOWN_ENDS = re.compile(r"(?:人民政府|街道办事处|办事处|街道办|街道|镇|乡|办)+$")


class Unplaced(ValueError):
    """No region, or more than one. `str()` says in Chinese what to mend; absent and foreign ones read alike."""

    def __init__(self, code: str, message: str, *, village: bool = True) -> None:
        super().__init__(message)
        self.code = code
        self.village = village


@dataclass(frozen=True)
class Places:
    """Names of the regions within the scope by code, and the region the whole list is of, if somebody said so."""

    names: Mapping[str, str]
    default: str | None = None

    @cached_property
    def _villages(self) -> Mapping[str, list[str]]:
        return _by_name((c for c in self.names if not c.endswith("000")), self.names, _VILLAGE_ENDS)

    @cached_property
    def _towns(self) -> Mapping[str, list[str]]:
        towns = (c for c in self.names if c.endswith("000") and not c.endswith("000000"))
        return _by_name(towns, self.names, _TOWN_ENDS)

    def township(self, text: str) -> str | None:
        """The code of a township by name or code; None when nothing was said. Raises `Unplaced`."""
        if not text:
            return None
        if re.fullmatch(r"[0-9]{9}(?:000)?", text) and f"{text:0<12}" in self.names:
            return f"{text:0<12}"
        found = self._towns.get(text) or self._towns.get(_TOWN_ENDS.sub("", text)) or []
        if len(found) != 1:
            raise Unplaced("township_unknown", "没有这个镇(街道),或不在您的辖区", village=False)
        return found[0]

    def said(self, township: str | None, village: str) -> str | None:
        """The code of what a row says by itself: a village by name or code. None when it says none. Raises `Unplaced`."""
        if not village:
            return None
        if re.fullmatch(r"[0-9]{12}", village):
            if village not in self.names:
                raise Unplaced("village_unknown", "没有这个村(社区),或不在您的辖区")
            return village
        found = self._villages.get(village) or self._villages.get(_VILLAGE_ENDS.sub("", village)) or []
        within = township or self.default
        if within:
            prefix = within[:9] if within.endswith("000") else within
            found = [code for code in found if code.startswith(prefix)]
        if not found:
            raise Unplaced("village_unknown", "没有这个村(社区),或不在您的辖区")
        if len(found) > 1:
            raise Unplaced("village_ambiguous", "有几个同名的村(社区):请加“镇办”列,或改填 12 位区划代码")
        return found[0]

    def guessed(self, township: str | None, address: str) -> str:
        """For somebody new whose row names no village: the one village whose name the address holds, else the region of
        the list. Raises `Unplaced` when neither is there."""
        within = township or self.default
        prefix = (within[:9] if within.endswith("000") else within) if within else ""
        if address and not (within and not within.endswith("000")):
            held = {c for n, codes in self._whole_names.items() if n in address for c in codes if c.startswith(prefix)}
            if len(held) == 1:
                return held.pop()
        if within:
            return within
        raise Unplaced("place_missing", "看不出属于哪个村(社区):请加“村(居)”列,或导入时指定 region_code")

    @cached_property
    def _whole_names(self) -> Mapping[str, list[str]]:
        """Of villages, as they are registered: the bare name without 村 stands in too many addresses."""
        found: dict[str, list[str]] = {}
        for code, name in self.names.items():
            if not code.endswith("000") and len(name) > 1:
                found.setdefault(name, []).append(code)
        return found


def _by_name(codes: Iterable[str], names: Mapping[str, str], ends: re.Pattern[str]) -> dict[str, list[str]]:
    """By the whole name, and by the name without its ending; the ending alone is no name."""
    found: dict[str, list[str]] = {}
    for code in codes:
        name = re.sub(r"\s", "", names[code])
        for key in {name, ends.sub("", name)} - {""}:
            found.setdefault(key, []).append(code)
    return found
