"""The topics of native devices as an AsyncAPI 3 document."""

from __future__ import annotations

from typing import Any

from app.devices.codec import MAX_PAYLOAD
from app.devices.codecs.native import MAX_ID, TYPES

_DEVICE_ID = {"device_id": {"description": f"1 to {MAX_ID} printable characters without / + #"}}
_COMMON = {
    "type": {"type": "string", "enum": list(TYPES)},
    "id": {"type": "string", "maxLength": MAX_ID,
           "description": "The device's own event id: the same (device, id) is one event however often it arrives."},
    "ts": {"oneOf": [{"type": "integer", "description": "Epoch milliseconds"}, {"type": "string", "format": "date-time"}],
           "description": "The device's clock. One more than 5 minutes off marks the event, and delays nothing."},
    "battery": {"type": "integer", "minimum": 0, "maximum": 100},
    "rssi": {"type": "integer"},
}  # fmt: skip
_FIELDS: dict[str, dict[str, Any]] = {
    "fall": {"confidence": {"type": "number", "minimum": 0, "maximum": 1}},
    "door": {"state": {"type": "string", "enum": ["open", "closed"]}},
    "motion": {"active": {"type": "boolean"}},
    "bed": {"occupied": {"type": "boolean"}},
    "smoke": {"active": {"type": "boolean"}},
    "gas": {"active": {"type": "boolean"}},
    "water_leak": {"active": {"type": "boolean"}},
    "vitals": {"heart_rate": {"type": "number"}, "spo2": {"type": "number"}},
}
_REQUIRED = {"door": ["state"], "bed": ["occupied"], "smoke": ["active"], "gas": ["active"], "water_leak": ["active"]}
_EXAMPLES: dict[str, dict[str, Any]] = {
    "sos": {"type": "sos", "id": "17", "battery": 88},
    "fall": {"type": "fall", "confidence": 0.93},
    "door": {"type": "door", "state": "open"},
    "motion": {"type": "motion"},
    "bed": {"type": "bed", "occupied": True},
    "smoke": {"type": "smoke", "active": True},
    "gas": {"type": "gas", "active": True},
    "water_leak": {"type": "water_leak", "active": True},
    "cancel": {"type": "cancel"},
    "vitals": {"type": "vitals", "heart_rate": 72, "spo2": 97},
    "heartbeat": {"type": "heartbeat", "battery": 76, "rssi": -61},
}


def document() -> dict[str, Any]:
    """AsyncAPI 3.0, seen from the server: it receives events and status, and sends commands."""
    messages = {kind: _event(kind) for kind in TYPES}
    return {
        "asyncapi": "3.0.0",
        "info": {"title": "Shouwang 守望 · MQTT", "version": "1",
                 "description": f"JSON objects in UTF-8, at most {MAX_PAYLOAD} bytes, QoS 1. What cannot be read is kept "
                                "in quarantine with its reason (GET /api/v1/rejected-messages) and acknowledged."},
        "defaultContentType": "application/json",
        "channels": {
            "event": {"address": "devices/{device_id}/event", "parameters": _DEVICE_ID,
                      "messages": {kind: {"$ref": f"#/components/messages/{kind}"} for kind in TYPES}},
            "status": {"address": "devices/{device_id}/status", "parameters": _DEVICE_ID,
                       "messages": {"status": {"$ref": "#/components/messages/status"}}},
            "command": {"address": "devices/{device_id}/command", "parameters": _DEVICE_ID,
                        "messages": {name: {"$ref": f"#/components/messages/{name}"} for name in ("alarm_state", "test")}},
        },
        "operations": {
            "receiveEvent": _operation("receive", "event", retain=False),
            "receiveStatus": _operation("receive", "status", retain=True),
            "sendCommand": _operation("send", "command", retain=False),
        },
        "components": {"messages": {**messages, "status": _status(), "alarm_state": _alarm_state(), "test": _test()}},
    }  # fmt: skip


def _operation(action: str, channel: str, *, retain: bool) -> dict[str, Any]:
    return {
        "action": action,
        "channel": {"$ref": f"#/channels/{channel}"},
        "bindings": {"mqtt": {"qos": 1, "retain": retain, "bindingVersion": "0.2.0"}},
    }


def _event(kind: str) -> dict[str, Any]:
    schema = {
        "type": "object",
        "properties": {**_COMMON, "type": {"const": kind}, **_FIELDS.get(kind, {})},
        "required": ["type", *_REQUIRED.get(kind, [])],
    }
    return {"name": kind, "payload": schema, "examples": [{"payload": _EXAMPLES[kind]}]}


def _status() -> dict[str, Any]:
    schema = {"type": "object", "properties": {"online": {"type": "boolean"}}, "required": ["online"]}
    return {
        "name": "status",
        "summary": "Retained; also the device's last will",
        "payload": schema,
        "examples": [{"payload": {"online": True}}],
    }


def _test() -> dict[str, Any]:
    text = {"type": "string"}
    schema = {
        "type": "object",
        "properties": {"type": {"const": "test"}, "test_id": text, "message": text, "state": {"const": "seen"}},
        "required": ["type", "test_id", "state", "message"],
    }
    example = {
        "type": "test",
        "test_id": "019c0a52-6f00-7000-8000-000000000001",
        "state": "seen",
        "message": "测试成功,已收到",
    }
    return {
        "name": "test",
        "summary": "A guided test saw what it waited for",
        "payload": schema,
        "examples": [{"payload": example}],
    }


def _alarm_state() -> dict[str, Any]:
    text = {"type": "string"}
    schema = {
        "type": "object",
        "properties": {
            "type": {"const": "alarm_state"},
            "alarm_id": text,
            "message": text,
            "state": {"type": "string", "enum": ["open", "acknowledged", "attending", "resolved"]},
        },
        "required": ["type", "alarm_id", "state", "message"],
    }
    return {"name": "alarm_state", "summary": "The elder's device can say that help is on the way", "payload": schema}
