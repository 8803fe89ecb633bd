"""Roles of accounts, and the closed list of rights: what an account's role gives, what an API key's scopes give."""

from enum import StrEnum


class Role(StrEnum):
    ADMIN = "admin"  # everything in its region, accounts included
    SUPERVISOR = "supervisor"  # people, devices, policies, reveals
    OPERATOR = "operator"  # watches the feed, handles alarms
    VISITOR = "visitor"  # the elders assigned to it, today
    AUDITOR = "auditor"  # reads, the audit log too; changes nothing


class Right(StrEnum):
    """Each route names the one right it needs. The first ten are also the scopes of API keys."""

    ELDERS_READ = "elders:read"  # the register: elders, contacts, visitors, consents, duty rosters
    ELDERS_WRITE = "elders:write"
    ALARMS_READ = "alarms:read"  # alarms, the feed, who was told, the policies that say who is told
    ALARMS_WRITE = "alarms:write"
    VISITS_READ = "visits:read"
    VISITS_WRITE = "visits:write"
    DEVICES_READ = "devices:read"
    DEVICES_WRITE = "devices:write"  # bindings, unclaimed devices and the quarantine too
    STATS_READ = "stats:read"
    REVEAL = "reveal"  # sealed fields in the clear; each time an audit row

    SELF_READ = "self:read"  # what this token is
    PLACES_READ = "places:read"  # names and codes of regions within the scope
    SELF_WRITE = "self:write"  # one's own password and log-ins
    POLICIES_WRITE = "policies:write"
    CARE_RULES = "care_rules:write"  # who is key, how often visited, which score means which ability
    REGIONS_WRITE = "regions:write"  # regions and duty rosters
    ACCOUNTS = "accounts"
    API_KEYS = "api_keys"
    AUDIT_READ = "audit:read"
    LEDGER_READ = "ledger:read"  # which entries somebody should look at, and samples for audit
    LEDGER_REVIEW = "ledger:review"
    EXPORT = "export"
    ERASE = "erase"  # a person who left, for good
    WEBHOOKS = "webhooks"


class KeyScope(StrEnum):
    """What an API key may be given: nothing that manages accounts, keys, policies, regions or the audit log."""

    ELDERS_READ = Right.ELDERS_READ.value
    ELDERS_WRITE = Right.ELDERS_WRITE.value
    ALARMS_READ = Right.ALARMS_READ.value
    ALARMS_WRITE = Right.ALARMS_WRITE.value
    VISITS_READ = Right.VISITS_READ.value
    VISITS_WRITE = Right.VISITS_WRITE.value
    DEVICES_READ = Right.DEVICES_READ.value
    DEVICES_WRITE = Right.DEVICES_WRITE.value
    STATS_READ = Right.STATS_READ.value
    REVEAL = Right.REVEAL.value


EVERY_CREDENTIAL = frozenset({Right.SELF_READ, Right.PLACES_READ})
_EVERY_ACCOUNT = EVERY_CREDENTIAL | {Right.SELF_WRITE}
_READS = frozenset({Right.ELDERS_READ, Right.ALARMS_READ, Right.VISITS_READ, Right.DEVICES_READ, Right.STATS_READ})

RIGHTS_OF: dict[Role, frozenset[Right]] = {
    Role.ADMIN: frozenset(Right),
    Role.SUPERVISOR: frozenset(Right)
    - {Right.ACCOUNTS, Right.API_KEYS, Right.AUDIT_READ, Right.CARE_RULES, Right.ERASE},
    Role.OPERATOR: _EVERY_ACCOUNT | _READS | {Right.ALARMS_WRITE, Right.VISITS_WRITE},
    Role.VISITOR: _EVERY_ACCOUNT | (_READS - {Right.STATS_READ}) | {Right.ALARMS_WRITE, Right.VISITS_WRITE},
    Role.AUDITOR: _EVERY_ACCOUNT | _READS | {Right.AUDIT_READ, Right.LEDGER_READ},
}
