"""The words of the district's annexes, as clerks write and read them: always Chinese, whatever language the server speaks.

Pure. What `write_category` and `write_ability` say is what an import reads back (`app/imports/reading.py`).
"""

from __future__ import annotations

from collections.abc import Sequence
from enum import StrEnum

from app.elders.vocabulary import AbilityLevel, CareLevel, Observed, Service, Sex, Tag

SEX = {Sex.FEMALE: "女", Sex.MALE: "男"}
TAG = {
    Tag.LIVING_ALONE: "独居",
    Tag.EMPTY_NEST: "空巢",
    Tag.LEFT_BEHIND: "留守",
    Tag.INCAPACITATED: "失能",
    Tag.SEVERELY_DISABLED: "重残",
    Tag.SPECIAL_FAMILY: "计划生育特殊家庭",
}
CARE_LEVEL = {
    CareLevel.KEY: "重点人群",
    CareLevel.SECONDARY: "次重点人群",
    CareLevel.GENERAL: "一般人群",
    CareLevel.UNDETERMINED: "待定",
}
LEVEL = {
    AbilityLevel.INTACT: "能力完好",
    AbilityLevel.MILD: "轻度失能",
    AbilityLevel.MODERATE: "中度失能",
    AbilityLevel.SEVERE: "重度失能",
    AbilityLevel.COMPLETE: "完全失能",
}
OBSERVED = {
    Observed.INDEPENDENT: "能够自理",
    Observed.MOBILITY_LIMITED: "行动不便",
    Observed.BEDRIDDEN: "长期卧床",
}
SERVICE = {
    Service.HEALTH_MANAGEMENT: "健康管理",
    Service.HOME_SAFETY: "居家安全",
    Service.DAILY_LIVING: "生活照料",
    Service.REHABILITATION: "康复护理",
    Service.EMOTIONAL_SUPPORT: "精神慰藉",
    Service.SANITATION: "环境卫生",
    Service.EMERGENCY_AID: "应急救援",
    Service.RECREATION: "文体活动",
    Service.OTHER: "其他",
}
UNASSESSED, DEMENTIA, OTHER_TAG = "未评估", "失智", "其他："
GRADES = "一二三四"
TICK = "√"


class Category(StrEnum):
    """What 类别 shows (choice 11: the template chooses)."""

    BOTH = "both"
    TAGS = "tags"
    CLASS = "class"


def write_category(tags: Sequence[str], other_tags: Sequence[str], level: CareLevel, shown: Category) -> str:
    """类别: 独居、空巢（重点人群）. A difficulty beside the six stands behind 其他：."""
    words = [*(TAG[Tag(tag)] for tag in tags), *(OTHER_TAG + other for other in other_tags)]
    match shown:
        case Category.TAGS:
            return "、".join(words)
        case Category.CLASS:
            return CARE_LEVEL[level]
        case Category.BOTH:
            return f"{'、'.join(words)}（{CARE_LEVEL[level]}）" if words else CARE_LEVEL[level]


def write_ability(
    level: AbilityLevel | None, observed: Observed | None, disability_grade: int | None, dementia: bool
) -> str:
    """身体能力: what was assessed or, without an assessment, what was seen; then disability and dementia."""
    words = [LEVEL[level] if level else UNASSESSED]
    if observed:
        words.append(OBSERVED[observed])
    if disability_grade:
        words.append(f"残疾{GRADES[disability_grade - 1]}级")
    if dementia:
        words.append(DEMENTIA)
    return "、".join(words)
