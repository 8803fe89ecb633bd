"""How a visit is made (policy row 11)."""

from enum import StrEnum


class Method(StrEnum):
    HOME = "home"
    PHONE = "phone"
    ONLINE = "online"
    ENCOUNTER = "encounter"
