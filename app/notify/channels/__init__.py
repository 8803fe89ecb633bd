"""The channels a letter can go through: one file each, and the list of them here."""

from __future__ import annotations

from typing import TextIO

from app.notify.channel import Channels
from app.notify.channels._http import Http
from app.notify.channels.aliyun import Sms, Voice
from app.notify.channels.console import Console
from app.notify.channels.email import Email
from app.notify.channels.robots import DingTalk, Feishu, WeCom
from app.notify.channels.webhook import Webhook
from app.settings import Settings


def build(settings: Settings, *, console: TextIO | None = None) -> Channels:
    """Every channel of this server; `console` is where the console channel writes (standard output by default).

    With `allow_private_webhooks` webhooks may reach private networks and robots may live on any host: for tests and
    for a closed network. The elder's own device is no channel of this kind: it hears through the broker.
    """
    private = settings.allow_private_webhooks
    return Channels(
        Webhook(Http(allow_private=private), allow_private=private),
        Sms(settings),
        Voice(settings),
        Email(settings),
        WeCom(Http(allow_private=private), any_host=private),
        DingTalk(Http(allow_private=private), any_host=private),
        Feishu(Http(allow_private=private), any_host=private),
        Console(console),
    )
