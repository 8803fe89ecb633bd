"""Who is of an elder's circle at this moment, as a condition in SQL. Asked again when a message goes out and when a link is
used: nothing of a person reaches somebody whose pairing or office has ended since (docs/adr/0036)."""

from __future__ import annotations


def of_circle(*, visitor: str, elder: str, region: str, began: str) -> str:
    """Whether a visitor is paired with an elder, or holds an office of the place, or did on the day it `began`: who was
    called may finish what they promised. Each argument is an expression in SQL."""
    # Scalar, not EXISTS: the planner, guessing at many rows, may hash a whole table for that.
    return f"""coalesce(
        (SELECT true FROM assignments p WHERE p.elder_id = {elder} AND p.visitor_id = {visitor} AND p.ended_at IS NULL LIMIT 1),
        (SELECT true FROM duties o WHERE o.visitor_id = {visitor} AND o.region_code IN ({region}, left({region}, 9) || '000')
         AND (o.until IS NULL OR o.until >= CAST({began} AT TIME ZONE 'UTC' AS date)) LIMIT 1),
        false
    )"""  # noqa: S608 - expressions of this program
