"""Recordings of real homes, turned into the form that `shouwang replay` reads: one event a line.

    python -m simulator.recordings ../shared/data/ordonez_adl/OrdonezA_Sensors.txt > home-a.jsonl

Reads the two formats of `../shared/data/`: CASAS (`date time sensor ON|OFF`) and Ordóñez (`start end location type place`).
Their times have no zone and are kept as the wall clock of `--timezone`, so that hours of the day stay what they were.

The recordings hold only changes. Real devices also say how they are, so two things are added, and both stop when the
recording is cut: a bed or seat that is occupied says so again every `--report-minutes` (pressure mats do), and every
device sends a heartbeat every `--heartbeat-hours`. `--report-minutes 0` leaves the bare changes.
"""

from __future__ import annotations

import argparse
import json
import re
import sys
from collections.abc import Iterator, Sequence
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

Event = dict[str, Any]
_STAMP = re.compile(r"\d{4}-\d\d-\d\d\s+\d\d:\d\d:\d\d(?:\.\d+)?")


def convert(lines: Sequence[str], tz: ZoneInfo, *, report_minutes: int = 15, heartbeat_hours: int = 6) -> list[Event]:
    """The events of one recording in the order of time. Raises `ValueError` for a file of neither format."""
    events: list[tuple[datetime, Event]] = []
    for number, line in enumerate(lines, 1):
        stamps = _STAMP.findall(line)
        if not stamps:
            continue
        rest = line.rsplit(stamps[-1], 1)[1].split()
        moments = [datetime.fromisoformat(" ".join(stamp.split())).replace(tzinfo=tz) for stamp in stamps]
        if len(stamps) == 2 and len(rest) >= 3:
            events += _interval(moments[0], moments[1], rest, timedelta(minutes=report_minutes))
        elif len(stamps) == 1 and len(rest) >= 2 and rest[1] in ("ON", "OFF"):
            events.append((moments[0], _casas(rest[0], rest[1] == "ON")))
        else:
            raise ValueError(f"line {number} is of neither format: {line.strip()[:80]}")
    if not events:
        raise ValueError("nothing in this file begins with a date and a time")
    events += _heartbeats(events, timedelta(hours=heartbeat_hours)) if heartbeat_hours else []
    events.sort(key=lambda one: one[0])
    return [{"ts": round(at.timestamp() * 1000), **event} for at, event in events]


def _casas(sensor: str, on: bool) -> Event:
    """Every sensor of these homes sees motion; the name says where."""
    place = " ".join(re.findall(r"[A-Z](?:[a-z]+|(?=[A-Z]|$))", sensor)) or sensor
    return {"device_id": sensor, "kind": "motion_sensor", "place": place, "type": "motion", "active": on}


def _interval(
    began: datetime, ended: datetime, words: Sequence[str], report: timedelta
) -> list[tuple[datetime, Event]]:
    """A sensor was on from a moment to a moment."""
    location, type_, place = words[0], words[1], words[2]
    device = {"device_id": f"{location}-{type_}-{place}".lower(), "place": f"{place} {location}"}
    match type_:
        case "Magnetic":
            device |= {"kind": "door_sensor", "type": "door"}
            return [(began, {**device, "state": "open"}), (ended, {**device, "state": "closed"})]
        case "Pressure":
            device |= {"kind": "bed_sensor", "type": "bed"}
            held = [began]
            while report and held[-1] + report < ended:
                held.append(held[-1] + report)
            said = [(at, {**device, "occupied": True}) for at in held]
            return [*said, (ended, {**device, "occupied": False})]
        case "PIR" | "Flush" | "Electric":
            kind = "motion_sensor" if type_ == "PIR" else "other"
            device |= {"kind": kind, "type": "motion"}
            return [(began, {**device, "active": True}), (ended, {**device, "active": False})]
        case _:
            raise ValueError(f"no such type of sensor: {type_}")


def _heartbeats(events: Sequence[tuple[datetime, Event]], every: timedelta) -> Iterator[tuple[datetime, Event]]:
    first, last = min(at for at, _ in events), max(at for at, _ in events)
    devices = {event["device_id"]: event for _, event in events}
    for place, event in enumerate(devices.values()):
        at = first + timedelta(seconds=37 * place)
        while at < last:
            yield at, {name: event[name] for name in ("device_id", "kind", "place")} | {"type": "heartbeat"}
            at += every


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("file", type=Path)
    parser.add_argument("--timezone", type=ZoneInfo, default=ZoneInfo("Asia/Shanghai"))
    parser.add_argument("--report-minutes", type=int, default=15)
    parser.add_argument("--heartbeat-hours", type=int, default=6)
    given = parser.parse_args(arguments)
    try:
        lines = given.file.read_text(encoding="utf-8", errors="replace").splitlines()
        events = convert(
            lines, given.timezone, report_minutes=given.report_minutes, heartbeat_hours=given.heartbeat_hours
        )
    except (OSError, ValueError) as error:
        sys.stderr.write(f"{given.file}: {error}\n")
        return 1
    sys.stdout.writelines(json.dumps(event, ensure_ascii=False) + "\n" for event in events)
    return 0


if __name__ == "__main__":
    sys.exit(main())
