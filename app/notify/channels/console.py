"""The console: one line a letter, for the demo and for trying things out."""

from __future__ import annotations

import sys
from typing import TextIO

from app.errors import InvalidInput
from app.notify.channel import Letter, Outcome, Sent
from app.notify.channels._failures import never_raises
from app.notify.vocabulary import ChannelKind

_LONGEST = 200


class Console:
    """Writes the title, nothing else of the letter, to a text stream (standard output by default)."""

    kind = ChannelKind.CONSOLE

    def __init__(self, stream: TextIO | None = None) -> None:
        self._stream = stream

    def check_address(self, address: str) -> str:
        """Any name for the reader of the console."""
        if len(address) > _LONGEST:
            raise InvalidInput(f"a console address has at most {_LONGEST} characters", field="address")
        return address.strip()

    @never_raises
    async def send(self, letter: Letter) -> Outcome:
        stream = self._stream or sys.stdout
        stream.write(" ".join(letter.title.split()) + "\n")
        stream.flush()
        return Sent()

    async def close(self) -> None:
        """Nothing to close: the stream belongs to whoever gave it."""
