"""The words of an import."""

from enum import StrEnum


class State(StrEnum):
    """uploaded → checked (the dry run is there to be read) → committing → committed. Nothing leaves the last three."""

    UPLOADED = "uploaded"
    CHECKED = "checked"
    COMMITTING = "committing"
    COMMITTED = "committed"
    FAILED = "failed"
    CANCELLED = "cancelled"


class Mode(StrEnum):
    ALL_OR_NOTHING = "all_or_nothing"
    GOOD_ROWS_ONLY = "good_rows_only"


class Outcome(StrEnum):
    """What a row does to the register."""

    CREATE = "create"
    UPDATE = "update"
    UNCHANGED = "unchanged"
    ERROR = "error"


class Severity(StrEnum):
    ERROR = "error"  # the row is not taken
    WARNING = "warning"  # it is, and somebody should look


class Column(StrEnum):
    """What a column of the list may hold."""

    NAME = "name"
    SEX = "sex"
    AGE = "age"
    ID_NUMBER = "id_number"
    ADDRESS = "address"
    CATEGORY = "category"
    ABILITY = "ability"
    DISABILITY = "disability"
    REMARKS = "remarks"
    PHONE = "phone"
    TOWNSHIP = "township"
    VILLAGE = "village"
    NUMBER = "number"  # 序号, and what is known to say nothing


WAITING = (State.UPLOADED, State.COMMITTING)
