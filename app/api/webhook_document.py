"""What front ends are sent, for the OpenAPI document."""

from __future__ import annotations

from typing import Any

from app.webhooks.vocabulary import KINDS, TEST

_HEADERS = [
    {"name": name, "in": "header", "required": True, "schema": {"type": "string"}, "description": text}
    for name, text in (
        ("webhook-id", "The delivery's id: the same on every attempt and when it is sent again."),
        ("webhook-timestamp", "Seconds since the epoch, of this attempt."),
        ("webhook-signature", "Standard Webhooks; two signatures with a space between while a secret is changed over."),
    )
]
_RULES = """Sent to each subscription of `/webhooks` that wants it. Answer 2xx within 10 s. 410 pauses the subscription;
everything else, redirects too, is tried again for a day. At least once: tell repeats by `webhook-id`. In order as far as
nothing has to be tried again: `timestamp` is the event's time, `data` is as it stands when the message goes out."""


def described() -> dict[str, Any]:
    """The `webhooks` of the OpenAPI document: one for each event type, and the test."""
    alarm = {
        "type": "object",
        "required": ["alarm", "detail"],
        "properties": {
            "alarm": {"$ref": "#/components/schemas/AlarmOut"},
            "detail": {"type": "object", "description": "What the feed says of this event beside the alarm."},
        },
    }
    test = {
        "type": "object",
        "required": ["webhook_id"],
        "properties": {
            "webhook_id": {"type": "string", "format": "uuid"},
            "description": {"type": ["string", "null"]},
        },
    }
    found = {event.value: _described(event.value, kind.says, alarm) for event, kind in KINDS.items()}
    return {**found, TEST: _described(TEST, "Somebody tries out the receiver.", test)}


def _described(type_: str, says: str, data: dict[str, Any]) -> dict[str, Any]:
    payload = {
        "type": "object",
        "required": ["type", "timestamp", "data"],
        "properties": {
            "type": {"const": type_},
            "timestamp": {"type": "string", "format": "date-time"},
            "data": data,
        },
    }
    operation = {
        "summary": says,
        "description": _RULES,
        "parameters": _HEADERS,
        "requestBody": {"content": {"application/json": {"schema": payload}}},
        "responses": {"2XX": {"description": "Taken."}, "410": {"description": "Send nothing more."}},
    }
    return {"post": operation}


def to_people() -> dict[str, Any]:
    """What a contact's or visitor's webhook channel receives."""
    recipient = {"type": "object", "properties": {n: {"type": "string"} for n in ("type", "id", "name", "role")}}
    types = [
        "alarm.raised",
        "alarm.escalated",
        "alarm.reopened",
        "alarm.calmed",
        "alarm.repeated",
        "alarm.reminded",
        "alarm.acknowledged",
        "alarm.resolved",
    ]
    payload = {
        "type": "object",
        "required": ["type", "timestamp", "data"],
        "properties": {
            "type": {"type": "string", "enum": types},
            "timestamp": {"type": "string", "format": "date-time"},
            "data": {
                "type": "object",
                "properties": {
                    "alarm": {"$ref": "#/components/schemas/AlarmOut"},
                    "recipient": recipient,
                    "reason": {"type": "string"},
                    "ack_url": {"type": ["string", "null"], "description": "The recipient's answer link."},
                },
            },
        },
    }
    headers = [
        {"name": name, "in": "header", "required": True, "schema": {"type": "string"}, "description": text}
        for name, text in (
            ("webhook-id", "The notice's id: the same on every attempt."),
            ("webhook-timestamp", "Seconds since the epoch."),
            ("webhook-signature", "Standard Webhooks, with the channel's secret."),
        )
    ]
    return {
        "summary": "An alarm, to a webhook channel",
        "description": "Sent to each `webhook` channel of a contact or visitor. Answer 2xx within 5 s; 5xx, 408, 425 "
        "and 429 are tried again; redirects are not followed.",
        "parameters": headers,
        "requestBody": {"content": {"application/json": {"schema": payload}}},
        "responses": {"2XX": {"description": "Taken."}},
    }
