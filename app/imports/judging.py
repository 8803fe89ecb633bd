"""What a draft would do to the register: create, update, nothing, or not possible. Pure: all that is known is given.

The dry run and the run in earnest both ask here, the second time with the rows locked.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date
from typing import Any
from uuid import UUID

from app.access.sealing import Sealer, mask_address, mask_phone
from app.elders import history
from app.elders.classification import Facts, classify
from app.elders.form_words import CARE_LEVEL, Category, write_ability, write_category
from app.elders.identity import age_on
from app.elders.policies import Policies
from app.elders.tables import Elder
from app.elders.vocabulary import AbilityLevel, CareLevel, ElderStatus, Observed
from app.imports.places import Places, Unplaced
from app.imports.reading import Draft, Issue, Reader, plain_name
from app.imports.vocabulary import Column, Outcome, Severity

_FACTS = ("ability_level", "observed", "disability_grade", "dementia")


@dataclass(frozen=True, slots=True)
class Verdict:
    """What becomes of a row. `fields` is what is written; `elder` is whom it changes."""

    draft: Draft
    outcome: Outcome
    issues: Sequence[Issue]
    fields: Mapping[str, Any] = field(default_factory=dict)
    elder: Elder | None = None


@dataclass
class Judge:
    """Judges rows in the order of the list; remembers whom it has seen."""

    reader: Reader
    places: Places
    sealer: Sealer
    in_force: Policies
    today: date
    list_place: str | None = None  # 镇（办）：… above the table, as written
    _seen: dict[str | UUID, int] = field(default_factory=dict)

    def judge(self, draft: Draft, found: Sequence[Elder], *, foreign: bool) -> Verdict:
        """`found`: whom the row may mean, within the scope. `foreign`: the number belongs to somebody outside of it."""
        issues = list(draft.issues)
        elder = self._whom(draft, found, foreign, issues)
        if elder is not None and draft.category and self._as_the_form_says(draft, elder):
            # As an export wrote it: no change, whatever words there are in it.
            draft.fields = {name: value for name, value in draft.fields.items() if name not in ("tags", "other_tags")}
            issues = [issue for issue in issues if issue.code != "category_unknown"]
        self._once(draft, elder, issues)
        township, place = self._place(draft, elder, issues)
        if any(issue.severity is Severity.ERROR for issue in issues):
            return Verdict(draft, Outcome.ERROR, issues)
        if elder is None:
            fields = {**draft.fields, "name": draft.name, "region_code": place}
            self._no_masks(fields, issues)
            if any(issue.severity is Severity.ERROR for issue in issues):
                return Verdict(draft, Outcome.ERROR, issues)
            self._compare_class(draft, self._facts_of_new(draft), place or "", issues)
            return Verdict(draft, Outcome.CREATE, issues, fields)
        fields = self._changes(draft, elder, issues)
        if place is not None and place != elder.region_code:
            fields["region_code"] = place
        if any(issue.severity is Severity.ERROR for issue in issues):
            return Verdict(draft, Outcome.ERROR, issues)
        self._compare_class(draft, _changed(history.facts_of(elder), fields), place or elder.region_code, issues)
        if elder.status in (ElderStatus.MOVED, ElderStatus.DECEASED):
            self._warn(issues, "gone", "此人登记为已迁出或已去世,请核实", Column.NAME)
        if township and not elder.region_code.startswith(township[:9]) and place is None:
            self._warn(issues, "other_township", "此人登记在别的镇(街道);未写明村(社区),所属不变", Column.NAME)
        outcome = Outcome.UPDATE if fields else Outcome.UNCHANGED
        return Verdict(draft, outcome, issues, fields, elder)

    # --- whom a row means ----------------------------------------------------------------------------------------------

    def _whom(self, draft: Draft, found: Sequence[Elder], foreign: bool, issues: list[Issue]) -> Elder | None:
        if foreign:
            # Says that it cannot be done here, and nothing about who is enrolled where.
            self._wrong(issues, "not_here", "不能在本辖区登记此人,请与上级民政部门核对", Column.ID_NUMBER)
        if draft.masked is None or draft.name is None:
            return found[0] if found and draft.masked is None else None
        found = self._closer(draft, found)
        if len(found) == 1:
            return found[0]
        text = (
            "遮盖的身份证号对应几名同名老人,请填完整号码"
            if found
            else "登记中没有姓名和号码都相符的人;遮盖的身份证号不能用来登记新老人,请填完整号码"
        )
        self._wrong(issues, "masked_ambiguous" if found else "masked_unknown", text, Column.ID_NUMBER)
        return None

    def _closer(self, draft: Draft, found: Sequence[Elder]) -> Sequence[Elder]:
        """Of several whose name and masked number are the same, those whose age and sex are too."""
        if len(found) < 2:
            return found
        same = [
            elder
            for elder in found
            if draft.sex in (None, elder.sex) and draft.age in (None, age_on(elder.birth_date, self.today))
        ]
        return same or found

    def _once(self, draft: Draft, elder: Elder | None, issues: list[Issue]) -> None:
        if elder is not None:
            key: str | UUID = elder.id
        elif draft.identity is not None:
            key = draft.identity.number
        else:
            return
        before = self._seen.setdefault(key, draft.row)
        if before != draft.row:
            self._wrong(issues, "twice_in_file", f"与第 {before} 行是同一个人", Column.ID_NUMBER)

    # --- where ---------------------------------------------------------------------------------------------------------

    def _place(self, draft: Draft, elder: Elder | None, issues: list[Issue]) -> tuple[str | None, str | None]:
        """The township that is meant, and the region to write; None: as it is."""
        try:
            township = self.places.township(draft.township) or self._of_the_list()
            place = self.places.said(township, draft.village)
            if place is None and elder is None and draft.identity is not None:
                place = self.places.guessed(township, draft.fields.get("address", ""))
        except Unplaced as error:
            self._wrong(issues, error.code, str(error), Column.VILLAGE if error.village else Column.TOWNSHIP)
            return None, None
        if elder is None and place is not None and place.endswith("000"):
            self._warn(issues, "village_missing", "未写明村(社区),先登记到镇(街道)", Column.VILLAGE)
        return township, place

    def _of_the_list(self) -> str | None:
        """What stands above the table counts where it is a township that the importer sees, and not against a choice."""
        if self.places.default or not self.list_place:
            return None
        try:
            return self.places.township(self.list_place)
        except Unplaced:
            return None

    # --- what changes --------------------------------------------------------------------------------------------------

    def _changes(self, draft: Draft, elder: Elder, issues: list[Issue]) -> dict[str, Any]:
        fields: dict[str, Any] = {}
        if draft.name is not None and draft.name != plain_name(elder.name):
            fields["name"] = draft.name
            self._warn(issues, "name_differs", "姓名与登记的不同,将按此更改", Column.NAME)
        said = dict(draft.fields)
        for name, column, mask in (
            ("address", Column.ADDRESS, mask_address),
            ("phone", Column.PHONE, mask_phone),
        ):
            if name in said and (value := self._reach(name, said.pop(name), elder, mask, column, issues)) is not None:
                fields[name] = value
        if draft.ability == write_ability(elder.ability_level, elder.observed, elder.disability_grade, elder.dementia):
            for name in _FACTS:
                said.pop(name, None)
        for name, value in said.items():
            now = getattr(elder, name)
            if name in ("tags", "other_tags"):
                if set(value) != set(now):
                    fields[name] = value
            elif name == "remarks":
                if value != (now or "").replace("\r\n", "\n").replace("\r", "\n").strip():
                    fields[name] = value
            elif value != now:
                fields[name] = value
        return fields

    def _reach(self, name: str, given: str, elder: Elder, mask: Any, column: Column, issues: list[Issue]) -> str | None:
        """The new value, or None when it is what the register has, masked or not."""
        sealed = elder.address_sealed if name == "address" else elder.phone_sealed
        known = self.sealer.open_optional(sealed, record=elder.id)
        if given == (known or "").strip() or (known is not None and given == (mask(known) or "").strip()):
            return None
        if _masked(name, given):
            self._wrong(issues, f"{name}_masked", "是遮盖过的内容,与登记不符;请填完整内容,或留空表示不改", column)
            return None
        return given

    def _as_the_form_says(self, draft: Draft, elder: Elder) -> bool:
        """类别 as an export wrote it, whatever class it had then."""
        return any(
            draft.category == write_category(elder.tags, elder.other_tags, level, shown)
            for shown in Category
            for level in CareLevel
        )

    def _no_masks(self, fields: Mapping[str, Any], issues: list[Issue]) -> None:
        for name, column in (("address", Column.ADDRESS), ("phone", Column.PHONE)):
            if name in fields and _masked(name, fields[name]):
                self._wrong(issues, f"{name}_masked", "是遮盖过的内容,不能登记;请填完整内容", column)

    # --- the class -----------------------------------------------------------------------------------------------------

    def _facts_of_new(self, draft: Draft) -> Facts:
        assert draft.identity is not None
        return _changed(Facts(draft.identity.birth_date, None, None, None, False), draft.fields)

    def _compare_class(self, draft: Draft, facts: Facts, place: str, issues: list[Issue]) -> None:
        """The class follows from the facts; one that is written otherwise is worth a look."""
        if draft.care_level is None:
            return
        found = classify(facts, on=self.today, policy=self.in_force.at(place, self.today)).care_level
        if found is not draft.care_level:
            text = f"类别写的是{CARE_LEVEL[draft.care_level]},按政策和登记内容应为{CARE_LEVEL[found]};以后者为准"
            self._warn(issues, "class_differs", text, Column.CATEGORY)

    def _wrong(self, issues: list[Issue], code: str, message: str, column: Column) -> None:
        issues.append(self.reader.issue(Severity.ERROR, code, message, column))

    def _warn(self, issues: list[Issue], code: str, message: str, column: Column) -> None:
        issues.append(self.reader.issue(Severity.WARNING, code, message, column))


def _masked(name: str, given: str) -> bool:
    return given.endswith("***") if name == "address" else given.startswith("***")


def _changed(facts: Facts, fields: Mapping[str, Any]) -> Facts:
    level: AbilityLevel | None = fields.get("ability_level", facts.ability_level)
    observed: Observed | None = fields.get("observed", facts.observed)
    return Facts(
        facts.birth_date, level, observed, fields.get("disability_grade", facts.disability_grade),
        fields.get("dementia", facts.dementia), facts.circumstances,
    )  # fmt: skip
