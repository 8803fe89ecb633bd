"""What a front end can subscribe to, the life of one delivery, and why a subscription rests."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class EventType(StrEnum):
    """The facts of the feed that leave by webhook. A new one also needs its line in KINDS."""

    ALARM_RAISED = "alarm.raised"
    ALARM_REPEATED = "alarm.repeated"
    ALARM_CALMED = "alarm.calmed"
    ALARM_ESCALATED = "alarm.escalated"
    ALARM_UNREACHABLE = "alarm.unreachable"
    ALARM_ACKNOWLEDGED = "alarm.acknowledged"
    ALARM_REOPENED = "alarm.reopened"
    ALARM_ATTENDING = "alarm.attending"
    ALARM_REMINDED = "alarm.reminded"
    ALARM_COMMENTED = "alarm.commented"
    ALARM_RESOLVED = "alarm.resolved"


TEST = "webhook.test"  # nobody subscribes to it: it is asked for


class Subject(StrEnum):
    """What an event is about: it decides what `data` holds (`messages.py`) and whose region counts."""

    ALARM = "alarm"


@dataclass(frozen=True, slots=True)
class Kind:
    subject: Subject
    says: str


KINDS: dict[EventType, Kind] = {
    EventType.ALARM_RAISED: Kind(Subject.ALARM, "An alarm was raised; everybody concerned is being told."),
    EventType.ALARM_REPEATED: Kind(Subject.ALARM, "The same alarm came again and joined the open one."),
    EventType.ALARM_CALMED: Kind(Subject.ALARM, "The elder says all is well; one person must still look."),
    EventType.ALARM_ESCALATED: Kind(Subject.ALARM, "Nobody answered in time: the next step was taken."),
    EventType.ALARM_UNREACHABLE: Kind(Subject.ALARM, "Nobody can be told: every channel of everybody failed."),
    EventType.ALARM_ACKNOWLEDGED: Kind(Subject.ALARM, "Somebody promised to come."),
    EventType.ALARM_REOPENED: Kind(Subject.ALARM, "A promise passed; the alarm is open again."),
    EventType.ALARM_ATTENDING: Kind(Subject.ALARM, "Somebody is with the elder."),
    EventType.ALARM_REMINDED: Kind(Subject.ALARM, "Somebody arrived long ago and gave no outcome."),
    EventType.ALARM_COMMENTED: Kind(Subject.ALARM, "Somebody wrote a remark."),
    EventType.ALARM_RESOLVED: Kind(Subject.ALARM, "The alarm is closed, with an outcome."),
}


class DeliveryState(StrEnum):
    PENDING = "pending"  # waits for its time -> sending, held
    SENDING = "sending"  # a worker holds a lease -> delivered, pending (try again), failed, held, withdrawn
    DELIVERED = "delivered"  # the receiver answered 2xx
    FAILED = "failed"  # every try of the schedule failed, or 410 Gone
    HELD = "held"  # the subscription rests: kept, sent only when somebody asks for it
    WITHDRAWN = "withdrawn"  # when it was to be sent, it no longer concerned the subscriber's region


class PauseReason(StrEnum):
    BY_HAND = "by_hand"
    GONE = "gone"
    FAILING = "failing"
    OWNER_INACTIVE = "owner_inactive"
    OWNER_MOVED = "owner_moved"


PAUSE_WORDS: dict[PauseReason, str] = {
    PauseReason.BY_HAND: "somebody paused it",
    PauseReason.GONE: "the receiver answered 410 Gone: it no longer wants these messages",
    PauseReason.FAILING: "nothing could be delivered for too long; mend the receiver, then set `active` to true",
    PauseReason.OWNER_INACTIVE: "the account or key that made it is no longer active; whoever sets `active` to true owns it",
    PauseReason.OWNER_MOVED: "the account or key that made it no longer has this region or this right; whoever sets "
    "`active` to true owns it",
}


class OwnerType(StrEnum):
    USER = "user"
    API_KEY = "api_key"
