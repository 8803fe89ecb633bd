"""Keeping people out of texts that are read by others than those who may see them, or longer than they may be kept."""

from __future__ import annotations

import re

_LONG_NUMBER = re.compile(r"\d{7,}[Xx]?")
_ADDRESS = re.compile(r"[\w.+-]+@[\w-]+\.[\w.-]+", re.ASCII)
# A mobile number, an ID number, a fixed line with its area code: not the numbers of devices.
_OF_A_PERSON = re.compile(
    r"(?<![0-9A-Za-z])(?:(?:\+?86[ -]?)?1[3-9]\d[ -]?\d{4}[ -]?\d{4}|\d{17}[\dXx]|0\d{2,3}[ -]?\d{7,8})(?![0-9A-Za-z])"
)


def without_identity(text: str, *names: str) -> str:
    """Without these names, long numbers and e-mail addresses: an ellipsis stands for each."""
    for name in sorted(filter(None, names), key=len, reverse=True):
        text = text.replace(name, "…")
    return _LONG_NUMBER.sub("…", without_numbers_of_people(text))


def without_numbers_of_people(text: str) -> str:
    """Without what looks like a phone number, an ID number or an e-mail address; numbers of devices stay."""
    return _OF_A_PERSON.sub("…", _ADDRESS.sub("…", text))
