"""What is known of the fields of devices, kept where another process can take over, and what is news beside it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from datetime import timedelta
from typing import Final

import sqlalchemy as sa
from msgspec.structs import fields, replace

from app.db import Hands
from app.devices.edges import State, field_of, weigh
from app.devices.journal import Journalled
from app.devices.roles import seen_in_role

Key = tuple[str, str]  # device, field
_COLUMNS: Final = tuple(field.name for field in fields(State))
_TYPES: Final = {"value": "text", "peak": "int", "raises": "int", "version": "int"}
_OFTEN: Final = timedelta(seconds=5)  # a radar repeats itself each second: that nothing changed is not written as often
_CASTS = ", ".join(f"CAST(:{name} AS {_TYPES.get(name, 'timestamptz')}[])" for name in _COLUMNS)
# Compare-and-set: a row that another process wrote since it was read comes not back, and is weighed again.
_KEEP = sa.text(
    f"""
    INSERT INTO device_states AS s (device_id, field, {", ".join(_COLUMNS)})
    SELECT * FROM unnest(CAST(:device_id AS text[]), CAST(:field AS text[]), {_CASTS})
                  AS x(device_id, field, {", ".join(_COLUMNS)}) ORDER BY device_id, field
    ON CONFLICT (device_id, field) DO UPDATE SET {", ".join(f"{name} = excluded.{name}" for name in _COLUMNS)}
    WHERE s.version = excluded.version - 1
    RETURNING device_id, field
    """  # noqa: S608 - names of columns
)
_READ = sa.text(
    f"""
    SELECT i.device_id, i.field, {", ".join(f"s.{name}" for name in _COLUMNS)}
    FROM unnest(CAST(:device_id AS text[]), CAST(:field AS text[])) AS i(device_id, field)
    CROSS JOIN LATERAL (SELECT * FROM device_states WHERE device_id = i.device_id AND field = i.field LIMIT 1) s
    """  # noqa: S608 - names of columns
)


async def settle(session: Hands, journalled: Sequence[Journalled]) -> None:
    """Say of each fresh observation whether it is news (`edge`, `edge_reason`), in the role of its device, and keep what
    is known from now on. In the order of arrival; of the same field by two processes, one after the other."""
    said: dict[Key, list[Journalled]] = {}
    for one in journalled:
        if one.fresh:
            one.seen = seen_in_role(one.seen, one.kind)
            field = field_of(one.seen)
            if field is not None:
                said.setdefault((one.seen.device_id, field), []).append(one)
    known = {key: ones[0].state for key, ones in said.items()}
    while said:
        kept = await _keep(session, _weighed(said, known))
        said = {key: ones for key, ones in said.items() if key not in kept}
        if said:
            known = dict.fromkeys(said, None) | await _read(session, said)


def _weighed(said: Mapping[Key, Sequence[Journalled]], known: Mapping[Key, State | None]) -> dict[Key, State | None]:
    """What is known after all that was said; None: nothing that is worth writing."""
    after: dict[Key, State | None] = {}
    for key, ones in said.items():
        before = state = known[key]
        for one in ones:
            state, one.edge_reason = weigh(state, one.seen)
            one.edge = one.edge_reason.edge
        assert state is not None
        after[key] = state if before is None or _worth_writing(before, state) else None
    return after


def _worth_writing(before: State, state: State) -> bool:
    said_lately = before.said_at <= state.said_at < before.said_at + _OFTEN
    return not said_lately or replace(state, said_at=before.said_at) != before


async def _keep(session: Hands, after: Mapping[Key, State | None]) -> set[Key]:
    """Those that are kept now, or need not be."""
    written = {key: state for key, state in sorted(after.items()) if state is not None}
    still = {key for key, state in after.items() if state is None}
    if not written:
        return still
    columns = {name: [getattr(state, name) for state in written.values()] for name in _COLUMNS}
    columns["version"] = [state.version + 1 for state in written.values()]
    rows = await session.execute(_KEEP, {**_keys(written), **columns})
    return still | {(row[0], row[1]) for row in rows}


async def _read(session: Hands, keys: Iterable[Key]) -> dict[Key, State | None]:
    rows = await session.execute(_READ, _keys(keys))
    return {(device_id, field): State(*state) for device_id, field, *state in rows}


def _keys(keys: Iterable[Key]) -> dict[str, list[str]]:
    pairs = list(keys)
    return {"device_id": [device_id for device_id, _ in pairs], "field": [field for _, field in pairs]}


async def forget(session: Hands, device_id: str) -> None:
    """The device has another wearer: what holds now is news for that one."""
    await session.execute(sa.text("DELETE FROM device_states WHERE device_id = :device_id"), {"device_id": device_id})
