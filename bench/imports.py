"""`python -m bench.imports`: a list of 50,000 people, from the file to the register, and again.

Embedded PostgreSQL with fsync on; the work is done in this process as `app.imports` does it in its own. IMPORT_ROWS
makes it smaller.
"""

from __future__ import annotations

import asyncio
import os
import tempfile
import time
from datetime import date, timedelta
from pathlib import Path
from zoneinfo import ZoneInfo

import sqlalchemy as sa
from stdnum.iso7064 import mod_11_2

from app.access import accounts
from app.access.principal import Principal
from app.access.sealing import Sealer
from app.access.vocabulary import Role
from app.clock import system_clock
from app.db import Sessions, connect, migrate, sessions, transaction
from app.elders.form_words import Category
from app.elders.tables import Region
from app.embedded.postgres import EmbeddedPostgres
from app.imports import queue
from app.imports.vocabulary import Mode
from app.imports.work import Work
from app.reports import gathering
from app.reports.forms import annex_3

ROWS = int(os.environ.get("IMPORT_ROWS", "50000"))
TZ = ZoneInfo("Asia/Shanghai")
_FAMILY, _GIVEN = "王李张刘陈杨赵黄周吴徐孙胡朱高林何郭马罗", "桂英秀兰玉珍淑华建国志强凤霞春梅德明文秀庆"
_CATEGORY = ("独居", "空巢", "独居、重残", "留守", "失能（重点人群）", "计划生育特殊家庭")
_ABILITY = ("能力完好", "轻度失能", "中度失能", "重度失能", "完全失能、残疾一级", "未评估、行动不便")


def line(number: int) -> annex_3.Line:
    """An invented person."""
    born = date(1930, 1, 1) + timedelta(days=number % 9000)
    first = f"370302{born:%Y%m%d}{number // 9000 * 37 % 1000:03d}"
    name = _FAMILY[number % 20] + _GIVEN[number // 20 % 20] + _GIVEN[number // 400 % 20]
    sex = "男" if int(first[16]) % 2 else "女"
    return annex_3.Line(
        name, sex, 86, first + str(mod_11_2.calc_check_digit(first)), f"测试{number % 300}村{number % 97}号",
        _CATEGORY[number % 6], _ABILITY[number % 6], "子女在外" if number % 5 == 0 else "",
    )  # fmt: skip


async def measure(maker: Sessions, sealer: Sealer) -> None:
    """Print what each part takes, in seconds."""
    now = system_clock()
    async with transaction(maker) as session:
        user = await accounts.create(
            session, username="clerk", password="a-long-password-7", role=Role.SUPERVISOR, region_code="370302001",  # noqa: S106
            visitor_id=None, now=now,
        )  # fmt: skip
        await session.execute(
            sa.text(
                "INSERT INTO regions (code, name, level, parent_code, created_at) SELECT '370302001' || lpad(n::text, 3, '0'), "
                "'测试' || n || '村', 'village', '370302001000', :now FROM generate_series(1, 299) n"
            ),
            {"now": now},
        )
    who = Principal(user.id, "clerk", Role.SUPERVISOR, "370302001", None)
    work = Work(maker, sealer, system_clock, TZ)
    began = time.perf_counter()
    content = annex_3.draw(annex_3.Summary("般阳路街道", now.date(), [line(n) for n in range(ROWS)]))
    print(
        f"a workbook of {ROWS} rows drawn: {time.perf_counter() - began:.1f} s, {len(content) / 1e6:.1f} MB", flush=True
    )
    for title in ("into an empty register", "the same list again"):
        for mode in (Mode.ALL_OR_NOTHING,):
            await _one(maker, sealer, who, work, content, title, mode)
    began = time.perf_counter()
    async with transaction(maker) as session:
        pen = await gathering.pen(session, sealer, today=now.date(), plainly=False, category=Category.BOTH)
        summary = await gathering.summary(session, who, await session.get_one(Region, "370302001000"), pen)
    masked = await asyncio.to_thread(annex_3.draw, summary)
    print(f"附件3 of {len(summary.lines)} people, masked: {time.perf_counter() - began:.1f} s", flush=True)
    await _one(maker, sealer, who, work, masked, "the masked export", Mode.GOOD_ROWS_ONLY)
    changed = [line(n) for n in range(ROWS)]
    content = annex_3.draw(annex_3.Summary("", now.date(), [_changed(one) for one in changed]))
    await _one(maker, sealer, who, work, content, "every row changed", Mode.GOOD_ROWS_ONLY)


def _changed(one: annex_3.Line) -> annex_3.Line:
    return annex_3.Line(one.name, one.sex, one.age, one.id_number, one.address + "甲", "空巢", "重度失能", "改")


async def _one(
    maker: Sessions, sealer: Sealer, who: Principal, work: Work, content: bytes, title: str, mode: Mode
) -> None:
    began = time.perf_counter()
    async with transaction(maker) as session:
        made = await queue.hand_in(
            session, who, content, filename=None, place_code=None, sealer=sealer, now=system_clock()
        )
    await work.do_all()
    checked = time.perf_counter()
    async with transaction(maker) as session:
        await queue.ask_commit(session, who, await queue.import_within(session, who, made.id, lock=True), mode)
    await work.do_all()
    ended = time.perf_counter()
    async with transaction(maker) as session:
        found = await queue.import_within(session, who, made.id)
    print(
        f"{title}: dry run {checked - began:.1f} s, {mode.value} {ended - checked:.1f} s, {found.state.value}, {found.counts}",
        flush=True,
    )


async def run(url: str) -> None:
    engine = connect(url, pool=3)
    try:
        await measure(sessions(engine), Sealer(bytes(range(32))))
    finally:
        await engine.dispose()


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        Path(folder).chmod(0o755)  # as root PostgreSQL runs as another user
        server = EmbeddedPostgres(Path(folder)).start()
        try:
            migrate(server.url())
            asyncio.run(run(server.url()))
        finally:
            server.stop()


if __name__ == "__main__":
    main()
