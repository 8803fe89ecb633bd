"""Every table: what of an elder it holds, how it is found, and what is left of it when the person is erased.

One entry a table, in the order in which rows may be erased. A test fails when a table or a column of the schema is missing
here, so that whoever adds one decides about it. Statistics count visits, alarms, statuses, places and classes by day: those
columns stay. Names, numbers, days of birth, free text, health and habits do not.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

ERASED = "(已删除)"  # stands where a text is asked for
_GONE = f"'{ERASED}'"
_ALARMS = "(SELECT id FROM alarms WHERE elder_id = :elder)"
_VISITS = "(SELECT id FROM visits WHERE elder_id = :elder)"
_DEVICES = "(SELECT device_id FROM bindings WHERE elder_id = :elder)"
_OWN = "t.elder_id = :elder"


def _if_given(column: str) -> str:
    """A text that says whether something was there goes on saying so."""
    return f"CASE WHEN t.{column} IS NOT NULL THEN {_GONE} END"


def _staff_only(column: str) -> str:
    """Who did something: staff stays named, the person's own people do not."""
    nobody = f"jsonb_build_object('type', 'contact', 'id', t.{column} -> 'id', 'name', {_GONE})"
    return f"CASE WHEN t.{column} ->> 'type' = 'contact' THEN {nobody} ELSE t.{column} END"


@dataclass(frozen=True, slots=True)
class Held:
    """Rows of `table` (as `t`) that are about :elder. Erasing deletes them, or leaves `keeps` and makes `becomes` of the
    other columns (SQL). `hides` are technical and are not exported."""

    table: str
    title: str
    of: str = _OWN
    keeps: tuple[str, ...] = ()
    becomes: Mapping[str, str] = field(default_factory=dict)
    hides: tuple[str, ...] = ()
    order: str = "1"

    @property
    def deleted(self) -> bool:
        return not self.keeps and not self.becomes

    def where(self) -> str:
        """The condition, with the parameter in its type."""
        return self.of.replace(":elder", "CAST(:elder AS uuid)")

    def erasing(self) -> str | None:
        """The statement that erases; None: everything stays."""
        if self.deleted:
            return f"DELETE FROM {self.table} t WHERE {self.where()}"  # noqa: S608 - constants
        if not self.becomes:
            return None
        changes = ", ".join(f"{column} = {value}" for column, value in self.becomes.items())
        changes = changes.replace(":now", "CAST(:now AS timestamptz)")
        return f"UPDATE {self.table} t SET {changes} WHERE {self.where()}"  # noqa: S608 - constants


HELD = (
    Held(
        "elders", "登记信息", "t.id = :elder",
        keeps=("id", "sex", "region_code", "tags", "status", "status_reason", "status_since", "status_until",
               "status_evidenced", "care_level", "created_at"),
        becomes={
            "name": _GONE, "birth_date": "date_trunc('decade', t.birth_date::timestamp)::date",
            "id_number_sealed": "NULL", "id_number_index": "NULL", "phone_sealed": "NULL", "phone_tail_index": "NULL",
            "address_sealed": "NULL", "ability_level": "NULL", "ability_assessed_on": "NULL", "observed": "NULL",
            "disability_grade": "NULL", "dementia": "false", "services": "'{}'", "other_tags": "'{}'",
            "circumstances": "'{}'", "service_notes": "'{}'", "willing": "NULL", "willing_asked_on": "NULL",
            "surveyed_on": "NULL", "remarks": "NULL", "name_keys": "''", "reclassify_on": "NULL", "updated_at": ":now",
            "version": "t.version + 1", "erased_at": ":now",
        },
        hides=("id_number_index", "phone_tail_index", "name_keys", "reclassify_on", "version", "erased_at"),
    ),
    Held("residences", "居住地", keeps=("id", "elder_id", "region_code", "since", "recorded_at", "recorded_by")),
    Held(
        "elder_statuses", "状态",
        keeps=("id", "elder_id", "status", "reason", "since", "until", "recorded_at", "recorded_by"),
        becomes={"evidence": _if_given("evidence")},
    ),
    Held("elder_facts", "身体与生活状况"),
    Held("assessments", "能力评估"),
    Held("consents", "同意书"),
    Held("family_members", "家庭成员", hides=("version",)),
    Held(
        "channels", "联系人通知渠道", "t.contact_id IN (SELECT id FROM contacts WHERE elder_id = :elder)",
        hides=("secret_sealed", "visitor_id"),
    ),
    Held("contacts", "联系人", hides=("version",)),
    Held("assignments", "结对探访人员", keeps=("id", "elder_id", "visitor_id", "role", "created_at"),
        becomes={"ended_at": "coalesce(t.ended_at, :now)"}),
    Held(
        "classification_changes", "分级记录",
        keeps=("seq", "id", "elder_id", "effective_on", "care_level", "policy_version", "cause", "recorded_at"),
        becomes={
            "reasons": "(SELECT coalesce(jsonb_agg(jsonb_build_object('clause', r -> 'clause', 'because', '')), '[]') "
            "FROM jsonb_array_elements(t.reasons) r)",
            "inputs": "'{}'",
        },
        hides=("seq",),
    ),
    Held(
        "visit_partners", "同行探访人员", f"t.visit_id IN {_VISITS}", keeps=("visit_id", "visitor_id"),
    ),
    Held("visit_versions", "探访记录的更正", f"t.visit_id IN {_VISITS}"),
    Held(
        "ledger_deltas", "已结月份的更正", f"t.visit_id IN {_VISITS}",
        keeps=("id", "closed_month_id", "visit_id", "kind", "qualifying_before", "qualifying_after", "by", "at"),
        becomes={"reason": _GONE},
    ),
    Held(
        "finding_steps", "问题处理", "t.finding_id IN (SELECT id FROM findings WHERE elder_id = :elder)",
        keeps=("id", "finding_id", "stage", "at", "by"), becomes={"note": "NULL"},
    ),
    Held(
        "findings", "发现的问题",
        keeps=("id", "elder_id", "visit_id", "kind", "topic", "stage", "found_at", "reminders", "version"),
        becomes={"description": _GONE, "family_member_id": "NULL", "remind_on": "NULL",
                 "ended_at": "coalesce(t.ended_at, :now)"},
        hides=("version",),
    ),
    Held(
        "care_tasks", "报警后的任务",
        keeps=("id", "elder_id", "kind", "alarm_id", "asked_at", "asked_on", "due_at", "risen", "dismissed_at",
               "dismissed_by"),
        becomes={"because": _GONE, "rise_at": "NULL", "dismissed_reason": _if_given("dismissed_reason")},
    ),
    Held(
        "visits", "探访",
        keeps=("id", "elder_id", "region_code", "place_code", "visitor_id", "method", "outcome", "started_at",
               "ended_at", "services", "alarm_id", "qualifying", "non_qualifying_code", "same_as", "late", "override",
               "override_by", "voided_at", "created_at", "created_by", "version"),
        becomes={"health": "'{}'", "note": "NULL", "override_reason": _if_given("override_reason"),
                 "void_reason": _if_given("void_reason")},
        hides=("version",),
    ),
    Held(
        "ledger_chain", "台账校验链",
        keeps=("elder_id", "seq", "at", "of", "visit_id", "version", "digest", "previous_hash", "hash"),
        hides=("seq", "of", "version", "digest", "previous_hash", "hash"),
    ),
    Held("ledger_heads", "台账校验链", keeps=("elder_id", "rows", "hash", "sealed"), hides=("rows", "hash", "sealed")),
    Held(
        "ledger_checks", "台账核查",
        f"(t.visit_id IN {_VISITS} OR t.other_visit_id IN {_VISITS} "  # noqa: S608
        "OR t.figures -> 'visit_ids' ?| ARRAY(SELECT CAST(id AS text) FROM visits WHERE elder_id = :elder))",
        keeps=("id", "kind", "key", "group_key", "month", "region_code", "visitor_id", "visit_id", "other_visit_id", "because",
               "figures", "found_at", "state", "outcome", "reviewed_at", "reviewed_by"),
        becomes={"note": _if_given("note")},
        # The note may be about others, and the figures name their entries.
        hides=("key", "group_key", "other_visit_id", "figures", "note", "reviewed_at", "reviewed_by"),
    ),
    Held("ledger_seal_heads", "台账校验链", keeps=("seal", "elder_id", "rows", "hash"), hides=("seal", "rows", "hash")),
    Held(
        "elder_months", "月度统计",
        keeps=("elder_id", "month", "place_code", "care_level", "counted_from", "excused", "evidenced", "visits",
               "attempts", "first_on", "last_on", "gap_days"),
    ),
    Held(
        "visit_duties", "应探访情况",
        keeps=("elder_id", "region_code", "care_level", "period", "period_end", "per_period", "still", "overdue",
               "look_on"),
        hides=("look_on",),
    ),
    Held(
        "round_stops", "探访路线", keeps=("round_id", "position", "day", "due_by", "visitor_id", "elder_id"),
        becomes={"reasons": "'{}'"},
    ),
    Held("home_states", "家中情况", hides=("version",)),
    Held("watch_periods", "外出与维护"),
    Held("rule_versions", "本人的提醒设置"),
    # They name everybody whom somebody was to see that day: the message goes, also for the others.
    Held("digests", "每日提醒", ":elder = ANY (t.about)", hides=("title", "text", "data", "about", "error")),
    Held("feed_events", "值班动态", f"(t.alarm_id IN {_ALARMS} OR t.data ->> 'elder_id' = CAST(:elder AS text))"),
    Held(
        "notices", "通知", f"t.alarm_id IN {_ALARMS}",
        keeps=("id", "alarm_id", "purpose", "round", "recipient_type", "recipient_id", "recipient_role", "channel",
               "state", "attempts", "created_at", "due_at", "sent_at"),
        becomes={
            "recipient_name": f"CASE WHEN t.recipient_type = 'contact' THEN {_GONE} ELSE t.recipient_name END",
            "reason": _GONE, "channel_id": "NULL", "provider_id": "NULL", "error": _if_given("error"),
        },
        hides=("provider_id", "channel_id"),
    ),
    Held(
        "alarm_entries", "报警经过", f"t.alarm_id IN {_ALARMS}", keeps=("id", "alarm_id", "at", "kind"),
        becomes={
            "by": _staff_only("by"),
            "data": "(SELECT coalesce(jsonb_object_agg(key, value), '{}') FROM jsonb_each(t.data) "
            "WHERE jsonb_typeof(value) IN ('number', 'boolean'))",
        },
    ),
    Held(
        "alarms", "报警",
        keeps=("id", "elder_id", "region_code", "kind", "severity", "state", "trigger_device_id",
               "occurred_at", "received_at", "late", "raised_at", "first_sent_at", "answered_at", "acknowledged_at",
               "promise_due_at", "attended_at", "resolved_at", "outcome", "repeats", "plan", "plan_from", "step",
               "round", "next_at", "unreachable_since", "version"),
        becomes={"because": _GONE, "trigger_event": "NULL", "trigger_event_id": "NULL",
                 "acknowledged_by": _staff_only("acknowledged_by"), "attended_by": _staff_only("attended_by")},
        hides=("plan", "plan_from", "version"),
    ),
    Held(
        "rejected_messages", "未能识别的设备消息",
        f"t.device_id IN {_DEVICES} AND EXISTS (SELECT FROM bindings b WHERE b.device_id = t.device_id "
        "AND b.elder_id = :elder AND t.received_at >= b.bound_at AND t.received_at < coalesce(b.unbound_at, 'infinity'))",
        hides=("payload",),
    ),
    Held(  # the lists themselves are sealed, go as soon as they are used and after three days; all goes after thirty
        "elder_imports", "名单导入", "t.id IN (SELECT import_id FROM elder_import_rows WHERE elder_id = :elder)",
        keeps=("id", "region_code", "place_code", "size", "state", "mode", "failure", "notices", "rows_total", "rows_done",
               "counts", "holder", "leased_until", "tries", "created_by", "committed_by", "created_at",
               "checked_at", "finished_at"),
        becomes={
            "filename": "NULL",
            "file_sealed": "CASE WHEN t.state IN ('uploaded', 'committing') THEN t.file_sealed END",
        },
        hides=("place_code", "size", "file_sealed", "mode", "failure", "notices", "rows_total", "rows_done", "counts",
               "holder", "leased_until", "tries", "checked_at", "finished_at", "filename", "committed_by"),
    ),
    Held("elder_import_rows", "名单导入结果", hides=("issues",)),
    Held("device_events", "设备消息", f"t.device_id IN {_DEVICES} AND {_OWN}"),
    Held(
        "devices", "现用设备", "t.device_id IN (SELECT device_id FROM bindings WHERE elder_id = :elder AND unbound_at IS NULL)",
        keeps=("device_id", "kind", "profile", "model", "region_code", "online", "battery", "rssi", "last_seen_at", "created_at",
              "battery_said", "testing_until", "test_due_at", "test_remind_at"),
        becomes={"place": "NULL", "version": "t.version + 1"},
        hides=("version",),
    ),
    Held(
        "device_tests", "设备测试",
        keeps=("id", "device_id", "elder_id", "expects", "started_at", "ends_at", "started_by", "seen_at", "event_type",
               "cancelled_at", "closed_at", "event_id"),
        becomes={"note": "NULL"},
    ),
    Held(
        "bindings", "设备佩戴", keeps=("id", "device_id", "elder_id", "bound_at"),
        becomes={"unbound_at": "coalesce(t.unbound_at, :now)"},
    ),
)  # fmt: skip

# Tables that hold nothing of an elder, and why.
NOBODY = {
    "ability_scales": "rules",
    "api_keys": "accounts of front ends",
    "audit_head": "a number and a hash",
    "audit_log": "ids only, kept as it is; what concerns a person is exported from it (app/privacy/export.py)",
    "care_policies": "rules",
    "closed_months": "figures",
    "coverage_calendar": "a day",
    "coverage_stale": "empty outside transactions",
    "coverage_sums": "figures",
    "credit_statements": "what visitors did, without any elder",
    "credited_visits": "ids of entries, and minutes",
    "device_credentials": "hashes of devices' passwords",
    "device_profiles": "rules",
    "device_states": "how devices are now, whoever wears them next",
    "digest_settings": "rules",
    "digest_timers": "when a worker looks next",
    "duties": "offices of staff",
    "escalation_policies": "rules",
    "festival_settings": "rules",
    "heartbeats": "processes",
    "idempotent_answers": "sealed answers of two days; erasing opens them (app/privacy/erasure.py)",
    "known_places": "keyed hashes of staff's addresses",
    "ledger_examinations": "ids of entries, for a day",
    "ledger_samples": "ids of entries",
    "ledger_seals": "hashes",
    "login_tries": "keyed hashes",
    "logins": "log-ins of staff",
    "refresh_tokens": "hashes",
    "regions": "places",
    "rounds": "plans of staff; whom they name stands in round_stops",
    "special_periods": "rules",
    "station_activities": "what a station did; elders are counted, not named",
    "training_sessions": "meetings of staff",
    "unclaimed_devices": "devices that are nobody's yet",
    "users": "accounts of staff",
    "visitors": "staff and volunteers, whose data is their own",
    "webhook_deliveries": "ids only; what is sent is made when it is sent",
    "webhook_fan_out": "a number",
    "webhook_subscriptions": "front ends",
    "zigbee_names": "devices",
}
