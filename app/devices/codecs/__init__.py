"""One file a family of devices; this is the list of them."""

from __future__ import annotations

from collections.abc import Collection, Sequence

from app.devices.codec import Codec
from app.devices.codecs.chirpstack import ChirpStackCodec
from app.devices.codecs.entity import EspHomeCodec, TasmotaCodec
from app.devices.codecs.native import NativeCodec
from app.devices.codecs.profile import ProfileCodec
from app.devices.codecs.shelly import ShellyCodec
from app.devices.codecs.thing_model import PRESETS, ThingModelCodec
from app.devices.codecs.traccar import TraccarCodec
from app.devices.codecs.ttn import ThingsStackCodec
from app.devices.codecs.zigbee2mqtt import Zigbee2MqttCodec

PROFILES = "profile"  # configured profiles: no family of its own


def families(
    *, zigbee2mqtt_bases: Sequence[str] = ("zigbee2mqtt",), traccar_topics: Sequence[str] = ("traccar/#", "events")
) -> list[Codec]:
    """Every codec, in the order in which they are asked. Configured profiles come before the families whose topics may
    begin with anything, and after those that own what their topics begin with."""
    return [
        NativeCodec(),
        Zigbee2MqttCodec(zigbee2mqtt_bases),
        ChirpStackCodec(),
        ThingsStackCodec(),
        *(ThingModelCodec(preset) for preset in PRESETS),
        TasmotaCodec(),
        TraccarCodec(traccar_topics),
        ProfileCodec(),
        EspHomeCodec(),
        ShellyCodec(),
    ]


def in_use(codecs: Sequence[Codec], names: Collection[str]) -> list[Codec]:
    """The native family, configured profiles, and those of the others that are named; none named: all.

    Raises ValueError for a name that is no family."""
    known = {codec.name for codec in codecs} - {PROFILES}
    unknown = sorted(set(names) - known)
    if unknown:
        raise ValueError(f"{', '.join(unknown)}: no such family; there are {', '.join(sorted(known))}")
    return [codec for codec in codecs if not names or codec.name in names or codec.name in ("native", PROFILES)]


def filters(codecs: Sequence[Codec]) -> dict[str, Sequence[str]]:
    """Family → its topic filters."""
    return {codec.name: codec.subscriptions for codec in codecs if codec.name != PROFILES}
