"""Channels, and the life of one notice."""

from enum import StrEnum


class ChannelKind(StrEnum):
    WEBHOOK = "webhook"
    SMS = "sms"
    VOICE = "voice"
    EMAIL = "email"
    WECOM = "wecom"
    DINGTALK = "dingtalk"
    FEISHU = "feishu"
    CONSOLE = "console"
    DEVICE = "device"  # the elder's own device; nobody can be given this one


class NoticeState(StrEnum):
    PENDING = "pending"  # waits for its time -> sending, cancelled
    SENDING = "sending"  # a worker holds a lease -> sent, pending (try again), failed
    SENT = "sent"  # the other side took it -> delivered
    DELIVERED = "delivered"  # the other side says a person has it
    FAILED = "failed"  # for good, with the reason
    CANCELLED = "cancelled"  # somebody answered before it went out


class Purpose(StrEnum):
    """What a notice says. The webhook's `type`."""

    RAISED = "alarm.raised"
    ESCALATED = "alarm.escalated"
    REOPENED = "alarm.reopened"  # a promise passed
    CALMED = "alarm.calmed"  # the elder says "I am fine"; one person must still look
    REPEATED = "alarm.repeated"  # pressed again while somebody is on the way
    REMINDED = "alarm.reminded"  # somebody arrived long ago and gave no outcome
    ACKNOWLEDGED = "alarm.acknowledged"
    RESOLVED = "alarm.resolved"
    DEVICE_STATE = "alarm_state"  # to the elder's device


# Notices that ask somebody to come: an answer cancels those that are still waiting.
ASKING = frozenset({Purpose.RAISED, Purpose.ESCALATED, Purpose.REOPENED, Purpose.CALMED})


class DigestKind(StrEnum):
    """Messages that are no alarms. The webhook's `type`."""

    DUE = "visits.due"  # to a visitor, once a day
    UNVISITED = "visits.unvisited"  # to a village head or a township's duty, before a week or month closes
    TASK_OVERDUE = "task.overdue"  # what an emergency asked for was not done in time


class RecipientType(StrEnum):
    CONTACT = "contact"
    VISITOR = "visitor"
    OPERATORS = "operators"
    DEVICE = "device"


class Target(StrEnum):
    """Who a step of an escalation policy tells."""

    EMERGENCY_CONTACTS = "emergency_contacts"
    ASSIGNED_VISITORS = "assigned_visitors"
    VILLAGE_HEAD = "village_head"
    TOWNSHIP_DUTY = "township_duty"
    OPERATORS = "operators"
