"""Roles of accounts."""

from enum import StrEnum


class Role(StrEnum):
    ADMIN = "admin"  # everything in its region, accounts included
    SUPERVISOR = "supervisor"  # people, devices, policies, reveals
    OPERATOR = "operator"  # watches the feed, handles alarms
    VISITOR = "visitor"  # the elders assigned to it, today
    AUDITOR = "auditor"  # reads, changes nothing
