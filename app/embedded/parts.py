"""What a process runs itself because the settings name nobody else."""

from __future__ import annotations

from dataclasses import dataclass

from app.embedded.broker import EmbeddedBroker
from app.embedded.postgres import EmbeddedPostgres
from app.settings import Settings


@dataclass
class Embedded:
    """What this process runs itself because the settings name nobody else. `stop()` ends it last."""

    settings: Settings
    postgres: EmbeddedPostgres | None = None
    broker: EmbeddedBroker | None = None

    def start(self) -> Embedded:
        """Start PostgreSQL and the broker where the settings are empty."""
        if self.settings.embedded:
            self.postgres = EmbeddedPostgres(self.settings.data_dir)
            self.postgres.start()
        if not self.settings.mqtt_url.get_secret_value():
            self.broker = EmbeddedBroker(self.settings.data_dir, self.settings.mqtt_port).start()
        return self

    @property
    def database_url(self) -> str:
        if self.postgres:
            return self.postgres.url()
        url = self.settings.database_url.get_secret_value()
        return url.replace("postgresql://", "postgresql+asyncpg://", 1).replace(
            "postgres://", "postgresql+asyncpg://", 1
        )

    @property
    def mqtt_url(self) -> str:
        return self.broker.url if self.broker else self.settings.mqtt_url.get_secret_value()

    def stop(self) -> None:
        if self.broker:
            self.broker.stop()
        if self.postgres:
            self.postgres.stop()
