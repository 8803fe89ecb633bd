"""What routes depend on costs no thread."""

import inspect
from collections.abc import Iterator
from typing import cast

import pytest
from fastapi.dependencies.models import Dependant

from app.api import application
from app.api.context import Parts


def all_of(dependant: Dependant) -> Iterator[object]:
    for one in dependant.dependencies:
        yield one.call
        yield from all_of(one)


@pytest.mark.unit
def test_every_dependency_and_every_handler_is_a_coroutine_function() -> None:
    """FastAPI runs a plain function in a thread of a pool: a dozen such ways there and back cost a request more than its
    query does."""
    app = application.build(cast(Parts, None), roles=["api"])
    routes = [route for route, _ in application.guarded_routes(app)]
    plain = {
        getattr(call, "__qualname__", repr(call))
        for route in routes
        for call in (route.endpoint, *all_of(route.dependant))
        if not any(inspect.iscoroutinefunction(c) or inspect.isasyncgenfunction(c) for c in (call, type(call).__call__))
    }
    assert plain == set()
    assert len(routes) > 100
