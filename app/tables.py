"""Every table, in one import: for migrations and tests."""

from app.access import tables as access
from app.alarms import tables as alarms
from app.devices import tables as devices
from app.elders import tables as elders
from app.imports import tables as imports
from app.notify import tables as notify
from app.reports import tables as reports
from app.visits import checks_tables as checks
from app.visits import tables as visits
from app.visits import volunteer_tables as volunteers
from app.visits import work_tables as work
from app.watches import tables as watches
from app.webhooks import tables as webhooks

__all__ = [
    "access",
    "alarms",
    "checks",
    "devices",
    "elders",
    "imports",
    "notify",
    "reports",
    "visits",
    "volunteers",
    "watches",
    "webhooks",
    "work",
]
