"""Whatever a stranger makes of the OpenAPI document: no 5xx, and no answer the document does not declare.

With SHOUWANG_TEST_THOROUGH=1 (`.ci/run` sets it in its second run) also every boundary of every field and every method
that is not there: five times as many requests, for which a developer would wait a minute more each time.
"""

from __future__ import annotations

import json
import os
from typing import TYPE_CHECKING, cast

import pytest
import schemathesis
from hypothesis import HealthCheck, Phase, settings
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_schema_conformance,
    status_code_conformance,
)

from app.api import application
from app.api.context import Parts

if TYPE_CHECKING:
    from tests.live import Live

pytest_plugins = ["tests.live"]
_THOROUGH = os.environ.get("SHOUWANG_TEST_THOROUGH") == "1"
pytestmark = [
    pytest.mark.xdist_group("live-2"), pytest.mark.timeout(180), *([pytest.mark.thorough] if _THOROUGH else [])
]  # fmt: skip
_CHECKS = [not_a_server_error, status_code_conformance, content_type_conformance, response_schema_conformance]


# The document needs no running server; that the server shows this one is a test of its own.
_document = application.build(cast(Parts, None), roles=["api"]).openapi()
schema = schemathesis.openapi.from_dict(_document)
schema.config.update(base_url="http://127.0.0.1")  # each call names the live server
schema.config.phases.coverage.enabled = _THOROUGH


def test_the_server_shows_this_document(live: Live) -> None:
    assert live.anonymous.get(f"{live.base}/openapi.json").json() == json.loads(json.dumps(_document))


# The stream never ends; tests/test_api.py reads it.
@schema.exclude(path="/api/v1/alarms/stream").parametrize()
@settings(
    max_examples=10,
    deadline=None,
    derandomize=True,
    database=None,
    suppress_health_check=list(HealthCheck),
    phases=[Phase.explicit, Phase.generate],
)
def test_no_answer_that_is_not_declared(case: schemathesis.Case, live: Live) -> None:
    # What ends log-ins gets one of its own each time; everybody else shares the administrator's, which must stay alive.
    caller = live.spare_admin() if case.path.startswith("/api/v1/me/") else live.admin
    token = {"Authorization": caller.headers["Authorization"], "X-Broker-Secret": live.broker_secret}
    answer = case.call_and_validate(base_url=live.base, checks=_CHECKS, headers=token, timeout=20)
    other_door = case.path == "/api/v1/auth/token" or case.path.startswith("/api/v1/mqtt/auth/")
    if "Authorization" in answer.request.headers and not other_door:  # some cases leave it out
        assert answer.status_code != 401
