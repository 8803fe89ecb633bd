"""Kinds of devices and reasons for quarantine."""

from enum import StrEnum


class DeviceKind(StrEnum):
    SOS_BUTTON = "sos_button"
    FALL_DETECTOR = "fall_detector"
    DOOR_SENSOR = "door_sensor"
    MOTION_SENSOR = "motion_sensor"
    BED_SENSOR = "bed_sensor"
    SMOKE_DETECTOR = "smoke_detector"
    GAS_DETECTOR = "gas_detector"
    WATER_SENSOR = "water_sensor"
    GATEWAY = "gateway"
    OTHER = "other"


class RejectReason(StrEnum):
    """Why a message is kept in quarantine."""

    UNKNOWN_TOPIC = "unknown_topic"  # no codec reads this topic
    TOO_LARGE = "too_large"  # more than 16 KiB
    EMPTY = "empty"  # no bytes at all
    NOT_UTF8 = "not_utf8"
    NOT_JSON = "not_json"
    NOT_AN_OBJECT = "not_an_object"
    MISSING_TYPE = "missing_type"
    UNKNOWN_TYPE = "unknown_type"
    BAD_FIELD = "bad_field"  # a field the type cannot do without is missing or nonsense
    NAMES_ANOTHER_DEVICE = "names_another_device"
    BAD_DEVICE_ID = "bad_device_id"
    UNKNOWN_DEVICE = "unknown_device"  # well-formed, but nobody registered the device
    NOT_STORABLE = "not_storable"  # the database refused this one message; the others went on
