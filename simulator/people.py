"""Invented people. Names are drawn from lists, numbers are computed: nobody real is meant."""

from __future__ import annotations

import random
from dataclasses import dataclass
from datetime import date, timedelta

from stdnum.iso7064 import mod_11_2

_SURNAMES = "王李张刘陈杨赵黄周吴徐孙胡朱高林何郭马罗"
_FEMALE = "秀英桂兰玉珍凤霞淑华素云春梅翠香"
_MALE = "建国德胜福田守义长山广厚永年志诚庆林"
_YOUNG = "晓明婷浩宇佳静磊丽伟娜涛雪鹏倩"
_TREES = ("槐树", "柳泉", "石桥", "杏花", "北坡", "清泉", "榆林", "东岭", "枣园", "松峪")
AREA = "370302"


@dataclass(frozen=True, slots=True)
class InventedElder:
    """Who an elder is, before the server knows them."""

    name: str
    sex: str
    birth_date: date
    id_number: str
    phone: str
    address: str
    tags: tuple[str, ...]
    ability_level: str | None
    observed: str | None
    disability_grade: int | None
    dementia: bool

    def body(self, region_code: str) -> dict[str, object]:
        """The body of `POST /elders`."""
        return {
            "name": self.name,
            "id_number": self.id_number,
            "phone": self.phone,
            "address": self.address,
            "region_code": region_code,
            "tags": list(self.tags),
            "ability": {
                "level": self.ability_level,
                "assessed_on": "2026-03-01" if self.ability_level else None,
                "observed": self.observed,
            },
            "disability_grade": self.disability_grade,
            "dementia": self.dementia,
            "services": ["emergency_aid", "emotional_support"],
        }


def id_number(birth: date, sequence: int, *, area: str = AREA) -> str:
    """An 18-character number with a right check character (ISO 7064 MOD 11-2); an odd sequence is a man's."""
    body = f"{area}{birth:%Y%m%d}{sequence:03d}"
    return body + str(mod_11_2.calc_check_digit(body))


def elder(
    rng: random.Random,
    *,
    today: date,
    age: int | None = None,
    sex: str | None = None,
    living_alone: bool | None = None,
    village_name: str = "槐树村",
) -> InventedElder:
    """An invented elder of 66 to 95 years."""
    years = age if age is not None else rng.choice((68, 72, 74, 77, 79, 81, 82, 84, 86, 88, 91, 95))
    birth = _birthday(today, years, rng)
    who = sex or rng.choice(("female", "male"))
    sequence = rng.randrange(0, 1000, 2) + (1 if who == "male" else 0)
    alone = rng.random() < 0.6 if living_alone is None else living_alone
    level = rng.choice((None, "intact", "mild", "mild", "moderate", "severe"))
    return InventedElder(
        name=rng.choice(_SURNAMES) + "".join(rng.sample(_FEMALE if who == "female" else _MALE, 2)),
        sex=who,
        birth_date=birth,
        id_number=id_number(birth, sequence),
        phone=phone(rng),
        address=f"{village_name}{rng.randint(1, 9)}组{rng.randint(1, 120)}号",
        tags=("living_alone",) if alone else (rng.choice(("empty_nest", "special_family", "left_behind")),),
        ability_level=level,
        observed=None if level else rng.choice(("independent", "mobility_limited")),
        disability_grade=rng.choice((None, None, None, None, 3, 2)),
        dementia=rng.random() < 0.08,
    )


def grown_up(rng: random.Random, surname: str | None = None) -> str:
    """The name of a daughter, a neighbour, a village head."""
    return (surname or rng.choice(_SURNAMES)) + "".join(rng.sample(_YOUNG, 2))


def phone(rng: random.Random) -> str:
    """A well-formed mobile number. Nobody is called: the simulator's people have webhook channels only."""
    return f"1700000{rng.randrange(10_000):04d}"


def village_name(number: int) -> str:
    """The name of the n-th sample village (from 1)."""
    return f"{_TREES[(number - 1) % len(_TREES)]}村" + (f"{number}" if number > len(_TREES) else "")


def _birthday(today: date, years: int, rng: random.Random) -> date:
    """A birth date that makes exactly `years` today."""
    latest = _years_before(today, years)
    earliest = _years_before(today, years + 1) + timedelta(days=1)
    return earliest + timedelta(days=rng.randint(0, (latest - earliest).days))


def _years_before(day: date, years: int) -> date:
    try:
        return day.replace(year=day.year - years)
    except ValueError:  # 29 February
        return day.replace(year=day.year - years, day=28)
