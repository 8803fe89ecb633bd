"""What the broker's connection promises, without a broker (invariant 1)."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from app.devices.events import Frame
from app.devices.mqtt import MqttClient, Received
from tests.world import START

pytestmark = pytest.mark.unit


class Paho:
    """Stands for paho: remembers what was acknowledged."""

    def __init__(self) -> None:
        self.acknowledged: list[tuple[int, int]] = []

    def ack(self, mid: int, qos: int) -> None:
        self.acknowledged.append((mid, qos))


def client(subscriptions: Sequence[str] = ("devices/+/event",)) -> MqttClient:
    return MqttClient("mqtt://127.0.0.1:1", client_id="x", subscriptions=subscriptions, clock=lambda: START)


def receipt(mid: int, *, qos: int = 1, connection: int) -> Received:
    return Received(Frame("devices/a/event", b"{}", START), mid, qos, connection)


def test_a_receipt_of_an_earlier_connection_acknowledges_nothing() -> None:
    """Packet ids are used again after a reconnect: an old receipt would acknowledge a message that is not committed."""
    one = client()
    paho = one._client = Paho()  # type: ignore[assignment]
    one._connection = 2
    one.acknowledge([receipt(7, connection=1), receipt(8, connection=2), receipt(0, qos=0, connection=2)])
    assert paho.acknowledged == [(8, 1)]  # type: ignore[attr-defined]


def test_whoever_listens_keeps_its_session_and_acknowledges_by_hand() -> None:
    listener = client()._client
    assert (listener._clean_session, listener._manual_ack) == (False, True)
    assert client(())._client._clean_session is True  # one that only publishes leaves nothing at the broker
