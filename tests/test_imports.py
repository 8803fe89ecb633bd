"""Lists of people taken into the register. All people are invented."""

from __future__ import annotations

import csv
import io
import shutil
import subprocess
import zipfile
from dataclasses import replace
from datetime import date, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any
from uuid import UUID
from zoneinfo import ZoneInfo

import pytest
import sqlalchemy as sa
import xlsxwriter
from hypothesis import given
from hypothesis import strategies as st

from app.access import accounts
from app.access.principal import Principal
from app.access.vocabulary import Role
from app.db import transaction
from app.elders.form_words import Category, write_ability, write_category
from app.elders.vocabulary import AbilityLevel, CareLevel, Observed, Tag
from app.errors import Conflict, InvalidInput
from app.imports import queue
from app.imports.columns import Head, find_head, has_head, meaning, people
from app.imports.files import Kind, Row, Unreadable, kind_of, rows_of
from app.imports.places import Places, Unplaced
from app.imports.reading import Draft, Reader, normal_id
from app.imports.tables import ElderImport, ElderImportRow
from app.imports.vocabulary import Column, Mode, Outcome, State
from app.imports.words import Unknown, read_ability, read_category, read_grade
from app.imports.work import Work
from app.imports.workbook import column_letter
from app.reports import gathering
from app.reports.forms import annex_3
from tests.test_api import refused
from tests.world import OTHER_VILLAGE, TOWNSHIP, VILLAGE, World, id_number

if TYPE_CHECKING:
    from tests.live import Live

pytest_plugins = ["tests.live"]
TODAY = date(2026, 11, 26)
HEAD = ["序号", "姓名", "性别", "年龄", "身份证号", "家庭住址", "类别", "身体能力", "备注"]
GOOD = "370302194001011221"


def book(rows: list[list[Any]], **more: Any) -> bytes:
    """A workbook of these rows, as an office would save it."""
    out = io.BytesIO()
    made = xlsxwriter.Workbook(out, {"in_memory": True, "strings_to_formulas": False})
    sheet = made.add_worksheet("汇总表")
    for number, row in enumerate(rows):
        for at, cell in enumerate(row):
            sheet.write(number, at, cell)
    for merged in more.get("merged", ()):
        sheet.merge_range(*merged)
    made.close()
    return out.getvalue()


def list_of(*people: list[Any], notes: bool = True) -> list[list[Any]]:
    rows: list[list[Any]] = [["附件 3"], ["特殊困难老年人探访关爱服务汇总表"], ["镇(办):般阳路街道"], HEAD, *people]
    return [*rows, ["填表人:张三", "", "", "", "", "分管领导:李四"], ["2026年11月26日"]] if notes else rows


def as_csv(rows: list[list[Any]], delimiter: str = ",") -> str:
    out = io.StringIO()
    csv.writer(out, delimiter=delimiter).writerows(rows)
    return out.getvalue()


# --- files -----------------------------------------------------------------------------------------------------------


@pytest.mark.unit
@pytest.mark.parametrize(
    ("encoding", "delimiter"),
    [("utf-8", ","), ("utf-8-sig", ","), ("gbk", ","), ("gb18030", ";"), ("utf-16", "\t"), ("utf-8", "\t")],
)
def test_csv_as_offices_save_it(encoding: str, delimiter: str) -> None:
    rows = [HEAD, ["1", "王桂英", "女", "86", "'" + GOOD, '般阳路1号"东"院\n2单元', "独居", "重度", ""]]
    found = list(rows_of(as_csv(rows, delimiter).encode(encoding)))
    assert [row.number for row in found] == [1, 2]
    assert [row.cells for row in found] == rows


@pytest.mark.unit
def test_xlsx_with_empty_rows_and_numbers_keeps_its_row_numbers() -> None:
    found = list(rows_of(book([["标题"], [], ["姓名", "", 86, 13800000000, "=1+1"], [None, "x"]])))
    assert [(row.number, row.cells) for row in found] == [
        (1, ["标题"]), (3, ["姓名", "", "86", "13800000000", "=1+1"]), (4, ["", "x"]),
    ]  # fmt: skip


def raw_book(sheet: str, *, shared: str = "", extra: dict[str, bytes] | None = None) -> bytes:
    """The least of a workbook, with this sheet."""
    relation = "http://schemas.openxmlformats.org/officeDocument/2006/relationships"
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as made:
        made.writestr("xl/workbook.xml", f'<workbook xmlns:r="{relation}"><sheets><sheet name="h" state="hidden" r:id="r0"/>'
                      '<sheet name="a" r:id="r1"/></sheets></workbook>')  # fmt: skip
        made.writestr("xl/_rels/workbook.xml.rels", '<Relationships><Relationship Id="r0" Target="worksheets/none.xml"/>'
                      '<Relationship Id="r1" Target="/xl/worksheets/a.xml"/></Relationships>')  # fmt: skip
        made.writestr("xl/worksheets/a.xml", sheet)
        if shared:
            made.writestr("xl/sharedStrings.xml", shared)
        for name, content in (extra or {}).items():
            made.writestr(name, content)
    return out.getvalue()


@pytest.mark.unit
def test_numbers_of_18_digits_lose_none_and_rounded_ones_can_be_told() -> None:
    sheet = (
        '<x:worksheet xmlns:x="y"><x:sheetData><x:row r="4"><x:c r="B4"><x:v>370302194001011221</x:v></x:c>'
        '<x:c r="C4"><x:v>3.70302194001011E+17</x:v></x:c><x:c r="D4"><x:v>1.3812345678E10</x:v></x:c>'
        '<x:c r="E4" t="inlineStr"><x:is><x:t>a_x000D_</x:t><x:rPh><x:t>no</x:t></x:rPh></x:is></x:c>'
        '<x:c t="b"><x:v>1</x:v></x:c><x:c t="e"><x:f>1/0</x:f><x:v>#N/A</x:v></x:c><x:c t="s"><x:v>0</x:v></x:c>'
        "</x:row></x:sheetData></x:worksheet>"
    )
    shared = "<sst><si><r><t>王</t></r><r><t>桂英</t></r><rPh><t>wang</t></rPh></si></sst>"
    assert list(rows_of(raw_book(sheet, shared=shared))) == [
        Row(4, ["", GOOD, "3.70302194001011E+17", "13812345678", "a\r", "是", "", "王桂英"])
    ]


@pytest.mark.unit
@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"", "空"),
        (b"\xd0\xcf\x11\xe0 old", "旧版"),
        (b"%PDF-1.7", "类型"),
        (b"<html><table>", "网页"),
        (b"PK\x03\x04 something else", "不是 Excel"),
        (raw_book("<worksheet/>", extra={"xl/vbaProject.bin": b"x"}), "宏"),
        (raw_book("<worksheet><broken"), "损坏"),
        (raw_book('<!DOCTYPE a [<!ENTITY b "c">]><worksheet>&b;</worksheet>'), "DTD"),
        (book([HEAD])[:-200], "损坏"),
        (b"a,b\n\x00,\xff\xff\xff", "编码"),
        (b'\xe5\xa7\x93,"' + b"x" * 20_000, "引号"),
    ],
)
def test_what_is_no_list_is_refused_with_what_to_do(content: bytes, says: str) -> None:
    with pytest.raises(Unreadable, match=says):
        list(rows_of(content))


@pytest.mark.unit
def test_bombs_do_not_go_off() -> None:
    """Much of nothing in a small file; a file that says it is smaller than it is; too many rows."""
    bomb = raw_book("<worksheet/>", extra={"xl/big.xml": b" " * (2 * 1024 * 1024)})
    with pytest.raises(Unreadable, match="太大"):
        list(rows_of(bomb, most_unpacked=1024 * 1024))
    lying = bytearray(raw_book("<worksheet>" + " " * 1000 + "</worksheet>"))
    where = lying.rfind(b"xl/worksheets/a.xml") - 46
    lying[where + 24 : where + 28] = (3).to_bytes(4, "little")
    with pytest.raises(Unreadable, match="损坏"):
        list(rows_of(bytes(lying)))
    with pytest.raises(Unreadable, match="100000 行"):
        list(rows_of(b"a\n" * 100_001))


@pytest.mark.unit
def test_letters_of_columns() -> None:
    assert [column_letter(at) for at in (0, 25, 26, 51, 701)] == ["A", "Z", "AA", "AZ", "ZZ"]
    assert kind_of(book([HEAD])) is Kind.XLSX


# --- the head and the rows below ----------------------------------------------------------------------------------------


def found_in(rows: list[list[str]]) -> tuple[Head, list[int]]:
    given = [Row(number, cells) for number, cells in enumerate(rows, start=1) if any(cells)]
    head = find_head(given)
    return head, [row.number for row in people(iter(given), head)]


@pytest.mark.unit
@pytest.mark.parametrize(
    ("title", "column"),
    [
        ("身 份 证 号", Column.ID_NUMBER), ("身份证号码（18位）", Column.ID_NUMBER), ("*姓名", Column.NAME),
        ("老年人姓名：", Column.NAME), ("镇（办）", Column.TOWNSHIP), ("村（居）", Column.VILLAGE), ("村/社区", Column.VILLAGE),
        ("联系\n电话", Column.PHONE), ("家庭住址", Column.ADDRESS), ("类 别", Column.CATEGORY), ("兴趣爱好", None), ("", None),
    ],
)  # fmt: skip
def test_titles_by_their_synonyms(title: str, column: Column | None) -> None:
    assert meaning(title) is column


@pytest.mark.unit
def test_the_table_is_found_among_titles_and_its_notes_are_no_people() -> None:
    head, rows = found_in([
        ["附件 3"], ["特殊困难老年人探访关爱服务汇总表"], ["镇（办）：___般阳路街道___"], ["2026年11月26日"],
        [*HEAD, "兴趣爱好"],
        ["1", "王桂英", "女", "86", GOOD],
        ["2"],
        ["", "张三", "", "", ""],
        HEAD,
        ["合计", "", "", "", "", "共1人"],
        ["填表人：", "", "", "", "", "分管领导："],
        ["", "", "", "", "", "2026年 11月 26日"],
        ["备注：本表一式两份，由镇办和村居各存一份，年底前报送。"],
    ])  # fmt: skip
    assert head.place == "般阳路街道"
    assert head.at[Column.ID_NUMBER] == 4
    assert list(head.unknown) == ["兴趣爱好"]
    assert rows == [6, 8]


@pytest.mark.unit
def test_a_head_of_two_lines_with_merged_cells() -> None:
    head, rows = found_in([
        ["序号", "姓名", "身份证号", "住址", "", "备注"],
        ["", "", "", "村居", "详细地址", ""],
        ["1", "王桂英", GOOD, "测试一村", "1号", ""],
    ])  # fmt: skip
    assert (head.at[Column.VILLAGE], head.at[Column.ADDRESS], head.row, rows) == (3, 4, 2, [3])


def sheets(*each: list[list[Any]]) -> bytes:
    out = io.BytesIO()
    made = xlsxwriter.Workbook(out, {"in_memory": True})
    for rows in each:
        sheet = made.add_worksheet()
        for number, row in enumerate(rows):
            sheet.write_row(number, 0, row)
    made.close()
    return out.getvalue()


@pytest.mark.unit
def test_of_several_sheets_the_one_with_the_list_is_read_and_two_lists_are_asked_about() -> None:
    one, note = [HEAD, ["1", "王桂英", "女", "86", GOOD]], [["填表说明"], ["身份证号请存成文本"]]
    assert [row.cells[1] for row in rows_of(sheets(note, one), holds=has_head)] == ["姓名", "王桂英"]
    with pytest.raises(Unreadable, match="第 1、3 个工作表都是名单"):
        list(rows_of(sheets(one, note, one), holds=has_head))
    with pytest.raises(Unreadable, match="没有找到表头"):
        find_head(list(rows_of(sheets(note, note), holds=has_head)))


@pytest.mark.unit
def test_a_merged_cell_holds_for_all_its_rows_and_nobody_shares_a_number() -> None:
    rows = [
        ["村(居)", *HEAD],
        ["东村", "1", "甲", "", "", GOOD],
        ["", "2", "乙", "", "", ""],
        ["", "3", "丙"],
        ["西村", "4", "丁"],
    ]
    content = book(rows, merged=[(1, 0, 3, 0, "东村"), (1, 5, 2, 5, GOOD)])
    given = list(rows_of(content))
    drafts = [Reader(find_head(given), TODAY).draft(row) for row in people(iter(given), find_head(given))]
    assert [(one.name, one.village) for one in drafts] == [
        ("甲", "东村"),
        ("乙", "东村"),
        ("丙", "东村"),
        ("丁", "西村"),
    ]
    assert [one.identity is not None for one in drafts] == [True, False, False, False]


@pytest.mark.unit
def test_whose_number_was_forgotten_is_an_error_and_a_signature_is_none() -> None:
    rows = [
        HEAD, ["1", "郑一", "女", "", "", "", "", "", "说明:独居"], ["", "吴二", "", "86岁", "", "", "", "", "备注:独居"],
        ["填表人", "张三", "", "", "分管领导", "李四"], ["", "审核人:王五", "", "", "", "", "", "", "2026年11月"],
    ]  # fmt: skip
    given = [Row(number, row) for number, row in enumerate(rows, start=1)]
    head = find_head(given)
    drafts = [Reader(head, TODAY).draft(row) for row in people(iter(given), head)]
    assert [(one.name, [issue.code for issue in one.issues]) for one in drafts] == [
        ("郑一", ["id_missing"]), ("吴二", ["id_missing"]),
    ]  # fmt: skip


@pytest.mark.unit
def test_without_names_and_numbers_there_is_no_head() -> None:
    with pytest.raises(Unreadable, match="身份证号"):
        found_in([["姓名", "性别"], ["王桂英", "女"]])


# --- rows ------------------------------------------------------------------------------------------------------------


def draft(**cells: str) -> Draft:
    names = list(Column)
    head = Head(1, {c: at for at, c in enumerate(names)}, {at: c.value for at, c in enumerate(names)}, [], None)
    given = {"name": "王桂英", "id_number": GOOD, **cells}
    return Reader(head, TODAY).draft(Row(7, [given.get(c.value, "") for c in names]))


def codes(one: Draft) -> list[str]:
    return [issue.code for issue in one.issues]


@pytest.mark.unit
@pytest.mark.parametrize(
    "text",
    [
        GOOD,
        "'" + GOOD,
        "‘" + GOOD,
        " 370302 19400101 1221\u00a0",
        "３７０３０２１９４００１０１１２２１",
        GOOD + "\u200b",
        f'="{GOOD}"',
        f"\t{GOOD}  ",
    ],
)
def test_id_numbers_as_clerks_leave_them(text: str) -> None:
    assert normal_id(text) == GOOD
    assert codes(draft(id_number=text)) == []


@pytest.mark.unit
def test_a_small_x_is_a_large_one() -> None:
    number = next(n for n in (id_number(i) for i in range(100, 200)) if n.endswith("X"))
    one = draft(id_number=number.lower())
    assert one.identity is not None
    assert one.identity.number == number


@pytest.mark.unit
@pytest.mark.parametrize(
    ("text", "code", "says"),
    [
        ("3.70302E+17", "id_digits_lost", "文本"),
        ("370302194001011000", "id_digits_lost", "000"),
        ("370302194001011222", "id_checksum", "校验"),
        ("37030219400101122", "id_shape", "17 位"),
        ("370302400101122", "id_of_15_digits", "15 位"),
        ("370302194013011228", "id_checksum", ""),
        ("370302*****1221", "id_masked", "18"),
        ("", "id_missing", "缺少"),
    ],
)
def test_wrong_id_numbers_say_what_to_mend(text: str, code: str, says: str) -> None:
    one = draft(id_number=text)
    assert codes(one) == [code]
    assert says in one.issues[0].message
    assert one.issues[0].column == column_letter(list(Column).index(Column.ID_NUMBER))
    assert one.issues[0].title == "id_number"
    assert one.wrong
    assert text == "" or text not in one.issues[0].message


@pytest.mark.unit
def test_sex_and_age_come_from_the_number_and_differences_are_told() -> None:
    one = draft(sex="男", age="60岁")
    assert codes(one) == ["sex_differs", "age_differs"]
    assert "86 周岁" in one.issues[1].message
    assert not one.wrong
    assert codes(draft(sex="女", age="86")) == []
    assert codes(draft(sex="f")) == ["sex_unknown"]


@pytest.mark.unit
def test_what_cannot_be_used_is_an_error_of_its_column() -> None:
    assert codes(draft(name="")) == ["name_missing"]
    assert codes(draft(phone="12")) == ["phone_unusable"]
    assert codes(draft(address="x" * 201)) == ["address_unusable"]
    assert codes(draft(remarks="x" * 501)) == ["remarks_unusable"]
    assert codes(draft(category="孤寡")) == ["category_unknown"]
    assert codes(draft(ability="失能")) == ["ability_unknown"]
    assert codes(draft(disability="九级")) == ["disability_unknown"]
    read = draft(
        phone="'138 1234 5678",
        address="般阳路\n1号",
        remarks="一\r\n二",
        category="独居；空巢",
        ability="半自理",
        disability="肢体二级",
    )
    assert read.fields == {
        "phone": "+8613812345678", "address": "般阳路 1号", "remarks": "一\n二", "tags": ["living_alone", "empty_nest"],
        "other_tags": [], "observed": "mobility_limited", "disability_grade": 2,
    }  # fmt: skip


@pytest.mark.unit
@given(
    st.lists(st.sampled_from([tag.value for tag in Tag]), unique=True),
    st.lists(st.text("甲乙丙丁戊", min_size=1, max_size=20), max_size=3),
    st.sampled_from(CareLevel),
)
def test_what_the_category_says_is_read_back(tags: list[str], others: list[str], level: CareLevel) -> None:
    read = read_category(write_category(tags, others, level, Category.BOTH))
    assert (read.tags or [], read.other_tags or [], read.care_level) == (tags, others, level)
    alone = read_category(write_category(tags, others, level, Category.TAGS))
    assert (alone.tags or [], alone.other_tags or [], alone.care_level) == (tags, others, None)


@pytest.mark.unit
@given(
    st.none() | st.sampled_from(AbilityLevel), st.none() | st.sampled_from(Observed),
    st.none() | st.integers(1, 4), st.booleans(),
)  # fmt: skip
def test_what_the_ability_says_is_read_back(
    level: AbilityLevel | None, observed: Observed | None, grade: int | None, dementia: bool
) -> None:
    read = read_ability(write_ability(level, observed, grade, dementia))
    assert (read.level, read.observed, read.disability_grade, read.dementia or False) == (
        level,
        observed,
        grade,
        dementia,
    )


@pytest.mark.unit
def test_words_in_use() -> None:
    assert read_category("独居老人,计生特殊家庭/重残 次重点").tags == [
        "living_alone",
        "special_family",
        "severely_disabled",
    ]
    assert read_category("其他：孤寡、独居").other_tags == ["孤寡"]
    assert read_category("重点").tags is None
    assert (read_ability("完好").level, read_ability("重度").level) == ("intact", "severe")
    assert (read_grade("二级"), read_grade("3"), read_grade("无"), read_grade("视力一级")) == (2, 3, None, 1)
    with pytest.raises(Unknown) as caught:
        read_category("13812345678")
    assert "138" not in str(caught.value)


@pytest.mark.unit
def test_places_by_name_and_code() -> None:
    names = {
        "370302000000": "淄川区", "370302001000": "般阳路街道", "370302002000": "昆仑镇", "370302001001": "测试一村",
        "370302001002": "城南社区", "370302002001": "测试一村",
    }  # fmt: skip
    places = Places(names)
    assert places.township("般阳路街道办事处") == "370302001000"
    assert places.township("昆仑") == "370302002000"
    assert places.said("370302002000", "测试一村委会") == "370302002001"
    assert places.said(None, "城南居委会") == "370302001002"
    assert places.said(None, "370302001001") == "370302001001"
    assert places.said(None, "") is None
    assert places.guessed("370302001000", "淄川区测试一村12号") == "370302001001"
    assert places.guessed("370302001000", "某路12号") == "370302001000"
    assert Places(names, "370302002001").guessed(None, "城南社区") == "370302002001"
    for township, village, code in ((None, "测试一村", "village_ambiguous"),
                                    (None, "无此村", "village_unknown"),
                                    (None, "370303001001", "village_unknown"),
                                    ("370302002000", "城南", "village_unknown")):  # fmt: skip
        with pytest.raises(Unplaced) as caught:
            places.said(township, village)
        assert caught.value.code == code
    with pytest.raises(Unplaced):
        places.guessed(None, "某路12号")
    with pytest.raises(Unplaced):
        places.township("别的镇")


# --- on a real register ------------------------------------------------------------------------------------------------


class Desk:
    """A clerk of a region, and the process that works on the lists."""

    def __init__(self, world: World, who: Principal) -> None:
        self.world = world
        self.who = who
        self.work = Work(world.sessions, world.sealer, world.time, ZoneInfo("Asia/Shanghai"))

    async def hand_in(self, content: bytes, place: str | None = None) -> ElderImport:
        async with transaction(self.world.sessions) as session:
            made = await queue.hand_in(
                session,
                self.who,
                content,
                filename="x.xlsx",
                place_code=place,
                sealer=self.world.sealer,
                now=self.world.time(),
            )
        await self.work.do_all()
        return await self.seen(made.id)

    async def seen(self, import_id: UUID) -> ElderImport:
        async with transaction(self.world.sessions) as session:
            return await queue.import_within(session, self.who, import_id)

    async def rows(self, found: ElderImport) -> dict[int, ElderImportRow]:
        async with transaction(self.world.sessions) as session:
            return {row.row: row for row in await queue.rows(session, found.id, limit=1000)}

    async def commit(self, found: ElderImport, mode: Mode = Mode.ALL_OR_NOTHING, *, work: bool = True) -> ElderImport:
        async with transaction(self.world.sessions) as session:
            await queue.ask_commit(
                session, self.who, await queue.import_within(session, self.who, found.id, lock=True), mode
            )
        if work:
            await self.work.do_all()
        return await self.seen(found.id)

    async def taken(self, content: bytes, mode: Mode = Mode.ALL_OR_NOTHING, place: str | None = None) -> ElderImport:
        return await self.commit(await self.hand_in(content, place), mode)

    async def ask(self, query: str, **values: Any) -> list[Any]:
        async with transaction(self.world.sessions) as session:
            return list((await session.execute(sa.text(query), values)).all())

    async def export(self, code: str, *, plainly: bool, shown: Category = Category.BOTH) -> annex_3.Summary:
        today = self.world.time().astimezone(ZoneInfo("Asia/Shanghai")).date()
        async with transaction(self.world.sessions) as session:
            region = await session.get_one(gathering.Region, code)
            pen = await gathering.pen(session, self.world.sealer, today=today, plainly=plainly, category=shown)
            return await gathering.summary(session, self.who, region, pen)


async def desk(world: World, region_code: str = "370302001", name: str = "clerk") -> Desk:
    async with transaction(world.sessions) as session:
        user = await accounts.create(
            session, username=name, password="a-long-password-7", role=Role.SUPERVISOR, region_code=region_code,
            visitor_id=None, now=world.time(),
        )  # fmt: skip
        return Desk(world, Principal(user.id, name, Role.SUPERVISOR, region_code, None))


def person(name: str, number: str, **more: str) -> list[str]:
    given = {
        "sex": "",
        "age": "",
        "address": "测试一村1号",
        "category": "独居",
        "ability": "重度失能",
        "remarks": "",
    } | more
    return [
        "1",
        name,
        given["sex"],
        given["age"],
        number,
        given["address"],
        given["category"],
        given["ability"],
        given["remarks"],
    ]


async def test_a_list_becomes_people_with_classes_histories_and_audit(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    clerk = await desk(world)
    number, other = id_number(1), id_number(2)
    content = book(list_of(
        person("王桂英", number, address="测试一村1号", ability="重度失能、残疾二级", remarks="=1+1"),
        person("李秀兰", other, address="某路2号", category="空巢、其他:孤寡(一般人群)", ability="能自理"),
    ))  # fmt: skip
    found = await clerk.hand_in(content)
    assert (found.state, found.failure, found.rows_total, found.rows_done) == (State.CHECKED, None, 2, 2)
    assert found.counts == {"create": 2, "warning": 1}
    rows = await clerk.rows(found)
    assert [issue["code"] for issue in rows[6].issues] == ["village_missing", "class_differs"]
    assert (rows[6].issues[1]["column"], rows[6].issues[1]["header"]) == ("G", "类别")
    assert await clerk.ask("SELECT 1 FROM elders") == []  # a dry run writes nothing
    done = await clerk.commit(found)
    assert (done.state, done.counts) == (State.COMMITTED, {"create": 2, "warning": 1})
    people = await clerk.ask(
        "SELECT e.name, e.region_code, e.sex, e.tags, e.other_tags, e.ability_level, e.observed, e.disability_grade, e.remarks, "
        "e.care_level, e.reclassify_on IS NOT NULL, e.name_keys, f.observed AS known, f.valid_from, a.level, "
        "r.region_code AS lives, "
        "c.cause FROM elders e JOIN elder_facts f ON f.elder_id = e.id JOIN residences r ON r.elder_id = e.id "
        "JOIN classification_changes c ON c.elder_id = e.id LEFT JOIN assessments a ON a.elder_id = e.id ORDER BY e.name DESC"
    )
    assert [tuple(one) for one in people] == [
        ("王桂英", VILLAGE, "female" if int(number[16]) % 2 == 0 else "male", ["living_alone"], [], "severe", None, 2, "=1+1",
         "key", True, people[0].name_keys, None, date(1900, 1, 1), "severe", VILLAGE, "enrolled"),
        ("李秀兰", TOWNSHIP, "female" if int(other[16]) % 2 == 0 else "male", ["empty_nest"], ["孤寡"], None, "independent", None,
         None, "key", True, people[1].name_keys, "independent", date(1900, 1, 1), None, TOWNSHIP, "enrolled"),
    ]  # fmt: skip
    assert " wgy" in people[0].name_keys
    noted = await clerk.ask(
        "SELECT action, region_code, detail FROM audit_log WHERE subject_id = :id ORDER BY id", id=str(found.id)
    )
    assert [(one.action, one.region_code, len(one.detail["enrolled"])) for one in noted] == [
        ("elder.imported", VILLAGE, 1), ("elder.imported", TOWNSHIP, 1),
    ]  # fmt: skip
    assert await clerk.ask("SELECT 1 FROM elder_imports WHERE file_sealed IS NOT NULL") == []
    # The same list again changes nothing; asking for the commit again is the same commit.
    again = await clerk.taken(content)
    assert again.counts == {"unchanged": 2, "warning": 1}
    assert (await clerk.commit(done)).counts == done.counts
    # However long a list is, no row of the audit log is.
    monkeypatch.setattr("app.imports.work._IN_ONE_NOTE", 1)
    more = [person(f"老人{n}", id_number(n), address="测试一村9号") for n in (3, 4)]
    long = await clerk.commit(await clerk.hand_in(book(list_of(*more))))
    noted = await clerk.ask("SELECT detail FROM audit_log WHERE subject_id = :id", id=str(long.id))
    assert [len(one.detail["enrolled"]) for one in noted] == [1, 1]
    assert await clerk.ask("SELECT 1 FROM elders WHERE version > 1") == []


async def test_errors_by_row_and_column_all_or_nothing_or_the_good_ones(world: World) -> None:
    clerk = await desk(world)
    content = as_csv(list_of(
        person("王桂英", id_number(1)),
        person("", id_number(2)),
        person("李秀兰", "3.70302E+17"),
        person("张三", id_number(1)),
        person("赵六", id_number(3), address="测试二村3号", category="孤寡"),
        person("钱七", id_number(4), address="测试二村4号"),
    )).encode("gbk")  # fmt: skip
    found = await clerk.hand_in(content)
    assert found.counts == {"create": 2, "error": 4, "warning": 0}
    rows = await clerk.rows(found)
    told = {
        number: [(i["column"], i["header"], i["code"]) for i in row.issues]
        for number, row in rows.items()
        if row.issues
    }
    assert told == {
        6: [("B", "姓名", "name_missing")],
        7: [("E", "身份证号", "id_digits_lost")],
        8: [("E", "身份证号", "twice_in_file")],
        9: [("G", "类别", "category_unknown")],
    }
    assert "第 5 行" in rows[8].issues[0]["message"]
    with pytest.raises(Conflict, match="4 rows"):
        await clerk.commit(found)
    done = await clerk.commit(found, Mode.GOOD_ROWS_ONLY)
    assert (done.state, done.counts) == (State.COMMITTED, {"create": 2, "error": 4, "warning": 0})
    assert [one.name for one in await clerk.ask("SELECT name FROM elders ORDER BY region_code")] == ["王桂英", "钱七"]


async def test_what_was_exported_imports_again_unchanged(world: World) -> None:
    clerk = await desk(world)
    wild = {
        "name": '=HYPERLINK("x")',
        "address": "+测试路***1号",
        "remarks": "@备注\n第二行_x0041_",
        "other_tags": ["甲、乙（丙）"],
    }
    await world.elder(
        **{k: v for k, v in wild.items() if k != "name"}, tags=["living_alone", "left_behind"], phone="13812345678"
    )
    one = (await world.elders([wild["name"]], disability_grade=3, dementia=True, observed="bedridden", address="'=1"))[
        0
    ]
    await world.elders(["'@李", "张　三"], region=OTHER_VILLAGE, address="一二三四五六七八九十")
    before = await clerk.ask("SELECT id, version FROM elders ORDER BY id")
    for plainly in (True, False):
        for shown in Category:
            summary = await clerk.export(TOWNSHIP, plainly=plainly, shown=shown)
            assert len(summary.lines) == 4
            for content in (annex_3.draw(summary), annex_3.draw_csv(summary)):
                found = await clerk.taken(content)
                assert (found.state, found.failure) == (State.COMMITTED, None)
                assert found.counts == {"unchanged": 4, "warning": 0}, (plainly, shown, await clerk.rows(found))
    assert await clerk.ask("SELECT id, version FROM elders ORDER BY id") == before
    # A masked list may still change what is not masked, and says what it cannot do.
    summary = await clerk.export(VILLAGE, plainly=False)
    lines = [
        replace(line, remark="改了", address=line.address if line.name == wild["name"] else "别的地***")
        for line in summary.lines
    ]
    stranger = replace(lines[0], name="无此人", category="独居")
    found = await clerk.hand_in(annex_3.draw(replace(summary, lines=[*lines, stranger])))
    rows = await clerk.rows(found)
    by_outcome = {row.outcome: row for row in rows.values() if row.outcome is not Outcome.ERROR}
    assert by_outcome[Outcome.UPDATE].changes == ["remarks"]
    assert by_outcome[Outcome.UPDATE].elder_id == one.id
    assert {i["code"] for row in rows.values() if row.outcome is Outcome.ERROR for i in row.issues} == {
        "address_masked", "masked_unknown",
    }  # fmt: skip


async def test_changes_keep_the_histories_and_moves_take_the_rest_along(world: World) -> None:
    clerk = await desk(world)
    number = id_number(1)
    await clerk.taken(book(list_of(person("王桂英", number))))
    world.clock.now += timedelta(days=3)
    rows = [[*HEAD, "村(居)", "联系电话"],
            [*person("王桂英", number, category="独居、空巢", ability="中度失能、失智", remarks="新"),
             "测试二村", 13812345678]]  # fmt: skip
    found = await clerk.taken(book(rows))
    assert found.counts == {"update": 1, "warning": 0}
    row = (await clerk.rows(found))[2]
    assert row.changes == ["ability_level", "dementia", "phone", "region_code", "remarks", "tags"]
    (elder,) = await clerk.ask("SELECT * FROM elders")
    assert (elder.region_code, elder.tags, elder.dementia, elder.remarks) == (
        OTHER_VILLAGE,
        ["living_alone", "empty_nest"],
        True,
        "新",
    )
    assert world.sealer.open(elder.phone_sealed, record=elder.id) == "+8613812345678"
    assert [r.region_code for r in await clerk.ask("SELECT region_code FROM residences ORDER BY since")] == [
        VILLAGE,
        OTHER_VILLAGE,
    ]
    assert [a.level for a in await clerk.ask("SELECT level FROM assessments ORDER BY assessed_on")] == [
        "severe",
        "moderate",
    ]
    assert [f.dementia for f in await clerk.ask("SELECT dementia FROM elder_facts ORDER BY valid_from")] == [
        False,
        True,
    ]
    noted = await clerk.ask(
        "SELECT region_code, detail FROM audit_log WHERE subject_id = :id ORDER BY region_code", id=str(found.id)
    )
    assert [(n.region_code, list(n.detail)) for n in noted] == [(VILLAGE, ["moved_away"]), (OTHER_VILLAGE, ["changed"])]
    # Changed without a move: the same by the many.
    found = await clerk.taken(
        book(list_of(person("王桂英", number, category="独居、空巢", ability="完全失能、残疾一级", remarks="新")))
    )
    assert (await clerk.rows(found))[5].changes == ["ability_level", "disability_grade"]
    (elder,) = await clerk.ask("SELECT * FROM elders")
    assert (elder.care_level, elder.ability_level, elder.disability_grade, elder.version) == ("key", "complete", 1, 3)
    causes = await clerk.ask("SELECT cause, reasons FROM classification_changes ORDER BY seq")
    assert [c.cause for c in causes] == ["enrolled", "changed", "changed"]
    assert len(causes[-1].reasons) == 4


async def test_whoever_is_elsewhere_is_not_told_about(world: World) -> None:
    other = await desk(world, "370302002", "other")
    clerk = await desk(world)
    number = id_number(1)
    await other.taken(book([HEAD, person("王桂英", number)]), place="370302002000")
    rows = [[*HEAD, "村(居)"], [*person("王桂英", number), "测试一村"], [*person("李四", id_number(2)), "370302002001"],
            [*person("张三", id_number(3)), "没有的村"]]  # fmt: skip
    found = await clerk.hand_in(book(rows))
    told = {number: row.issues for number, row in (await clerk.rows(found)).items()}
    assert [issue["code"] for issue in told[2]] == ["not_here"]
    assert told[3] == told[4]  # foreign and absent alike
    assert all(row.elder_id is None for row in (await clerk.rows(found)).values())
    with pytest.raises(InvalidInput, match="no such region"):
        await clerk.hand_in(book(rows), "370302002000")
    masked = as_csv([HEAD, person("王桂英", f"370302********{number[-4:]}")])
    assert [i["code"] for i in (await clerk.rows(await clerk.hand_in(masked.encode())))[2].issues] == ["masked_unknown"]
    # An account that lost its right, or its region, writes nothing any more.
    checked = await clerk.hand_in(book([[*HEAD, "村(居)"], [*person("李四", id_number(2)), "测试一村"]]))
    waiting = await clerk.commit(checked, work=False)
    async with transaction(world.sessions) as session:
        await session.execute(sa.text("UPDATE users SET active = false WHERE username = 'clerk'"))
    await clerk.work.do_all()
    failed = await clerk.seen(waiting.id)
    assert failed.state is State.FAILED
    assert "停用" in (failed.failure or "")
    assert [one.name for one in await clerk.ask("SELECT name FROM elders")] == ["王桂英"]


async def test_the_register_changes_between_the_dry_run_and_the_commit(world: World) -> None:
    clerk, district = await desk(world), await desk(world, "370302", "district")
    number = id_number(1)
    content = book(list_of(person("王桂英", number), person("李秀兰", id_number(2))))
    found = await clerk.hand_in(content)
    await district.taken(book([HEAD, person("王桂英", number)]), place="370302002000")
    back = await clerk.commit(found)
    assert (back.state, back.mode, back.counts) == (State.CHECKED, None, {"create": 1, "error": 1, "warning": 0})
    assert "一行也没有写入" in back.notices[0]
    assert len(await clerk.ask("SELECT 1 FROM elders")) == 1
    done = await clerk.commit(back, Mode.GOOD_ROWS_ONLY)
    assert (done.state, done.counts) == (State.COMMITTED, {"create": 1, "error": 1, "warning": 0})


async def test_two_lists_with_the_same_person_at_once(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """The database refuses the second; the row says so and the others are written."""
    clerk = await desk(world)
    lists = [
        book(list_of(person("王桂英", id_number(1)), person("李秀兰", id_number(n)), person("张", id_number(n + 1))))
        for n in (2, 4)
    ]
    first, second = [await clerk.hand_in(content) for content in lists]
    write = Work._write

    async def after_another(work: Work, *given: Any) -> Any:
        monkeypatch.setattr(Work, "_write", write)
        await clerk.commit(first, work=False)  # all or nothing: it does not wait for the numbers of the other
        await Work(world.sessions, world.sealer, world.time, ZoneInfo("Asia/Shanghai")).do_all()
        return await write(work, *given)

    monkeypatch.setattr(Work, "_write", after_another)
    done = await clerk.commit(second, Mode.GOOD_ROWS_ONLY)
    assert (done.state, done.counts) == (State.COMMITTED, {"create": 2, "error": 1, "warning": 0})
    assert [i["code"] for i in (await clerk.rows(done))[5].issues] == ["not_here"]
    assert len(await clerk.ask("SELECT 1 FROM elders")) == 5


async def test_another_process_goes_on_where_one_died(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("app.imports.work._PIECE", 2)
    clerk = await desk(world)
    content = book(list_of(*(person(f"人{n}", id_number(n)) for n in range(5))))
    found = await clerk.hand_in(content)
    write = Work._write
    calls = 0

    async def dies(work: Work, *given: Any) -> Any:
        nonlocal calls
        calls += 1
        if calls == 2:
            raise MemoryError
        return await write(work, *given)

    monkeypatch.setattr(Work, "_write", dies)
    with pytest.raises(MemoryError):
        await clerk.commit(found, Mode.GOOD_ROWS_ONLY)
    half = await clerk.seen(found.id)
    assert (half.state, half.rows_done, half.rows_total) == (State.COMMITTING, 2, 5)
    assert len(await clerk.ask("SELECT 1 FROM elders")) == 2
    assert await clerk.work.do_all() == 0  # it is believed to live
    world.clock.now += timedelta(minutes=2)
    assert await Work(world.sessions, world.sealer, world.time, ZoneInfo("Asia/Shanghai")).do_all() == 1
    done = await clerk.seen(found.id)
    assert (done.state, done.counts, done.rows_done) == (State.COMMITTED, {"create": 5, "warning": 0}, 5)
    assert len(await clerk.ask("SELECT 1 FROM elders")) == 5
    # All or nothing: what died left nothing, and the next process does it whole. One that kills every process fails.
    calls = 0
    more = await clerk.hand_in(book(list_of(*(person(f"人{n}", id_number(n)) for n in range(10, 15)))))
    with pytest.raises(MemoryError):
        await clerk.commit(more)
    assert len(await clerk.ask("SELECT 1 FROM elders")) == 5
    world.clock.now += timedelta(minutes=2)
    await clerk.work.do_all()
    assert (await clerk.seen(more.id)).counts == {"create": 5, "warning": 0}
    monkeypatch.setattr(Work, "_open", dies)
    async with transaction(world.sessions) as session:
        await session.execute(sa.text("UPDATE elder_imports SET tries = 0"))
    calls = 1
    with pytest.raises(MemoryError):
        await clerk.hand_in(content)
    for _ in range(3):
        world.clock.now += timedelta(minutes=2)
        calls = 1
        try:
            await clerk.work.do_all()
        except MemoryError:
            continue
    states = await clerk.ask("SELECT state, failure, file_sealed FROM elder_imports ORDER BY id DESC LIMIT 1")
    assert (states[0].state, states[0].file_sealed) == ("failed", None)
    assert "中断" in states[0].failure


async def test_a_process_that_was_believed_dead_writes_nothing_more(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    clerk = await desk(world)
    found = await clerk.hand_in(book(list_of(person("王桂英", id_number(1)))))
    await clerk.commit(found, work=False)
    write = Work._write

    async def sleeps(work: Work, *given: Any) -> Any:
        """So long that another process takes over before this one writes."""
        monkeypatch.setattr(Work, "_write", write)
        world.clock.now += timedelta(minutes=5)
        async with transaction(world.sessions) as session:
            other = await queue.take(session, holder=UUID(int=9), now=world.time())
            assert other is not None
        return await write(work, *given)

    monkeypatch.setattr(Work, "_write", sleeps)
    await clerk.work.do_all()
    assert await clerk.ask("SELECT 1 FROM elders") == []
    assert (await clerk.seen(found.id)).state is State.COMMITTING


async def test_files_are_sealed_and_forgotten(world: World) -> None:
    clerk = await desk(world)
    number = id_number(1)
    found = await clerk.hand_in(as_csv(list_of(person("王桂英", number))).encode())
    (kept,) = await clerk.ask("SELECT file_sealed FROM elder_imports")
    assert number.encode() not in bytes(kept.file_sealed)
    async with transaction(world.sessions) as session:
        await queue.sweep(session, world.time() + timedelta(days=4))
    with pytest.raises(Conflict, match="three days"):
        await clerk.commit(found)
    async with transaction(world.sessions) as session:
        await queue.sweep(session, world.time() + timedelta(days=31))
    assert await clerk.ask("SELECT 1 FROM elder_import_rows") == []
    unreadable = await clerk.hand_in(as_csv([["姓名", "性别"], ["王", "女"]]).encode())
    assert unreadable.state is State.FAILED
    assert "身份证号" in (unreadable.failure or "")


# --- as a clerk meets it ------------------------------------------------------------------------------------------------


def ended(live: Live, api: Any, found: dict[str, Any], *states: str) -> dict[str, Any]:
    """The import when it is in one of these states."""

    def look() -> dict[str, Any] | None:
        seen: dict[str, Any] = api.seen(f"/elders/imports/{found['id']}")
        return seen if seen["state"] in states else None

    return live.soon(look, within_s=60)


@pytest.mark.xdist_group("live")
def test_a_clerk_imports_a_list(live: Live) -> None:
    village = live.village()
    clerk = live.user("supervisor", village[:9])
    number, wrong = live.id_number(), live.id_number()[:-1] + "*"
    rows = [["附件 3"], [*HEAD, "村（居）", "爱好"], [*person("王桂英", "'" + number), f"村{village[-3:]}"],
            [*person("=李", wrong, category="@孤寡"), village], ["填表人：张三"]]  # fmt: skip
    content = as_csv(rows).encode("gb18030")
    key = {"Idempotency-Key": f"import-{number}"}
    answer = clerk.post("/elders/imports", files={"file": ("十一月.csv", content)}, headers=key)
    assert answer.status_code == 202, answer.text
    made = answer.json()
    assert answer.headers["Location"] == f"/api/v1/elders/imports/{made['id']}"
    assert (made["filename"], made["size"], made["state"]) == ("十一月.csv", len(content), "uploaded")
    refused(clerk.post(f"/elders/imports/{made['id']}/commit", json={"mode": "good_rows_only"}), 409, "dry run")
    checked = ended(live, clerk, made, "checked", "failed")
    assert (checked["failure"], checked["rows_total"], checked["rows_done"]) == (None, 2, 2)
    assert checked["counts"] == {"create": 1, "update": 0, "unchanged": 0, "error": 1, "warning": 0}
    assert checked["notices"] == ["这些列没有导入:爱好"]
    errors = clerk.items(f"/elders/imports/{made['id']}/rows", outcome="error")
    assert [(e["row"], [(i["column"], i["code"]) for i in e["issues"]]) for e in errors] == [
        (4, [("E", "id_masked"), ("G", "category_unknown")])
    ]
    assert [r["row"] for r in clerk.items(f"/elders/imports/{made['id']}/rows", limit=1)] == [3]
    told = clerk.get(f"/elders/imports/{made['id']}/issues.csv")
    lines = list(csv.reader(io.StringIO(told.content.decode("utf-8-sig"))))
    assert lines[0] == ["行号", "列", "表头", "级别", "问题", "结果"]
    assert [line[:4] for line in lines[1:]] == [["4", "E", "身份证号", "错误"], ["4", "G", "类别", "错误"]]
    assert wrong not in told.text
    assert live.admin.items("/elders", region_code=village) == []
    refused(clerk.post(f"/elders/imports/{made['id']}/commit", json={"mode": "all_or_nothing"}), 409, "1 rows")
    assert clerk.post(f"/elders/imports/{made['id']}/commit", json={"mode": "good_rows_only"}).status_code == 202
    done = ended(live, clerk, made, "committed", "failed")
    assert (done["failure"], done["mode"], done["counts"]["create"]) == (None, "good_rows_only", 1)
    (elder,) = live.admin.items("/elders", region_code=village)
    assert (elder["name"], elder["care_level"]) == ("王桂英", "key")
    row = clerk.items(f"/elders/imports/{made['id']}/rows", outcome="create")[0]
    assert row["elder_id"] == elder["id"]
    again = clerk.post("/elders/imports", files={"file": ("十一月.csv", content)}, headers=key)
    assert again.json()["id"] == made["id"]
    noted = [
        n["action"] for n in live.admin.items("/audit-log", subject_type="import") if n["subject_id"] == made["id"]
    ]
    assert noted == ["elder.imported", "import.commit_asked", "import.uploaded"]

    # What leaves the server comes back unchanged, whole or masked.
    for params in ({}, {"reveal": "true", "purpose": "核对"}):
        for name in ("annex-3.xlsx", "annex-3.csv"):
            file = clerk.get(f"/reports/{name}", params={"region_code": village, **params}).content
            sent = clerk.post("/elders/imports", data=file, headers={"Content-Type": "application/octet-stream"}).json()
            back = ended(live, clerk, sent, "checked", "failed")
            assert (back["failure"], back["counts"]) == (
                None, {"create": 0, "update": 0, "unchanged": 1, "error": 0, "warning": 0},
            )  # fmt: skip
    cancelled = clerk.post(f"/elders/imports/{sent['id']}/cancel").json()
    assert cancelled["state"] == "cancelled"
    refused(clerk.post(f"/elders/imports/{sent['id']}/commit", json={"mode": "all_or_nothing"}), 409, "cancelled")
    assert [one["id"] for one in clerk.items("/elders/imports", limit=1)] == [sent["id"]]


@pytest.mark.xdist_group("live")
def test_uploads_have_limits_and_stay_within_the_scope(live: Live) -> None:
    clerk = live.user("supervisor", "370302001")
    octets = {"Content-Type": "application/octet-stream"}
    refused(clerk.post("/elders/imports", data=b"x" * (16 * 1024 * 1024 + 32 * 1024), headers=octets), 413, "at most")
    refused(clerk.post("/regions", data=b"x" * (1024 * 1024 + 1), headers=octets), 413, "at most")
    for content, says in ((b"", "空"), (b"%PDF-1.7", "类型"), (b"\xd0\xcf\x11\xe0", "旧版")):
        refused(clerk.post("/elders/imports", data=content, headers=octets), 422, says)
    refused(clerk.post("/elders/imports", files={"other": ("x", b"x")}), 422, "file")
    refused(clerk.post("/elders/imports", data=b"--x", headers={"Content-Type": "multipart/form-data"}), 422, "file")
    refused(clerk.post("/elders/imports?region_code=370302002", data=b"a,b", headers=octets), 422, "region")
    refused(clerk.post("/elders/imports?region_code=370302", data=b"a,b", headers=octets), 422)
    for role in ("operator", "auditor", "visitor"):
        refused(live.user(role, "370302").post("/elders/imports", data=b"a,b", headers=octets), 403, "elders:write")
    refused(live.anonymous.post("/elders/imports", data=b"a,b", headers=octets), 401)
    sent = clerk.post("/elders/imports", data="姓名,性别\n王,女".encode(), headers=octets).json()
    failed = ended(live, clerk, sent, "failed", "checked")
    assert "身份证号" in failed["failure"]
    other = live.user("supervisor", "370302002")
    gone = "00000000-0000-7000-8000-00000000dead"
    for found in (sent["id"], gone):
        refused(other.get(f"/elders/imports/{found}"), 404, "no such import")
        refused(other.get(f"/elders/imports/{found}/rows"), 404, "no such import")
        refused(other.get(f"/elders/imports/{found}/issues.csv"), 404, "no such import")
        refused(other.post(f"/elders/imports/{found}/commit", json={"mode": "good_rows_only"}), 404, "no such import")
        refused(other.post(f"/elders/imports/{found}/cancel"), 404, "no such import")
    assert sent["id"] not in {one["id"] for one in other.items("/elders/imports")}


# --- as office programs save it ------------------------------------------------------------------------------------------


@pytest.mark.office
def test_lists_that_an_office_program_saved(tmp_path: Path) -> None:
    """Our form opened and saved again: as a workbook, as CSV in GBK, as «Unicode text»."""
    line = annex_3.Line("王桂英", "女", 86, GOOD, "般阳路1号院", "独居（重点人群）", "重度失能", "=1+1")
    (tmp_path / "list.xlsx").write_bytes(annex_3.draw(annex_3.Summary("般阳路街道", TODAY, [line] * 3)))
    office = [shutil.which("soffice") or "soffice", "--headless", f"-env:UserInstallation=file://{tmp_path}/profile"]
    for target in ("xlsx", "csv:Text - txt - csv (StarCalc):44,34,85", "txt:Text - txt - csv (StarCalc):9,34,65535"):
        out = tmp_path / target[:3]
        command = [*office, "--convert-to", target, "--outdir", str(out), str(tmp_path / "list.xlsx")]
        subprocess.run(command, check=True, timeout=90, capture_output=True)
        (saved,) = out.iterdir()
        rows = list(rows_of(saved.read_bytes()))
        head = find_head(rows)
        meant = list(people(iter(rows), head))
        assert [row.number for row in meant] == [5, 6, 7]
        read = Reader(head, TODAY).draft(meant[0])
        assert read.identity is not None
        assert (read.name, read.identity.number, read.fields["address"]) == ("王桂英", GOOD, "般阳路1号院")
        assert (read.category, read.ability, read.fields["remarks"]) == ("独居（重点人群）", "重度失能", "=1+1")
        assert (read.issues, head.place) == ([], "般阳路街道")
