"""How a visit is made and what comes of it (policy rows 11, 13, 26-34)."""

from enum import StrEnum


class Method(StrEnum):
    HOME = "home"
    PHONE = "phone"
    ONLINE = "online"
    ENCOUNTER = "encounter"


class VisitOutcome(StrEnum):
    """`met`: a visit. Anything else is an attempt: it counts as one, and never as a visit (choice 14)."""

    MET = "met"
    NOBODY_HOME = "nobody_home"
    NO_ANSWER = "no_answer"
    TURNED_AWAY = "turned_away"


class NotCounted(StrEnum):
    """Why a visit does not qualify."""

    ATTEMPT = "attempt"
    METHOD = "method"
    CONSENT = "consent"
    COUNTED_ALREADY = "counted_already"
    DISQUALIFIED = "disqualified"
    VOIDED = "voided"


class HealthAspect(StrEnum):
    """二（三）1: 表达能力, 行动能力, 反应能力, 疾病情况, 精神状况."""

    EXPRESSION = "expression"
    MOBILITY = "mobility"
    REACTION = "reaction"
    ILLNESS = "illness"
    MOOD = "mood"


class HealthGrade(StrEnum):
    GOOD = "good"
    FAIR = "fair"
    POOR = "poor"


class FindingKind(StrEnum):
    HAZARD = "hazard"
    HARDSHIP = "hardship"
    SUPPORT_DUTY = "support_duty"
    REFERRAL = "referral"


class Topic(StrEnum):
    """What a finding is about; which go with which kind stands in findings.py."""

    WATER = "water"
    ELECTRICITY = "electricity"
    GAS = "gas"
    HEATING = "heating"
    STRUCTURE = "structure"
    FIRE = "fire"
    CLOTHING = "clothing"
    FOOD = "food"
    HOUSING = "housing"
    TRANSPORT = "transport"
    MEDICAL = "medical"
    MONEY = "money"
    POLICY = "policy"
    ERRAND = "errand"
    NO_VISITS = "no_visits"
    NO_CONTACT = "no_contact"
    NO_MEANS = "no_means"
    NEGLECT = "neglect"
    HEALTH_SERVICE = "health_service"
    CARE_SERVICE = "care_service"
    REHABILITATION = "rehabilitation"
    HOME_ADAPTATION = "home_adaptation"
    COUNSELLING = "counselling"
    LEGAL_AID = "legal_aid"
    COMMUNITY = "community"
    OTHER = "other"


class Stage(StrEnum):
    """How far a finding has come; which follow which stands in findings.py."""

    FOUND = "found"
    REMINDED = "reminded"
    ASSISTED = "assisted"
    REMOVED = "removed"
    MISTAKEN = "mistaken"
    TOLD = "told"
    APPLIED = "applied"
    GRANTED = "granted"
    DECLINED = "declined"
    PERSUADED = "persuaded"
    MEDIATED = "mediated"
    JUDICIAL = "judicial"
    FULFILLED = "fulfilled"
    REFERRED = "referred"
    ACCEPTED = "accepted"
    DONE = "done"


class DeltaKind(StrEnum):
    """What changed in a month that was closed."""

    ADDED = "added"
    CORRECTED = "corrected"
    VOIDED = "voided"
    OVERRIDDEN = "overridden"
    REVALUED = "revalued"


class TaskKind(StrEnum):
    """Work that something asks for beside the regular visits."""

    FOLLOW_UP = "follow_up"  # a visit after an emergency
    ASSESSMENT = "assessment"  # a new assessment of ability, after falls


class TaskState(StrEnum):
    """`lapsed`: the elder moved away or died before it was done."""

    OPEN = "open"
    OVERDUE = "overdue"
    DONE = "done"
    DISMISSED = "dismissed"
    LAPSED = "lapsed"


class SpecialKind(StrEnum):
    """特殊时间节点 (二（四）1, policy row 10)."""

    FESTIVAL = "festival"
    WEATHER = "weather"
    OTHER = "other"


class Festival(StrEnum):
    """The festivals that are computed, in the order of the year."""

    NEW_YEAR = "new_year"  # 元旦
    SPRING_FESTIVAL = "spring_festival"  # 春节
    QINGMING = "qingming"  # 清明
    LABOUR_DAY = "labour_day"  # 劳动节
    DRAGON_BOAT = "dragon_boat"  # 端午
    MID_AUTUMN = "mid_autumn"  # 中秋
    NATIONAL_DAY = "national_day"  # 国庆
    DOUBLE_NINTH = "double_ninth"  # 重阳


class CheckKind(StrEnum):
    """What in the ledger asks for a supervisor's look (二（四）4, policy row 43)."""

    IMPOSSIBLE_TRAVEL = "impossible_travel"
    OVERLAPPING = "overlapping"
    CLONED_TEXT = "cloned_text"
    MONTH_END_BURST = "month_end_burst"
    ZERO_DURATION = "zero_duration"
    ROUND_DURATIONS = "round_durations"
    LATE_ENTRY = "late_entry"
    NO_DOOR_EVENT = "no_door_event"


class CheckState(StrEnum):
    OPEN = "open"
    REVIEWED = "reviewed"
    WITHDRAWN = "withdrawn"  # the entries were corrected: it no longer holds


class ReviewOutcome(StrEnum):
    """What a supervisor found. Whether an entry counts is decided on the visit itself, never here."""

    EXPLAINED = "explained"
    CORRECTED = "corrected"
    FOLLOW_UP = "follow_up"
    NOT_GENUINE = "not_genuine"


class DoorEvidence(StrEnum):
    """What the home's door sensor says about a visit at home."""

    SEEN = "seen"
    NOT_SEEN = "not_seen"
    SILENT_SENSOR = "silent_sensor"  # it said nothing for days: it proves nothing
    NO_SENSOR = "no_sensor"
