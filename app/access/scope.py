"""Which rows of which table a principal sees and changes: the one place (docs/adr/0018).

Every table of the database stands in `WALLS` with its rule. The rules become PostgreSQL's row-level security when the
schema is migrated (`app.access.wall`), and every transaction for a principal runs under a role that they hold: a new
route is safe though it forgets to filter, and a table that is not here yet cannot be read by any route at all.

A new table is one line here: `by_elder()` when it has an `elder_id`, `by_region()` when it has a `region_code`,
`through(…)` when it belongs to a row that has one, `same_for_all(why)` when it holds nothing of a person or a place,
`server_only(why)` when no route reads it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from app.access.principal import DISTRICT_DIGITS

FROM, UNTIL = "shouwang.from", "shouwang.until"  # the scope as a range of region codes
ELDERS = "shouwang.elders"  # a visitor's: those assigned today
VISITOR, PRINCIPAL = "shouwang.visitor", "shouwang.principal"

_NOTHING = "false"


def _setting(name: str, kind: str = "text") -> str:
    """What the transaction was begun with; null when it was not: then a comparison with it holds for no row."""
    return f"nullif(current_setting('{name}', true), '')::{kind}"


def _inside(column: str) -> str:
    """The scope's range. Stable and leakproof, so that the planner knows its width and takes it to an index, whichever
    the scope; the text_pattern operators are those of the indexes."""
    return (
        f"({column}::text ~>=~ current_setting('{FROM}', true) AND {column}::text ~<~ current_setting('{UNTIL}', true))"
    )


def _mine(column: str) -> str:
    """A visitor's elders. As a sub-select it is computed once for a statement, not for a row."""
    return f"{column} = ANY ((SELECT {_setting(ELDERS, 'uuid[]')})::uuid[])"


@dataclass(frozen=True, slots=True)
class Wall:
    """What rows of one table exist for a principal, as conditions on the row. `{t}` is the table.

    Accounts and keys whose scope is everything see all rows; `everywhere` is false for tables of the server's own.
    """

    region: str  # for an account or key of a region
    visitor: str = _NOTHING  # for an account of the role visitor
    everywhere: bool = True
    writes: str | None = None  # of a region: where it may write, when that is less than what it reads
    appended: bool = False  # anybody may add a row; what is there is seen by the rule
    why: str = ""


def by_region(column: str = "region_code", *, visitor: str = _NOTHING) -> Wall:
    """Rows of a place. A visitor sees none of them unless told how."""
    return Wall(_inside(f"{{t}}.{column}"), visitor)


def by_elder(column: str = "elder_id", *, region: str | None = None) -> Wall:
    """Rows of an elder. `region`: a column with the elder's region code, where there is one (it moves with them)."""
    seen = f"EXISTS (SELECT FROM elders e WHERE e.id = {{t}}.{column})"
    return Wall(_inside(f"{{t}}.{region}") if region else seen, _mine(f"{{t}}.{column}"))


def through(parent: str, column: str, *, key: str = "id") -> Wall:
    """Rows that exist when the row they belong to does."""
    seen = f"EXISTS (SELECT FROM {parent} p WHERE p.{key} = {{t}}.{column})"
    return Wall(seen, seen)


def same_for_all(why: str, *, writes: str | None = None) -> Wall:
    """Nothing of a person: everybody reads it. `writes`: a region's column that limits who changes it."""
    return Wall("true", "true", writes=_inside(f"{{t}}.{writes}") if writes else None, why=why)


_OF_A_DISTRICT = f"length(current_setting('{FROM}', true)) <= {DISTRICT_DIGITS}"  # or of everything


def server_only(why: str) -> Wall:
    """No route on behalf of a principal touches it."""
    return Wall(_NOTHING, everywhere=False, why=why)


# As arrays: computed once for a statement, and taken to an index.
_WORN = f"SELECT b.device_id FROM bindings b WHERE {_mine('b.elder_id')} AND b.unbound_at IS NULL"  # noqa: S608
_WORN_BY_MINE = f"{{t}}.device_id = ANY (ARRAY({_WORN}))"
_MY_OWN = f"{{t}}.principal = {_setting(PRINCIPAL)}"
_THEIRS = f"SELECT a.visitor_id FROM assignments a WHERE {_mine('a.elder_id')} AND a.ended_at IS NULL"  # noqa: S608
_NAMED = "SELECT count(*) FROM elders e WHERE e.id = ANY ({t}.about)"
_BESIDE_ME = f"{{t}}.id = ANY (array_append(ARRAY({_THEIRS}), {_setting(VISITOR, 'uuid')}))"

WALLS: Mapping[str, Wall] = {
    # --- people
    "elders": Wall(_inside("{t}.region_code"), _mine("{t}.id")),
    "residences": by_elder(),
    "elder_statuses": by_elder(),
    "elder_facts": by_elder(),
    "assessments": by_elder(),
    "family_members": by_elder(),
    "consents": by_elder(),
    "classification_changes": by_elder(),
    "contacts": by_elder(),
    "assignments": by_elder(),
    "visitors": by_region(visitor=_BESIDE_ME),
    "channels": Wall(
        "(EXISTS (SELECT FROM contacts c WHERE c.id = {t}.contact_id) OR "
        "EXISTS (SELECT FROM visitors v WHERE v.id = {t}.visitor_id))",
        f"(EXISTS (SELECT FROM contacts c WHERE c.id = {{t}}.contact_id) OR {{t}}.visitor_id = {_setting(VISITOR, 'uuid')})",
    ),
    # --- alarms
    "alarms": by_elder(region="region_code"),
    "alarm_entries": through("alarms", "alarm_id"),
    "notices": through("alarms", "alarm_id"),
    "feed_events": Wall(
        _inside("{t}.region_code"), "EXISTS (SELECT FROM alarms p WHERE p.id = {t}.alarm_id)", appended=True
    ),
    # --- visits
    "visits": by_elder(region="region_code"),
    "visit_partners": through("visits", "visit_id"),
    "visit_versions": through("visits", "visit_id"),
    "ledger_deltas": through("visits", "visit_id"),
    "findings": by_elder(),
    "finding_steps": through("findings", "finding_id"),
    "care_tasks": by_elder(),
    "visit_duties": by_elder(region="region_code"),
    "rounds": by_region(visitor=f"{{t}}.visitor_id = {_setting(VISITOR, 'uuid')}"),
    "round_stops": by_elder(),
    # A message names people: it is seen while all of them are.
    "digests": Wall(
        f"({_inside('{t}.region_code')} AND cardinality({{t}}.about) = ({_NAMED}))",
        f"({{t}}.visitor_id = {_setting(VISITOR, 'uuid')} AND {{t}}.about <@ (SELECT {_setting(ELDERS, 'uuid[]')})::uuid[])",
    ),
    "digest_settings": Wall(
        f"(({{t}}.region_code IS NOT NULL AND {_inside('{t}.region_code')}) OR "
        "EXISTS (SELECT FROM visitors v WHERE v.id = {t}.visitor_id))",
        f"{{t}}.visitor_id = {_setting(VISITOR, 'uuid')}",
    ),
    "digest_timers": server_only("when a worker looks at whom next"),
    "elder_imports": by_region(),
    "elder_import_rows": through("elder_imports", "import_id"),
    # --- statistics: of the place where the people lived, also those who moved away since
    "elder_months": Wall(_inside("{t}.place_code"), _mine("{t}.elder_id")),
    "coverage_sums": by_region("place_code"),
    "coverage_stale": server_only("what triggers leave for the end of their transaction"),
    "coverage_calendar": server_only("how far the worker has counted"),
    # --- watches
    "home_states": by_elder(),
    "watch_periods": by_elder(),
    # Those of a region hold below it and are read by all; those of an elder belong to the elder.
    "rule_versions": Wall(
        "({t}.elder_id IS NULL OR EXISTS (SELECT FROM elders e WHERE e.id = {t}.elder_id))",
        f"({{t}}.elder_id IS NULL OR {_mine('{t}.elder_id')})",
        writes=f"CASE WHEN {{t}}.elder_id IS NULL THEN {_inside('{t}.region_code')} "
        "ELSE EXISTS (SELECT FROM elders e WHERE e.id = {t}.elder_id) END",
    ),
    # --- volunteers
    "credit_statements": through("visitors", "visitor_id"),
    "credited_visits": server_only("followed by the ledger when an entry changes, whoever changes it"),
    "training_sessions": by_region(),
    "station_activities": by_region(),
    # --- a ledger that can be believed
    "ledger_checks": by_region(),
    "ledger_samples": by_region(),
    "ledger_chain": server_only("digests, written by a function of the owner"),
    "ledger_heads": server_only("kept with the chain"),
    "ledger_seals": server_only("written by the worker, once an hour"),
    "ledger_seal_heads": server_only("written by the worker, once an hour"),
    "ledger_examinations": server_only("what the worker looks at next"),
    # --- devices
    "devices": by_region(visitor=_WORN_BY_MINE),
    "bindings": by_elder(),
    "device_events": Wall(
        "(EXISTS (SELECT FROM devices d WHERE d.device_id = {t}.device_id) AND "
        "({t}.elder_id IS NULL OR EXISTS (SELECT FROM elders e WHERE e.id = {t}.elder_id)))",
        _mine("{t}.elder_id"),
    ),
    "device_tests": through("devices", "device_id", key="device_id"),
    "device_states": through("devices", "device_id", key="device_id"),
    "device_credentials": through("devices", "device_id", key="device_id"),
    "unclaimed_devices": Wall("true", why="nobody knows yet whose they are: whoever may register devices sees them"),
    # Of a registered device: its region's; of an unknown device: anybody's to claim.
    "rejected_messages": Wall(f"coalesce({_inside('device_region({t}.device_id)')}, true)"),
    "zigbee_names": Wall(f"""coalesce({_inside("device_region('zigbee:' || {t}.address)")}, true)"""),
    # --- accounts
    "users": by_region(visitor=f"{{t}}.id = {_setting(PRINCIPAL, 'uuid')}"),
    "logins": through("users", "user_id"),
    "refresh_tokens": through("logins", "login_id"),
    "api_keys": by_region(),
    "audit_log": Wall(_inside("{t}.region_code"), appended=True),
    "idempotent_answers": Wall(_MY_OWN, _MY_OWN),
    # --- places and rules
    "duties": by_region(visitor=_BESIDE_ME.replace("{t}.id", "{t}.visitor_id")),
    "closed_months": same_for_all("figures of a place, and whether its month is closed", writes="region_code"),
    "regions": same_for_all("names and codes of places, which are public", writes="code"),
    "care_policies": same_for_all("rules; those of the region above hold below it", writes="region_code"),
    "escalation_policies": same_for_all("rules; those of the region above hold below it", writes="region_code"),
    "special_periods": same_for_all("days on which more is due; those of the region above hold", writes="region_code"),
    "festival_settings": same_for_all("what festivals ask for; those of the region above hold", writes="region_code"),
    "ability_scales": Wall("true", "true", writes=_OF_A_DISTRICT, why="what a score means"),
    "device_profiles": Wall("true", "true", writes=_OF_A_DISTRICT, why="how a family of devices is read"),
    # --- front ends
    "webhook_subscriptions": by_region(),
    "webhook_deliveries": through("webhook_subscriptions", "subscription_id"),
    # --- the server's own
    "audit_head": server_only("kept by the trigger of audit_log"),
    "login_tries": server_only("counted before anybody is known"),
    "known_places": server_only("asked before anybody is known"),
    "heartbeats": server_only("what processes say of themselves"),
    "webhook_fan_out": server_only("how far a worker has read"),
}
