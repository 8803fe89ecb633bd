"""What Prometheus reads at /metrics. Labels never hold a person, a device or an address."""

from __future__ import annotations

from prometheus_client import Counter, Gauge, Histogram

_FAST = (0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60)

EVENTS = Counter("shouwang_events", "Device messages, counted after their commit", ["type", "outcome"])
EVENT_TO_COMMIT = Histogram("shouwang_event_to_commit_seconds", "From receipt to commit", buckets=_FAST)
EVENT_TO_FIRST_NOTICE = Histogram(
    "shouwang_event_to_first_notice_seconds", "From receipt of an alarm's event to its first notice sent", buckets=_FAST
)
NOTICES = Counter("shouwang_notices", "Notices after each attempt", ["channel", "state"])
DIGESTS = Counter("shouwang_digests", "Messages that are no alarms, after each attempt", ["channel", "state"])
NOTICE_SECONDS = Histogram(
    "shouwang_notice_seconds", "From planning a notice to its first try having worked", buckets=_FAST
)
ALARMS_OPEN = Gauge("shouwang_alarms_open", "Unresolved alarms", ["severity"])
INGEST_LAG = Gauge("shouwang_ingest_lag_seconds", "Age of the oldest message taken from the broker and not committed")
OLDEST_UNTOLD = Gauge("shouwang_oldest_untold_alarm_seconds", "Age of the oldest open alarm nobody was told of yet")
WEBHOOK_DELIVERIES = Counter("shouwang_webhook_deliveries", "Deliveries to subscribers after each attempt", ["state"])
WEBHOOK_SECONDS = Histogram(
    "shouwang_webhook_seconds", "From an event to its delivery to a subscriber at the first try", buckets=_FAST
)
