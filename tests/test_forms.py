"""The annexes as files. All people are invented."""

from __future__ import annotations

import csv
import io
import re
import shutil
import subprocess
import zipfile
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from python_calamine import CalamineWorkbook

from app.elders.form_words import Category, write_ability, write_category
from app.elders.vocabulary import AbilityLevel, CareLevel, Observed, Service
from app.reports.forms import annex_1, annex_2, annex_3
from tests.test_api import refused

if TYPE_CHECKING:
    from tests.live import Live

pytest_plugins = ["tests.live"]
HEAD = ["序号", "姓名", "性别", "年龄", "身份证号", "家庭住址", "类别", "身体能力", "备注"]

SURVEY = annex_1.Survey(
    surveyed_on=date(2026, 5, 1), name="王桂英", sex="女", age=86, id_number="370302********1226",
    category="独居、空巢（重点人群）", ability="重度失能、残疾二级", address="般阳路1号院***",
    family=[annex_1.Relative("王小明", "儿子", "**********0002"), annex_1.Relative("王小梅", "女儿", "**********0003")],
    services=[Service.DAILY_LIVING, Service.RECREATION, Service.OTHER],
    notes={Service.DAILY_LIVING: "送餐、打扫", Service.OTHER: "代购药品，每周一次，送到家中"},
)  # fmt: skip
MONTH = annex_2.Month(
    "般阳路街道", "测试一村", "王桂英", date(2026, 11, 1),
    [annex_2.Line(date(2026, 11, 3), [Service.HEALTH_MANAGEMENT, Service.OTHER], "李志愿、张志愿", "入户；精神很好"),
     annex_2.Line(date(2026, 11, 10), [], "李志愿", "入户；家中无人")],
)  # fmt: skip
LINE = annex_3.Line(
    "王桂英", "女", 86, "370302********1226", "般阳路1号院***", "独居（重点人群）", "重度失能", "子女在外"
)
SUMMARY = annex_3.Summary("般阳路街道", date(2026, 11, 26), [LINE] * 40)


def cells(content: bytes) -> list[list[Any]]:
    return CalamineWorkbook.from_filelike(io.BytesIO(content)).get_sheet_by_index(0).to_python(skip_empty_area=False)


def merged(content: bytes) -> set[str]:
    with zipfile.ZipFile(io.BytesIO(content)) as book:
        return set(re.findall(r'mergeCell ref="([A-Z0-9:]+)"', book.read("xl/worksheets/sheet1.xml").decode()))


def part(content: bytes, name: str) -> str:
    with zipfile.ZipFile(io.BytesIO(content)) as book:
        return book.read(name).decode()


# --- what stands where -----------------------------------------------------------------------------------------------


@pytest.mark.unit
def test_annex_1_stands_as_on_the_official_form() -> None:
    content = annex_1.draw(SURVEY)
    rows = [[str(cell) for cell in row] for row in cells(content)]
    assert rows[1][0] == "特殊困难老年人探访关爱服务摸底表"
    assert rows[2][0] == "2026年5月1日"
    assert rows[3] == ["姓名", "王桂英", "性别", "女", "年龄", "86.0"]
    assert rows[4][:2] == ["身份证号码", "370302********1226"]
    assert (rows[5][0], rows[5][1], rows[5][3], rows[5][4]) == (
        "类别", "独居、空巢（重点人群）", "身体能力", "重度失能、残疾二级",
    )  # fmt: skip
    assert rows[6][:2] == ["家庭住址", "般阳路1号院***"]
    assert rows[7][0].replace(" ", "") == "家庭成员"
    assert rows[9] == ["姓名", "王小梅", "关系", "女儿", "联系方式", "**********0003"]
    assert rows[10][0].replace(" ", "") == "探访关爱服务内容"
    assert [[row[0], row[2]] for row in rows[11:15]] == [
        ["健康管理", "精神慰藉"], ["居家安全", "环境卫生"], ["生活照料", "应急救援"], ["康复护理", "文体活动"],
    ]  # fmt: skip
    assert (rows[13][1], rows[14][3], rows[11][4:]) == ("送餐、打扫", "√", ["其他", "代购药品，每周一次，送到家中"])
    assert {"A2:F2", "B5:F5", "B6:C6", "E6:F6", "B7:F7", "A8:F8", "A11:F11", "E12:E15", "F12:F15"} <= merged(content)


@pytest.mark.unit
def test_annex_1_of_somebody_nobody_asked_yet_has_the_blanks_of_the_form() -> None:
    empty = replace(SURVEY, surveyed_on=None, family=[], services=[], notes={}, address="")
    rows = cells(annex_1.draw(empty))
    assert str(rows[2][0]).split() == ["年", "月", "日"]
    assert rows[8] == ["姓名", "", "关系", "", "联系方式", ""]


@pytest.mark.unit
def test_annex_2_has_a_line_for_each_visit_and_room_for_the_pen() -> None:
    rows = cells(annex_2.draw(MONTH))
    assert rows[1][0] == "特殊困难老年人探访关爱服务记录表"
    assert (rows[2][0], rows[2][8], rows[3][0]) == ("般阳路街道  测试一村", "2026年11月", "老年人姓名：王桂英")
    assert rows[4] == [
        "日期", "健康管理", "居家安全", "生活照料", "康复护理", "精神慰藉", "环境卫生", "应急救援", "文体活动", "其他",
        "服务人员签字", "备注",
    ]  # fmt: skip
    assert rows[5] == ["11月3日", "√", *[""] * 7, "√", "李志愿、张志愿", "入户；精神很好"]
    assert len(rows) == 5 + 12


@pytest.mark.unit
def test_annex_3_has_its_columns_in_order_and_the_lines_for_the_signatures() -> None:
    content = annex_3.draw(SUMMARY)
    rows = cells(content)
    assert (rows[2][0], rows[2][5]) == ("镇（办）：般阳路街道", "2026年11月26日")
    assert rows[3] == HEAD
    assert rows[4] == [
        1,
        "王桂英",
        "女",
        86,
        "370302********1226",
        "般阳路1号院***",
        "独居（重点人群）",
        "重度失能",
        "子女在外",
    ]
    assert (rows[-1][0], rows[-1][5]) == ("填表人：", "分管领导：")
    assert '<definedName name="_xlnm.Print_Titles" localSheetId="0">汇总表!$4:$4' in part(content, "xl/workbook.xml")


@pytest.mark.unit
@pytest.mark.parametrize(
    ("content", "across"), [(annex_1.draw(SURVEY), False), (annex_2.draw(MONTH), True), (annex_3.draw(SUMMARY), True)]
)
def test_forms_print_on_a4_with_fonts_by_name(content: bytes, across: bool) -> None:
    sheet = part(content, "xl/worksheets/sheet1.xml")
    page = re.search(r"<pageSetup [^>]*>", sheet)
    assert page is not None
    assert 'paperSize="9"' in page[0]
    assert ('orientation="landscape"' in page[0]) is across
    assert 'fitToHeight="0"' in page[0]
    fonts = set(re.findall(r'<name val="([^"]+)"', part(content, "xl/styles.xml")))
    assert {"方正小标宋简体", "仿宋_GB2312", "黑体"} <= fonts


@pytest.mark.unit
def test_what_looks_like_a_formula_is_text() -> None:
    wild = ["=1+1", "+86", "-2", "@x", "\tx", '=HYPERLINK("http://x","y")', "'=1", "''@"]
    lines = [replace(LINE, name=text, remark=text) for text in wild]
    book = annex_3.draw(replace(SUMMARY, lines=lines))
    sheet = part(book, "xl/worksheets/sheet1.xml")
    assert "<f>" not in sheet
    assert "hyperlink" not in sheet
    assert [row[1] for row in cells(book)[4 : 4 + len(wild)]] == wild
    assert 'quotePrefix="1"' in part(book, "xl/styles.xml")
    read = list(csv.reader(io.StringIO(annex_3.draw_csv(replace(SUMMARY, lines=lines)).decode("utf-8-sig"))))
    assert [row[1] for row in read[1:]] == [f"'{text}" for text in wild]
    assert all(row[4] == "'370302********1226" for row in read[1:])


@pytest.mark.unit
def test_the_template_chooses_what_the_category_shows() -> None:
    tags, level = ["living_alone", "severely_disabled"], CareLevel.KEY
    assert write_category(tags, ["失独"], level, Category.BOTH) == "独居、重残、其他：失独（重点人群）"
    assert write_category(tags, [], level, Category.TAGS) == "独居、重残"
    assert write_category(tags, [], level, Category.CLASS) == "重点人群"
    assert write_category([], [], CareLevel.UNDETERMINED, Category.BOTH) == "待定"
    assert write_ability(AbilityLevel.MODERATE, None, 2, True) == "中度失能、残疾二级、失智"
    assert write_ability(None, Observed.BEDRIDDEN, None, False) == "未评估、长期卧床"


# --- pictures for a person to compare ---------------------------------------------------------------------------------


@pytest.mark.office
def test_pictures_of_the_forms(tmp_path: Path) -> None:
    """Set by an office program as they would be printed; they stay in test-artefacts/forms."""
    folder = Path("test-artefacts/forms")
    folder.mkdir(parents=True, exist_ok=True)
    forms = {"annex-1": annex_1.draw(SURVEY), "annex-2": annex_2.draw(MONTH), "annex-3": annex_3.draw(SUMMARY)}
    for name, content in forms.items():
        (folder / f"{name}.xlsx").write_bytes(content)
    office = [shutil.which("soffice") or "soffice", "--headless", f"-env:UserInstallation=file://{tmp_path}/profile"]
    files = [str(folder / f"{name}.xlsx") for name in forms]
    subprocess.run([*office, "--convert-to", "pdf", "--outdir", str(tmp_path), *files], check=True, timeout=90)
    for name, (wide, high) in {"annex-1": (595, 842), "annex-2": (842, 595), "annex-3": (842, 595)}.items():
        pdf = str(tmp_path / f"{name}.pdf")
        subprocess.run(["pdftoppm", "-png", "-r", "100", "-f", "1", "-l", "1", pdf, str(folder / name)], check=True)
        grey = subprocess.run(["pdftoppm", "-gray", "-r", "72", "-l", "1", pdf], check=True, capture_output=True).stdout
        kind, size, _, pixels = grey.split(b"\n", 3)
        assert kind == b"P5"
        width, height = map(int, size.split())
        assert abs(width - wide) <= 1
        assert abs(height - high) <= 1
        dark = sum(1 for pixel in pixels if pixel < 128) / len(pixels)
        assert 0.01 < dark < 0.2, f"{name}: {dark:.1%} of the picture is dark"
        told = subprocess.run(["pdftotext", "-l", "1", pdf, "-"], check=True, capture_output=True).stdout.decode()
        for text in ("特殊困难老年人探访关爱服务", "王桂英", {"annex-3": "身份证号"}.get(name, "健康管理")):
            assert text in told, f"{name}: no {text}"
        assert list(folder.glob(f"{name}-*.png"))


# --- over HTTP -------------------------------------------------------------------------------------------------------


def this_month() -> datetime:
    return datetime.now(UTC) - timedelta(minutes=50)


@pytest.mark.xdist_group("live")
def test_forms_are_filled_for_one_elder_one_month_one_township(live: Live) -> None:
    village = live.village()
    number = live.id_number("19400101")
    elder = live.elder(
        village, id_number=number, phone="13812345678", address="般阳路1号院3单元201", remarks="=1+1",
        tags=["living_alone"], other_tags=["失独"], ability={"level": "severe", "assessed_on": "2026-03-01"},
        services=["daily_living"], service_notes={"daily_living": "送餐"}, surveyed_on="2026-05-01",
    )  # fmt: skip
    path = f"/elders/{elder['id']}"
    live.admin.made(f"{path}/family", name="王小明", relation="儿子", phone="13900000002")
    visitor, partner = live.visitor(village, name="李志愿"), live.visitor(village, name="张志愿")
    live.admin.made(
        f"{path}/consents", scope="home_visit", given_by="elder", given_on="2026-01-01", evidence_form="spoken"
    )
    started = this_month()
    visit = {"elder_id": elder["id"], "visitor_id": visitor["id"], "started_at": started.isoformat()}
    live.admin.made(
        "/visits", **visit, partner_ids=[partner["id"]], method="home", services=["daily_living"], note="好"
    )
    later = (started + timedelta(minutes=45)).isoformat()
    live.admin.made("/visits", **{**visit, "started_at": later}, method="home", outcome="nobody_home")
    supervisor = live.user("supervisor", village[:9])

    def file(name: str, **params: Any) -> bytes:
        answer = supervisor.get(f"/reports/{name}", params=params)
        assert answer.status_code == 200, answer.text
        assert "attachment" in answer.headers["Content-Disposition"]
        assert answer.headers["Cache-Control"] == "no-store"
        return answer.content

    masked = f"370302********{number[-4:]}"
    survey = str(cells(file("annex-1.xlsx", elder_id=elder["id"])))
    for text in (
        "王桂英",
        masked,
        "独居、其他：失独（重点人群）",
        "重度失能",
        "王小明",
        "儿子",
        "0002",
        "送餐",
        "2026年5月1日",
    ):
        assert text in survey
    assert number not in survey
    assert "13900000002" not in survey
    assert "3单元201" not in survey

    month = started.astimezone().strftime("%Y-%m")
    lines = cells(file("annex-2.xlsx", elder_id=elder["id"], month=month))
    assert lines[2][0].split() == ["般阳路街道", f"村{village[-3:]}"]
    assert [row[-2:] for row in lines[5:7]] == [["李志愿、张志愿", "入户；好"], ["李志愿", "入户；家中无人"]]
    assert lines[5][3] == "√"
    assert all(
        cell == "" for row in cells(file("annex-2.xlsx", elder_id=elder["id"], month="2020-01"))[5:] for cell in row
    )

    mine = next(row for row in cells(file("annex-3.xlsx", region_code=village[:9])) if row[4] == masked)
    assert mine[1:4] == ["王桂英", "女" if int(number[16]) % 2 == 0 else "男", elder["age"]]
    assert mine[5:] == ["般阳路1号院***", "独居、其他：失独（重点人群）", "重度失能", "=1+1"]
    only = cells(file("annex-3.xlsx", region_code=village, category="class"))
    assert [row[6] for row in only if row[4] == masked] == ["重点人群"]
    assert "'=1+1" in file("annex-3.csv", region_code=village).decode("utf-8-sig")
    live.admin.patch(path, json={"status": "deceased", "status_since": "2026-11-01"})
    assert masked not in str(cells(file("annex-3.xlsx", region_code=village)))


@pytest.mark.xdist_group("live")
def test_whole_numbers_by_right_with_a_purpose_and_an_audit_row(live: Live) -> None:
    village = live.village()
    number = live.id_number()
    elder = live.elder(village, id_number=number, address="般阳路1号院3单元201")
    supervisor = live.user("supervisor", village[:9])
    asked: dict[str, Any] = {"region_code": village, "reveal": "true"}
    refused(supervisor.get("/reports/annex-3.xlsx", params=asked), 422, "purpose")
    whole = supervisor.get("/reports/annex-3.xlsx", params={**asked, "purpose": f"报送{elder['name']}等"})
    assert cells(whole.content)[4][4:6] == [number, "般阳路1号院3单元201"]
    revealed = {"elder_id": elder["id"], "reveal": "true", "purpose": "入户核对"}
    assert number in str(cells(supervisor.get("/reports/annex-1.xlsx", params=revealed).content))
    supervisor.get("/reports/annex-3.csv", params={"region_code": village})
    noted = live.admin.items("/audit-log", action="elder.exported", limit=3)
    assert [(n["detail"]["form"], n["detail"]["revealed"], n["detail"].get("purpose")) for n in noted] == [
        ("annex-3.csv", False, None), ("annex-1", True, "入户核对"), ("annex-3.xlsx", True, "报送…等"),
    ]  # fmt: skip
    assert noted[2]["detail"]["elders"] == 1
    assert number not in str(noted)


@pytest.mark.xdist_group("live")
def test_forms_stay_within_the_scope_and_need_the_right(live: Live) -> None:
    elder = live.elder()
    other = live.user("supervisor", "370302002")
    gone = "00000000-0000-7000-8000-00000000dead"
    for params in ({"elder_id": elder["id"]}, {"elder_id": gone}):
        refused(other.get("/reports/annex-1.xlsx", params=params), 404, "no such elder")
        refused(other.get("/reports/annex-2.xlsx", params={**params, "month": "2026-11"}), 404, "no such elder")
    refused(other.get("/reports/annex-3.xlsx", params={"region_code": "370302001"}), 404, "region")
    for role in ("operator", "auditor", "visitor"):
        for name in ("annex-1.xlsx", "annex-2.xlsx", "annex-3.xlsx", "annex-3.csv"):
            asked = {"elder_id": elder["id"], "month": "2026-11", "region_code": "370302001"}
            refused(live.user(role, "370302").get(f"/reports/{name}", params=asked), 403, "export")
    admin = live.admin
    refused(admin.get("/reports/annex-2.xlsx", params={"elder_id": elder["id"], "month": "2026-13"}), 422)
    refused(admin.get("/reports/annex-3.xlsx", params={"region_code": "370302000000"}), 422, "township")
    refused(admin.get("/reports/annex-3.xlsx", params={"region_code": "370302"}), 422)
