"""Kinds of devices, kinds of fields, what a field can mean, and reasons for quarantine."""

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


class ProfileSource(StrEnum):
    """Where a configured profile comes from."""

    API = "api"
    FILE = "file"


class FieldKind(StrEnum):
    """How a field is to be used. Edges, repeats and replays are decided outside the codecs, by this."""

    EVENT = "event"  # it happened now: a press
    STATE = "state"  # how something is, said again at will: open or closed
    ALARM_STATE = "alarm_state"  # a condition that stays true, and is said again until (or after) it ends
    DIAG = "diag"  # how the device itself is


class Role(StrEnum):
    """What a field of a message means. Tables of families and configured profiles are written in these words."""

    SOS = "sos"
    FALL = "fall"
    FALL_WARNING = "fall_warning"  # the detector is not sure yet
    DOOR = "door"
    MOTION = "motion"
    BED = "bed"
    SMOKE = "smoke"
    GAS = "gas"
    WATER_LEAK = "water_leak"
    CANCEL = "cancel"
    PRESS = "press"  # a button's word: what it means is the device's role
    SWITCH = "switch"  # an input that is on or off: what it means is the device's role
    TAMPER = "tamper"
    BATTERY_LOW = "battery_low"
    FAULT = "fault"
    ONLINE = "online"
    HEARTBEAT = "heartbeat"
    VITALS = "vitals"
    BATTERY = "battery"  # percent
    RSSI = "rssi"
    CONFIDENCE = "confidence"
    TIME = "time"
    EVENT_ID = "event_id"
    DEVICE_ID = "device_id"
    TYPE = "type"  # the value says which of the others it is
    IGNORE = "ignore"


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
    NOT_DECODED = "not_decoded"  # an uplink without a decoded object
    NO_KNOWN_FIELD = "no_known_field"  # nothing in it means anything to the profile
    SIMULATED = "simulated"  # the network's console made it up
    ID_USED_AGAIN = "id_used_again"  # its id was another event's before; what is a danger is journalled all the same
    NOT_STORABLE = "not_storable"  # the database refused this one message; the others went on
