"""What the place of a sensor says about a home: a way out, a piece of furniture, or a room. Pure.

A deployer writes places as they like; the words of Chinese and English that matter are listed here. A contact without a
telling place is taken for the door of the home, a motion sensor without one for a room.
"""

from __future__ import annotations

import re
from enum import StrEnum
from functools import lru_cache
from typing import Final

_WAY_OUT: Final = re.compile(
    r"大门|前门|后门|院门|正门|入户|进户|防盗门|家门|单元门|玄关|门口|门厅|门廊|入口|出口|外门"
    r"|entr(?:y|ance)|entryway|front|main\s*door|maindoor|back\s*door|porch|exit|vestibule|foyer|street",
    re.IGNORECASE,
)
_SEAT: Final = re.compile(r"沙发|椅|座|坐垫|seat|chair|sofa|couch|armchair|recliner", re.IGNORECASE)
_INSIDE: Final = re.compile(
    r"卧|厨|卫生间|洗手间|厕|浴|客厅|餐厅|书房|阳台|窗|走廊|过道|房间|里屋|堂屋|冰箱|柜|抽屉|药盒|药箱|灶|炉|马桶|床"
    r"|bed|bath|toilet|wc\b|kitchen|living|lounge|dining|office|study|window|balcony|hall|corridor|shower|basin|sink"
    r"|fridge|refrigerator|freezer|cupboard|cabinet|drawer|wardrobe|closet|microwave|oven|stove|cook|toaster|pill|room",
    re.IGNORECASE,
)


class Spot(StrEnum):
    WAY_OUT = "way_out"  # the door of the home, and the space before it
    SEAT = "seat"  # where one sits: resting there is no night in bed
    INSIDE = "inside"
    UNTOLD = "untold"


@lru_cache(maxsize=4096)
def spot(place: str | None) -> Spot:
    """What a place is; the most telling word decides."""
    if not place:
        return Spot.UNTOLD
    if _WAY_OUT.search(place):
        return Spot.WAY_OUT
    if _SEAT.search(place):
        return Spot.SEAT
    return Spot.INSIDE if _INSIDE.search(place) else Spot.UNTOLD
