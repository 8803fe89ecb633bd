"""The words of the register (policy rows 1, 5-7, 14-15, 52 and GB/T 42195)."""

from enum import StrEnum


class Sex(StrEnum):
    FEMALE = "female"
    MALE = "male"


class Tag(StrEnum):
    """Living situations that make a person one in special difficulty (policy row 1)."""

    LIVING_ALONE = "living_alone"
    EMPTY_NEST = "empty_nest"
    LEFT_BEHIND = "left_behind"
    INCAPACITATED = "incapacitated"
    SEVERELY_DISABLED = "severely_disabled"
    SPECIAL_FAMILY = "special_family"


class AbilityLevel(StrEnum):
    """Assessed ability, GB/T 42195."""

    INTACT = "intact"
    MILD = "mild"
    MODERATE = "moderate"
    SEVERE = "severe"
    COMPLETE = "complete"


class Observed(StrEnum):
    """What was seen where nothing was assessed (policy rows 5 and 6)."""

    INDEPENDENT = "independent"
    MOBILITY_LIMITED = "mobility_limited"
    BEDRIDDEN = "bedridden"


class Service(StrEnum):
    """The nine contents of the annexes (policy row 52)."""

    HEALTH_MANAGEMENT = "health_management"
    HOME_SAFETY = "home_safety"
    DAILY_LIVING = "daily_living"
    REHABILITATION = "rehabilitation"
    EMOTIONAL_SUPPORT = "emotional_support"
    SANITATION = "sanitation"
    EMERGENCY_AID = "emergency_aid"
    RECREATION = "recreation"
    OTHER = "other"


class Circumstance(StrEnum):
    """What makes a visit at home necessary whatever the ability (二（四）2, policy row 12)."""

    POOR_HEALTH = "poor_health"
    HARDSHIP = "hardship"
    FAMILY_UPHEAVAL = "family_upheaval"
    NATURAL_DISASTER = "natural_disaster"
    ACCIDENT = "accident"
    PUBLIC_HEALTH_EVENT = "public_health_event"


class ElderStatus(StrEnum):
    ACTIVE = "active"
    PAUSED = "paused"
    MOVED = "moved"
    DECEASED = "deceased"


class StatusReason(StrEnum):
    """Why somebody is not active (choice 9)."""

    IN_HOSPITAL = "in_hospital"
    IN_INSTITUTION = "in_institution"
    AWAY = "away"
    REFUSED = "refused"
    MOVED = "moved"
    DECEASED = "deceased"
    OTHER = "other"


class CareLevel(StrEnum):
    """重点, 次重点, 一般 (policy rows 5-7); undetermined is work to do, never silently general."""

    KEY = "key"
    SECONDARY = "secondary"
    GENERAL = "general"
    UNDETERMINED = "undetermined"


class VisitorKind(StrEnum):
    """Who may visit (policy rows 14 and 15)."""

    VILLAGE_COMMITTEE = "village_committee"
    CARE_INSTITUTION = "care_institution"
    SOCIAL_WORKER = "social_worker"
    FAMILY_DOCTOR = "family_doctor"
    ELDERLY_ASSOCIATION = "elderly_association"
    PROPERTY_SERVICE = "property_service"
    VOLUNTEER = "volunteer"
    NEIGHBOUR_RELATIVE = "neighbour_relative"
    GRID_WORKER = "grid_worker"
    STUDENT = "student"
    OTHER = "other"


class ChangeCause(StrEnum):
    """Why a class was computed again (policy row 8)."""

    ENROLLED = "enrolled"
    CHANGED = "changed"
    BIRTHDAY = "birthday"
    STATUS = "status"
    POLICY = "policy"


class AssignmentRole(StrEnum):
    PRIMARY = "primary"
    BACKUP = "backup"


class DutyRole(StrEnum):
    VILLAGE_HEAD = "village_head"
    DEPUTY = "deputy"
    TOWNSHIP_DUTY = "township_duty"


class RegionLevel(StrEnum):
    DISTRICT = "district"
    TOWNSHIP = "township"
    VILLAGE = "village"


class ConsentScope(StrEnum):
    """What was agreed to (choice 10)."""

    VISIT = "visit"
    HOME_VISIT = "home_visit"
    DEVICE = "device"
    DATA = "data"


class ConsentGiver(StrEnum):
    """二（四）2: the elder or the supporter (赡养人); a guardian acts for the elder by law."""

    ELDER = "elder"
    SUPPORTER = "supporter"
    GUARDIAN = "guardian"


class EvidenceForm(StrEnum):
    """How a consent can be shown."""

    SIGNED_PAPER = "signed_paper"
    FINGERPRINT = "fingerprint"
    PHOTO = "photo"
    RECORDING = "recording"
    MESSAGE = "message"
    WITNESS = "witness"
    SPOKEN = "spoken"
