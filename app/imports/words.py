"""What clerks write in 类别, 身体能力, 性别 and 残疾等级: a closed vocabulary with the synonyms that are in use. Pure.

It reads back all that `app/elders/form_words.py` writes.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TypeVar

from app.elders.form_words import DEMENTIA, GRADES, OTHER_TAG, UNASSESSED
from app.elders.vocabulary import AbilityLevel, CareLevel, Observed, Sex, Tag

_TAGS: Mapping[Tag, Sequence[str]] = {
    Tag.LIVING_ALONE: ("独居", "独居老人", "独居老年人", "单独居住", "独身居住"),
    Tag.EMPTY_NEST: ("空巢", "空巢老人", "空巢老年人"),
    Tag.LEFT_BEHIND: ("留守", "留守老人", "留守老年人"),
    Tag.INCAPACITATED: ("失能", "失能老人", "失能老年人", "失能半失能"),
    Tag.SEVERELY_DISABLED: ("重残", "重度残疾", "重残老人", "重残老年人", "重度残疾老人"),
    Tag.SPECIAL_FAMILY: (
        "计划生育特殊家庭", "计生特殊家庭", "计生特殊", "计生特扶", "特扶", "特殊家庭", "失独", "失独家庭", "失独老人", "计生",
        "计划生育特殊家庭老年人", "计划生育特殊家庭老人", "计生特殊家庭老人", "计生特困",
    ),
}  # fmt: skip
_CLASSES: Mapping[CareLevel, Sequence[str]] = {
    CareLevel.KEY: ("重点人群", "重点"),
    CareLevel.SECONDARY: ("次重点人群", "次重点"),
    CareLevel.GENERAL: ("一般人群", "一般", "普通"),
    CareLevel.UNDETERMINED: ("待定", "未定"),
}
_LEVELS: Mapping[AbilityLevel, Sequence[str]] = {
    AbilityLevel.INTACT: ("能力完好", "完好", "基本完好", "能力基本完好"),
    AbilityLevel.MILD: ("轻度失能", "轻度", "轻度受损", "能力轻度受损", "轻度能力受损"),
    AbilityLevel.MODERATE: ("中度失能", "中度", "中度受损", "能力中度受损", "中度能力受损"),
    AbilityLevel.SEVERE: ("重度失能", "重度", "重度受损", "能力重度受损", "重度能力受损"),
    AbilityLevel.COMPLETE: ("完全失能", "完全", "完全丧失", "能力完全丧失", "全失能"),
}
_OBSERVED: Mapping[Observed, Sequence[str]] = {
    Observed.INDEPENDENT: (
        "能够自理", "自理", "能自理", "可自理", "完全自理", "生活自理", "生活能自理", "生活能够自理", "健康", "良好",
        "身体健康", "身体良好", "活力",
    ),
    Observed.MOBILITY_LIMITED: ("行动不便", "半自理", "半失能", "部分自理", "腿脚不便", "行动困难", "介助"),
    Observed.BEDRIDDEN: ("长期卧床", "卧床", "卧床不起", "瘫痪", "瘫痪在床"),
}  # fmt: skip
_DEMENTIA = (DEMENTIA, "认知障碍", "认知症", "老年痴呆", "痴呆", "阿尔茨海默病", "阿尔茨海默症", "失智老人")
_VAGUE = ("失能", "不能自理", "生活不能自理", "完全不能自理", "介护", "较差", "差", "一般")
_NOTHING = (UNASSESSED, "未评", "无", "/", "-", "—", "不详", "待评估")


M = TypeVar("M")


def _turned(words: Mapping[M, Sequence[str]]) -> dict[str, M]:
    return {word: meaning for meaning, some in words.items() for word in some}


_TAG_OF, _CLASS_OF, _LEVEL_OF, _OBSERVED_OF = _turned(_TAGS), _turned(_CLASSES), _turned(_LEVELS), _turned(_OBSERVED)
_GRADE = re.compile(rf"(?:残疾|重残|残疾等级|残)?[:：]?([{GRADES}1-4])级?(?:残疾|重残|残)?")
_SAYS_DISABLED = re.compile(r"残|级")
_SPLIT = re.compile(r"[、,，;；/|+\s()（）\[\]【】及和兼]+")


class Unknown(ValueError):
    """A word that is not in the vocabulary. `str()` says what is, in Chinese."""


@dataclass(frozen=True, slots=True)
class CategoryRead:
    """None: the cell says nothing of it."""

    tags: list[str] | None
    other_tags: list[str] | None
    care_level: CareLevel | None


@dataclass(frozen=True, slots=True)
class AbilityRead:
    level: AbilityLevel | None = None
    observed: Observed | None = None
    disability_grade: int | None = None
    dementia: bool | None = None


def shown(word: str) -> str:
    """A word of the file for a message, unless it may be somebody's number."""
    short = word if len(word) <= 12 else word[:11] + "…"
    return "" if len(re.findall(r"[0-9]", short)) > 3 else f"“{short}”"


def read_sex(text: str) -> Sex | None:
    """Raises `Unknown`."""
    match unicodedata.normalize("NFKC", text).strip():
        case "":
            return None
        case "男" | "男性":
            return Sex.MALE
        case "女" | "女性":
            return Sex.FEMALE
        case _:
            raise Unknown("性别只能写“男”或“女”")


def read_category(text: str) -> CategoryRead:
    """类别: living situations, other difficulties behind 其他：, and the class. Raises `Unknown`."""
    tags: list[str] = []
    others: list[str] = []
    level: CareLevel | None = None
    told = False
    for word in _words(text):
        if word.startswith((OTHER_TAG, "其他:")):
            other = word[len(OTHER_TAG) :].strip()
            if not 0 < len(other) <= 20:
                raise Unknown("“其他：”后面写 1 到 20 个字")
            others.append(other)
            told = True
        elif word in _TAG_OF:
            if _TAG_OF[word].value not in tags:
                tags.append(_TAG_OF[word].value)
            told = True
        elif word in _CLASS_OF:
            level = _CLASS_OF[word]
        elif word in _NOTHING:
            continue
        else:
            raise Unknown(
                f"类别中不认识{shown(word)}:可写 独居、空巢、留守、失能、重残、计划生育特殊家庭,和 重点、次重点、一般;"
                "其他困难写“其他：…”"
            )
    return CategoryRead(tags if told else None, others if told else None, level)


def read_ability(text: str) -> AbilityRead:
    """身体能力: what was assessed, what was seen, disability, dementia. Raises `Unknown`."""
    level: AbilityLevel | None = None
    observed: Observed | None = None
    grade: int | None = None
    dementia: bool | None = None
    for word in _words(text):
        bare = re.sub(r"老人$|老年人$|\(.*\)", "", word)
        if word in _LEVEL_OF or bare in _LEVEL_OF:
            level = _LEVEL_OF.get(word) or _LEVEL_OF[bare]
        elif word in _OBSERVED_OF:
            observed = _OBSERVED_OF[word]
        elif word in _DEMENTIA:
            dementia = True
        elif _SAYS_DISABLED.search(word) and _GRADE.fullmatch(word):
            grade = read_grade(word)
        elif word in _NOTHING:
            continue
        elif word in _VAGUE:
            raise Unknown(
                f"身体能力{shown(word)}不够明确:请写 轻度、中度、重度或完全失能,未评估的写 行动不便 或 长期卧床"
            )
        else:
            raise Unknown(
                f"身体能力中不认识{shown(word)}:可写 能力完好、轻度失能、中度失能、重度失能、完全失能;"
                "未评估的写 能够自理、行动不便、长期卧床;另可加 残疾一至四级、失智"
            )
    return AbilityRead(level, observed, grade, dementia)


def read_grade(text: str) -> int | None:
    """残疾等级: 1 (worst) to 4. Raises `Unknown`."""
    word = re.sub(r"\s", "", unicodedata.normalize("NFKC", text))
    if not word or word in (*_NOTHING, "否", "非残疾"):
        return None
    found = _GRADE.fullmatch(word) or re.fullmatch(rf".{{0,8}}?([{GRADES}1-4])级", word)
    if found is None:
        raise Unknown("残疾等级写 一级、二级、三级 或 四级")
    return GRADES.index(found[1]) + 1 if found[1] in GRADES else int(found[1])


def _words(text: str) -> list[str]:
    """Separated by whatever is in use; 其他：… keeps what follows up to the next separator."""
    normal = unicodedata.normalize("NFKC", text).replace("其他: ", "其他:")
    return [word.replace("其他:", OTHER_TAG, 1) for word in _SPLIT.split(normal) if word]
