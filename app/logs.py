"""Logs: one JSON object a line on standard error. Personal data never goes in: ids do."""

from __future__ import annotations

import logging
import sys
from typing import Any

import structlog


def set_up(level: str, *, human: bool = False) -> None:
    """Configure structlog for this process; `human` prints plain lines instead of JSON."""
    renderer: Any = structlog.dev.ConsoleRenderer() if human else structlog.processors.JSONRenderer(ensure_ascii=False)
    structlog.configure(
        processors=[
            structlog.contextvars.merge_contextvars,  # the request's id
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            structlog.processors.format_exc_info,
            renderer,
        ],
        wrapper_class=structlog.make_filtering_bound_logger(logging.getLevelNamesMapping()[level]),
        logger_factory=structlog.PrintLoggerFactory(sys.stderr),
        cache_logger_on_first_use=True,
    )
    logging.basicConfig(level=logging.WARNING, stream=sys.stderr)
    logging.getLogger("apscheduler").setLevel(logging.ERROR)


def get(name: str) -> Any:
    """A logger that names its room."""
    return structlog.get_logger(room=name)
