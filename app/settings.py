"""Settings come from the environment, prefix `SHOUWANG_`, or from `.env`. An unknown name is an error."""

from __future__ import annotations

import ipaddress
import os
import re
from pathlib import Path
from typing import Any, Self
from zoneinfo import ZoneInfo

from dotenv import dotenv_values
from pydantic import Field, SecretStr, field_validator, model_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

from app.key_files import KeyFile, decode_all, new_key

PREFIX = "SHOUWANG_"
ROLES = ("api", "ingest", "worker")  # the parts that processes may divide among themselves
Network = ipaddress.IPv4Network | ipaddress.IPv6Network
# What a browser sends as Origin: scheme, host in lower case, port unless it is the usual one.
_ORIGIN = re.compile(r"https?://([a-z0-9.-]+|\[[0-9a-f:.]+\])(:[0-9]{1,5})?")
_LEAST_SECRET = 32


class SettingsError(Exception):
    """A setting is missing, unknown or unsafe. The sentence names it."""


class Settings(BaseSettings):
    """Everything a deployer can set. `embedded` is true when no DATABASE_URL is given."""

    model_config = SettingsConfigDict(env_prefix=PREFIX, env_file=".env", extra="ignore", frozen=True)

    database_url: SecretStr = SecretStr("")
    database_pool: int = Field(default=10, ge=2, le=200)
    mqtt_url: SecretStr = SecretStr("")
    mqtt_port: int = Field(default=1883, ge=1, le=65535)
    mqtt_shared_group: str = Field(default="", pattern=r"^[A-Za-z0-9_-]*$")
    mqtt_client_id: str = Field(default="", max_length=100)
    mqtt_ca_file: str = ""
    mqtt_cert_file: str = ""
    mqtt_key_file: str = ""
    mqtt_auth_secret: SecretStr = SecretStr("")
    device_families: str = Field(default="", pattern=r"^[a-z0-9_, ]*$")
    device_profiles_dir: str = ""
    zigbee_bases: str = Field(default="zigbee2mqtt", pattern=r"^[^+#$\x00-\x1f]+$")
    traccar_topics: str = Field(default="traccar/#,events", pattern=r"^[^+$\x00-\x1f]+$")
    data_dir: Path = Path("./var")
    http_host: str = "127.0.0.1"
    http_port: int = Field(default=8000, ge=1, le=65535)
    public_url: str = ""
    admin_username: str = "admin"
    admin_password: SecretStr = SecretStr("")
    timezone: str = "Asia/Shanghai"
    language: str = Field(default="zh-CN", pattern="^(zh-CN|en)$")
    allow_private_webhooks: bool = False
    data_key: SecretStr = SecretStr("")
    data_key_file: str = ""
    token_key: SecretStr = SecretStr("")
    access_token_seconds: int = Field(default=900, ge=5, le=86_400)
    refresh_token_days: int = Field(default=30, ge=1, le=365)
    trusted_proxies: str = ""
    webhook_retries_s: str = "5,30,120,600,1800,3600,7200,14400,28800,36000"
    webhook_pause_after_s: int = Field(default=3 * 86_400, ge=1, le=30 * 86_400)
    webhook_pause_after_failures: int = Field(default=100, ge=1, le=1_000_000)
    webhook_log_days: int = Field(default=30, ge=1, le=3650)
    webhook_secret_overlap_s: int = Field(default=86_400, ge=0, le=30 * 86_400)
    retain_journal_days: int = Field(default=730, ge=0, le=36_500)
    retain_quarantine_days: int = Field(default=90, ge=0, le=36_500)
    retain_unclaimed_days: int = Field(default=90, ge=0, le=36_500)
    retain_notices_days: int = Field(default=1095, ge=0, le=36_500)
    retain_feed_days: int = Field(default=90, ge=0, le=36_500)
    erase_departed_after_days: int = Field(default=1825, ge=0, le=36_500)
    cors_origins: str = ""
    log_level: str = Field(default="INFO", pattern="^(DEBUG|INFO|WARNING|ERROR)$")

    smtp_url: SecretStr = SecretStr("")
    smtp_from: str = ""
    aliyun_access_key_id: str = ""
    aliyun_access_key_secret: SecretStr = SecretStr("")
    aliyun_sms_sign_name: str = ""
    aliyun_sms_template: str = ""
    aliyun_sms_digest_template: str = ""
    aliyun_voice_template: str = ""
    aliyun_voice_show_number: str = ""
    aliyun_sms_endpoint: str = "dysmsapi.aliyuncs.com"
    aliyun_voice_endpoint: str = "dyvmsapi.aliyuncs.com"

    @property
    def embedded(self) -> bool:
        return not self.database_url.get_secret_value()

    @property
    def tz(self) -> ZoneInfo:
        return ZoneInfo(self.timezone)

    def words(self, name: str) -> list[str]:
        """A setting that is a list with commas."""
        return [word.strip() for word in str(getattr(self, name)).split(",") if word.strip()]

    def words_of(self, secret: SecretStr) -> list[str]:
        """A secret that is a list with commas."""
        return [word.strip() for word in secret.get_secret_value().split(",") if word.strip()]

    @property
    def base_url(self) -> str:
        """Where people outside reach this server: the start of answer links."""
        return (self.public_url or f"http://{self.http_host}:{self.http_port}").rstrip("/")

    @property
    def proxies(self) -> tuple[Network, ...]:
        """The addresses whose `X-Forwarded-For` is believed."""
        return _networks(self.trusted_proxies)

    @property
    def webhook_retry_seconds(self) -> tuple[int, ...]:
        return tuple(int(text) for text in self.webhook_retries_s.split(","))

    @property
    def allowed_origins(self) -> tuple[str, ...]:
        """Front ends on other hosts whose pages may call the API from a browser."""
        return tuple(text.strip() for text in self.cors_origins.split(",") if text.strip())

    @field_validator("trusted_proxies")
    @classmethod
    def _addresses(cls, value: str) -> str:
        try:
            _networks(value)
        except ValueError:
            raise ValueError("must be addresses or networks with commas between, like 10.0.0.5,172.18.0.0/16") from None
        return value

    @field_validator("webhook_retries_s")
    @classmethod
    def _seconds(cls, value: str) -> str:
        parts = [part.strip() for part in value.split(",")]
        if len(parts) > 50 or not all(p.isascii() and p.isdigit() and len(p) < 7 for p in parts):
            raise ValueError("must be seconds between the tries, with commas: 5,30,120")
        return ",".join(parts)

    @field_validator("cors_origins")
    @classmethod
    def _origins(cls, value: str) -> str:
        for origin in filter(None, (part.strip() for part in value.split(","))):
            if not _ORIGIN.fullmatch(origin):
                raise ValueError(
                    f"{origin!r} is not an origin like https://front.example.org (no path, no *), with commas between"
                )
        return value

    @field_validator("timezone")
    @classmethod
    def _known_zone(cls, value: str) -> str:
        try:
            ZoneInfo(value)
        except (KeyError, ValueError, OSError):
            raise ValueError(f"{value!r} is not an IANA time zone, for example Asia/Shanghai") from None
        return value

    @field_validator("public_url")
    @classmethod
    def _http_url(cls, value: str) -> str:
        if value and not value.startswith(("http://", "https://")):
            raise ValueError("must begin with http:// or https://")
        return value

    @field_validator("mqtt_ca_file", "mqtt_cert_file", "mqtt_key_file")
    @classmethod
    def _readable(cls, value: str) -> str:
        if value and not os.access(value, os.R_OK):
            raise ValueError(f"{value} is not there, or cannot be read")
        return value

    @field_validator("mqtt_auth_secret")
    @classmethod
    def _not_guessable(cls, value: SecretStr) -> SecretStr:
        text = value.get_secret_value()
        if text and (len(text) < _LEAST_SECRET or len(set(text)) < _LEAST_SECRET // 4 or not text.isascii()):
            raise ValueError(f"is weak: {_LEAST_SECRET} or more random characters (`shouwang new-key` prints some)")
        return value

    @model_validator(mode="after")
    def _what_is_sent_again_is_there(self) -> Self:
        if 0 < self.retain_feed_days <= self.webhook_log_days:
            raise ValueError("SHOUWANG_RETAIN_FEED_DAYS must be more than SHOUWANG_WEBHOOK_LOG_DAYS")
        return self

    @model_validator(mode="after")
    def _one_source_of_data_keys(self) -> Self:
        if self.data_key.get_secret_value() and self.data_key_file:
            raise ValueError("SHOUWANG_DATA_KEY and SHOUWANG_DATA_KEY_FILE: set one of them")
        return self

    @model_validator(mode="after")
    def _client_certificate(self) -> Self:
        if bool(self.mqtt_cert_file) != bool(self.mqtt_key_file):
            raise ValueError("SHOUWANG_MQTT_CERT_FILE and SHOUWANG_MQTT_KEY_FILE go together")
        return self

    @model_validator(mode="after")
    def _smtp_pair(self) -> Self:
        if bool(self.smtp_url.get_secret_value()) != bool(self.smtp_from):
            raise ValueError("SHOUWANG_SMTP_URL and SHOUWANG_SMTP_FROM go together")
        return self


def _networks(text: str) -> tuple[Network, ...]:
    return tuple(ipaddress.ip_network(part.strip()) for part in text.split(",") if part.strip())


def load(**overrides: Any) -> Settings:
    """Settings from the environment. Raises `SettingsError` with a sentence that names the setting to mend."""
    known = {PREFIX + name.upper() for name in Settings.model_fields}
    given = {name for name in {*os.environ, *dotenv_values(".env")} if name.upper().startswith(PREFIX)}
    unknown = sorted(name for name in given if name.upper() not in known)
    if unknown:
        raise SettingsError(f"unknown setting {', '.join(unknown)}; known are: {', '.join(sorted(known))}")
    try:
        return Settings(**overrides)
    except ValueError as error:
        raise SettingsError(_in_words(error)) from None


def _in_words(error: ValueError) -> str:
    problems = getattr(error, "errors", lambda **_: [{"loc": (), "msg": str(error)}])(include_input=False)
    return "; ".join(f"{PREFIX}{'_'.join(str(part) for part in p['loc']).upper()}: {p['msg']}" for p in problems)


class Keys:
    """The secrets: data keys seal personal data (the first of them; the others only open), one signs tokens. Never printed."""

    def __init__(self, data: tuple[bytes, ...], token: bytes, data_file: KeyFile | None = None) -> None:
        self.data = data
        self.token = token
        self.data_file = data_file  # where the data keys come from, when a running server may read them again


def load_keys(settings: Settings) -> Keys:
    """Keys from the settings; in embedded mode missing ones are made and kept in DATA_DIR (mode 0600).

    Raises `SettingsError` outside embedded mode when one is missing, and always when one is weak.
    """
    file = _data_key_file(settings)
    data = _data_keys(settings, file)
    text = settings.token_key.get_secret_value()
    if not text and settings.embedded:
        text = kept_secret(settings.data_dir / "token_key", new_key)
    return Keys(data, _decoded("token_key", [text] if text else [])[0], file)


def _data_key_file(settings: Settings) -> KeyFile | None:
    if settings.data_key.get_secret_value():
        return None
    if settings.data_key_file:
        return KeyFile(Path(settings.data_key_file))
    if settings.embedded:
        kept_secret(settings.data_dir / "data_key", new_key)
        return KeyFile(settings.data_dir / "data_key")
    return None


def _data_keys(settings: Settings, file: KeyFile | None) -> tuple[bytes, ...]:
    if file is None:
        return _decoded("data_key", settings.words_of(settings.data_key))
    try:
        return file.read()
    except OSError as error:
        raise SettingsError(f"{PREFIX}DATA_KEY_FILE: {file.path} cannot be read ({error.strerror})") from None
    except ValueError as error:
        raise SettingsError(f"{PREFIX}DATA_KEY_FILE: {file.path} {error}") from None


def _decoded(name: str, texts: list[str]) -> tuple[bytes, ...]:
    variable = PREFIX + name.upper()
    if not texts:
        raise SettingsError(
            f"{variable} is missing: set it to 32 random bytes in base64 (`shouwang new-key` prints one)"
        )
    try:
        return decode_all(texts)
    except ValueError as error:
        raise SettingsError(f"{variable} {error}") from None


def kept_secret(path: Path, make: Any) -> str:
    """The secret kept in `path`; made by `make()` and written with mode 0600 the first time."""
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    except FileExistsError:
        return path.read_text().strip()
    with os.fdopen(handle, "w") as file:
        text: str = make()
        file.write(text + "\n")
    return text
