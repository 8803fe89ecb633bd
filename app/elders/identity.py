"""Resident ID numbers (GB 11643): 18 characters, ISO 7064 MOD 11-2, a real birth date, the 17th digit tells the sex."""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import date

from stdnum.iso7064 import mod_11_2

from app.elders.vocabulary import Sex
from app.errors import InvalidInput

_SHAPE = re.compile(r"[1-9][0-9]{16}[0-9X]", re.ASCII)


@dataclass(frozen=True, slots=True)
class Identity:
    number: str
    birth_date: date
    sex: Sex


def read_id_number(text: str, *, today: date) -> Identity:
    """Check an ID number and read birth date and sex from it. Raises `InvalidInput` that says what is wrong.

    The region part is not checked: codes were abolished and renamed over eighty years.
    """
    number = text.strip().upper()
    if not _SHAPE.fullmatch(number):
        raise InvalidInput("an ID number has 17 digits and then a digit or X", field="id_number")
    if not mod_11_2.is_valid(number):
        raise InvalidInput(
            "the last character of the ID number does not fit the others: a digit is mistyped", field="id_number"
        )
    try:
        born = date(int(number[6:10]), int(number[10:12]), int(number[12:14]))
    except ValueError:
        raise InvalidInput("digits 7 to 14 of the ID number are not a date", field="id_number") from None
    if not date(1890, 1, 1) <= born <= today:
        raise InvalidInput("the birth date in the ID number is in the future or before 1890", field="id_number")
    return Identity(number, born, Sex.MALE if int(number[16]) % 2 else Sex.FEMALE)


def age_on(born: date, today: date) -> int:
    """Full years on a day (policy choice 2: never stored)."""
    return today.year - born.year - ((today.month, today.day) < (born.month, born.day))
