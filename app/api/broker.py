"""What an MQTT broker asks over HTTP before it lets a device in, publish or subscribe (EMQX 5; deploy/emqx/).

The broker shows the secret of MQTT_AUTH_SECRET; without that setting there is nothing here. Answers are EMQX's: status
200 with a `result`. Anything that is not a clear yes is a `deny`, because EMQX takes an error for «ask the next one».
"""

from __future__ import annotations

import hmac
from typing import Annotated, Literal

from fastapi import APIRouter, Depends, HTTPException, Request, Security
from fastapi.security import APIKeyHeader
from pydantic import BaseModel, ConfigDict, Field

from app.api.bodies import example
from app.api.context import Parts, PartsDep, parts_of
from app.api.problems import responses
from app.devices import passwords
from app.devices.credentials import Login, ServerLogin
from app.devices.topics import Action, device_may, server_may
from app.errors import NotLoggedIn

_DEVICE = {"username": "sos-0001", "clientid": "sos-0001"}
_MOST = 65_535  # what MQTT's own strings hold
_header = APIKeyHeader(
    name="X-Broker-Secret", auto_error=False, scheme_name="BrokerSecret", description="SHOUWANG_MQTT_AUTH_SECRET"
)


async def _asked_by_our_broker(request: Request, shown: Annotated[str | None, Security(_header)]) -> None:
    wanted = parts_of(request).broker.secret
    if not wanted:
        raise HTTPException(404)
    if not hmac.compare_digest((shown or "").encode(), wanted.encode()):
        raise NotLoggedIn("the header X-Broker-Secret does not hold this server's SHOUWANG_MQTT_AUTH_SECRET")


router = APIRouter(
    tags=["broker"],
    dependencies=[Depends(_asked_by_our_broker)],
    responses=responses(400, 401, 404, 408, 413, 422, 503),
)
Text = Annotated[str | None, Field(max_length=_MOST)]


class Question(BaseModel):
    """A broker may send more than is asked of it; what EMQX does not know it leaves out or sends as null."""

    model_config = ConfigDict(extra="ignore")
    username: Text = None
    clientid: Text = None


class LoginQuestion(Question):
    model_config = example(**_DEVICE, password="…")  # noqa: S106 - an example of a form
    password: Text = Field(default=None, repr=False)


class TopicQuestion(Question):
    model_config = example(**_DEVICE, topic="devices/sos-0001/event", action="publish")
    topic: Text = None
    action: Text = Field(default=None, examples=["publish", "subscribe"])


class LoginAnswer(BaseModel):
    result: Literal["allow", "deny"]
    is_superuser: bool = False


class TopicAnswer(BaseModel):
    result: Literal["allow", "deny"]


@router.post("/mqtt/auth/login", summary="May this client connect? Asked by EMQX")
async def broker_login(question: LoginQuestion, parts: PartsDep) -> LoginAnswer:
    """A device connects under its user name as client id: under another's, it would take over that one's session."""
    return LoginAnswer(result="allow" if await _let_in(question, parts) else "deny")


@router.post("/mqtt/auth/topic", summary="May this client publish or subscribe there? Asked by EMQX")
async def broker_topic(question: TopicQuestion, parts: PartsDep) -> TopicAnswer:
    return TopicAnswer(result="allow" if await _may(question, parts) else "deny")


async def _let_in(question: LoginQuestion, parts: Parts) -> bool:
    username, password, server = question.username, question.password, parts.broker.server
    if not username or password is None:
        return False
    if server is not None and username == server.username:
        return _is_server(server, password)
    known = await _login(parts, username)
    return known is not None and question.clientid == username and passwords.fits(password, known.password_hash)


async def _may(question: TopicQuestion, parts: Parts) -> bool:
    username, topic, server = question.username, question.topic, parts.broker.server
    if not username or not topic or question.action not in [action.value for action in Action]:
        return False
    action = Action(question.action)
    if server is not None and username == server.username:
        return server_may(action, topic)
    known = await _login(parts, username)  # a revoked device that is still connected may nothing any more
    return known is not None and device_may(known.device_id, action, topic)


def _is_server(server: ServerLogin, password: str) -> bool:
    return hmac.compare_digest(password.encode("utf-8", "replace"), server.password.encode())


async def _login(parts: Parts, username: str) -> Login | None:
    if "\x00" in username:
        return None  # MQTT has no such name, and the database could not be asked for it
    return await parts.lookups.login(username)
