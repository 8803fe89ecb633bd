"""`python -m bench.codecs`: how many messages a second one thread decodes, by family (the golden examples beside the codecs,
those that give observations).

The native line is measured twice: alone, and with every family, 10,000 devices of other families and 50 profiles around
it. A native message must not pay for the others.
"""

from __future__ import annotations

import json
import statistics
import time
from collections.abc import Sequence
from datetime import UTC, datetime

from app.devices import codecs
from app.devices.codec import Knowledge, Registered, Registry
from app.devices.codecs.native import NativeCodec
from app.devices.events import Frame
from app.devices.profiles import Profile
from app.devices.vocabulary import DeviceKind
from scripts import device_docs

NOW = datetime(2026, 11, 24, 8, 0, tzinfo=UTC)
_ROUND_S = 0.1
_ROUNDS = 5
DOOR = Frame(
    "devices/door-0001/event", b'{"type":"door","state":"open","id":"17","ts":1795507199000,"battery":88}', NOW
)


def rate(registry: Registry, frames: Sequence[Frame]) -> float:
    """Messages a second, the median of several rounds."""
    decode = registry.decode
    rates = []
    for _ in range(_ROUNDS):
        done, begun = 0, time.perf_counter()
        while (spent := time.perf_counter() - begun) < _ROUND_S:
            for _ in range(50):
                for frame in frames:
                    decode(frame)
            done += 50 * len(frames)
        rates.append(done / spent)
    return statistics.median(rates)


def crowded() -> Knowledge:
    """What a district's process knows."""
    profiles = {}
    for number in range(50):
        fields = [{"path": "$.event", "role": "type", "values": {"1": "sos"}}]
        read = Profile.model_validate(
            {"name": f"p{number}", "topic": f"maker{number}/{{device_id}}/up", "fields": fields}
        )
        profiles[read.name] = read.compiled()
    devices = {f"zigbee:0x{n:016x}": Registered("zigbee2mqtt", DeviceKind.DOOR_SENSOR) for n in range(10_000)}
    return Knowledge(devices=devices, profiles=profiles)


def main() -> None:
    everything = codecs.families()
    lines = [
        ("native, alone", rate(Registry([NativeCodec()]), [DOOR])),
        ("native, among all families", rate(Registry(everything, crowded()), [DOOR])),
    ]
    for family in device_docs.MODULES:
        if family == "native":
            continue
        told = [one for one in device_docs.examples() if one.family == family and one.expect.get("observations")]
        rates = [rate(Registry(everything, one.known), [one.frame]) for one in told[:6]]
        lines.append((family, statistics.median(rates)))
    last = Profile.model_validate({"name": "p49", "topic": "maker49/{device_id}/up", "fields": [
        {"path": "$.event", "role": "type", "values": {"1": "sos"}}]})  # fmt: skip
    frame = Frame("maker49/R1/up", json.dumps({"event": 1}).encode(), NOW)
    lines.append((f"the last of 50 profiles ({last.name})", rate(Registry(everything, crowded()), [frame])))
    for name, found in lines:
        print(f"{name:34} {found:>10,.0f} /s")


if __name__ == "__main__":
    main()
