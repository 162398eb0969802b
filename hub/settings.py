"""Settings: `SIGNALHUB_*` environment variables over `signalhub.toml`; unknown keys are errors.

Read once by the command, frozen, and handed to the hub's processes. Nothing set at all gives a
working hub on loopback in development mode.
"""

from __future__ import annotations

import ipaddress
import os
import tomllib
from pathlib import Path
from typing import Annotated, Any, Final, Literal

from pydantic import (
    AfterValidator,
    Field,
    SecretStr,
    ValidationError,
    field_validator,
    model_validator,
)
from pydantic_settings import (
    BaseSettings,
    NoDecode,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
    TomlConfigSettingsSource,
)
from typing_extensions import override

from hub.tls import CertificateFiles

PREFIX: Final = "SIGNALHUB_"
CONFIG_FILE_VARIABLE: Final = "SIGNALHUB_CONFIG"
#: read by other parts than this module: the file's name, and what tests need (contracts §12)
FOREIGN_VARIABLES: Final = frozenset(
    {CONFIG_FILE_VARIABLE, "SIGNALHUB_TEST_CLOCK_FILE", "SIGNALHUB_TEST_PG_URL"}
)
DEFAULT_PORT: Final = 8423
SECRET_KEY_CHARACTERS_MIN: Final = 32


class SettingsError(Exception):
    """The settings do not make sense; the text says which and what to do."""


def _plain_issuer(value: str) -> str:
    scheme, _, rest = value.partition("://")
    if scheme not in {"https", "http"} or not rest:
        raise ValueError("must be an https URL such as https://hub.example")
    if "/" in rest or "?" in rest or "#" in rest or "@" in rest:
        # Tenants live under /t/…, so a path here would collide with them (contracts §4).
        raise ValueError("must have no path, query, fragment, user or trailing slash")
    return value


class Settings(BaseSettings):
    """All settings, with their defaults. Field `port` is the variable `SIGNALHUB_PORT`."""

    model_config = SettingsConfigDict(env_prefix=PREFIX, frozen=True, extra="forbid")

    issuer: Annotated[str, AfterValidator(_plain_issuer)] | None = None
    database_url: str = "sqlite:///./signalhub.db"
    data_dir: Path = Path("./signalhub-data")
    host: str = "127.0.0.1"
    port: int = Field(default=DEFAULT_PORT, ge=0, le=65_535)
    workers: int = Field(default=1, ge=1, le=64)
    delivery_workers: int = Field(default=1, ge=1, le=64)
    role: Literal["all", "api", "worker"] = "all"
    node: str | None = Field(default=None, max_length=100)
    admin_token: SecretStr | None = None
    secret_key: SecretStr | None = None
    egress_allow: Annotated[tuple[str, ...], NoDecode] = ()
    extra_ca: Path | None = None
    tls_cert: Path | None = None
    tls_key: Path | None = None
    stream_sets_max: int = Field(default=1_000_000, ge=1, le=100_000_000)
    stream_age_max_s: float = Field(default=14 * 24 * 3600.0, ge=60, le=3_650 * 24 * 3600.0)
    delivery_retention_s: float = Field(default=30 * 24 * 3600.0, ge=60, le=3_650 * 24 * 3600.0)
    inactivity_timeout_s: int | None = Field(default=None, ge=60, le=366 * 24 * 3600)
    tls_client_ca: Path | None = None
    client_requests_per_s: float = Field(default=1_000.0, gt=0, le=1_000_000)
    trusted_proxies: Annotated[tuple[str, ...], NoDecode] = ()
    client_cert_header: str | None = Field(default=None, pattern=r"^[A-Za-z0-9-]{1,64}$")
    subject_removal_grace_s: float = Field(default=24 * 3600.0, ge=0, le=30 * 24 * 3600.0)
    scorer: str = "rules"
    evaluate_deadline_ms: float = Field(default=20.0, ge=1.0, le=10_000.0)
    log_level: Literal["debug", "info", "warning", "error"] = "info"
    dev_insecure: bool = False

    @model_validator(mode="before")
    @classmethod
    def _split_lists(cls, values: Any) -> Any:
        if not isinstance(values, dict):
            return values
        split = {
            name: tuple(entry.strip() for entry in values[name].split(",") if entry.strip())
            for name in ("egress_allow", "trusted_proxies")
            if isinstance(values.get(name), str)
        }
        return {**values, **split}

    @field_validator("trusted_proxies")
    @classmethod
    def _check_networks(cls, networks: tuple[str, ...]) -> tuple[str, ...]:
        for network in networks:
            ipaddress.ip_network(network)
        return networks

    @field_validator("scorer")
    @classmethod
    def _check_scorer(cls, name: str) -> str:
        # Imported here: it brings all of risk along, half a second for every command.
        from risk.scoring.service import scorer_named  # noqa: PLC0415

        scorer_named(name)
        return name

    @model_validator(mode="after")
    def _agree(self) -> Settings:
        if self.secret_key and len(self.secret_key.get_secret_value()) < SECRET_KEY_CHARACTERS_MIN:
            raise ValueError(f"secret_key: at least {SECRET_KEY_CHARACTERS_MIN} characters")
        if self.secret_key is None and not self.embedded:
            # Nodes that share a database must share the key, so none is made up for them.
            raise ValueError("secret_key: must be set when database_url is PostgreSQL")
        if self.issuer and self.issuer.startswith("http:") and not self.dev_insecure:
            raise ValueError("issuer: must be https (http needs SIGNALHUB_DEV_INSECURE=true)")
        if self.issuer is None and not is_loopback(self.host):
            raise ValueError("issuer: must be set when host is not a loopback address")
        if (self.tls_cert is None) != (self.tls_key is None):
            raise ValueError("tls_cert: set both tls_cert and tls_key, or neither")
        if self.tls_client_ca is not None and self.tls_cert is None:
            raise ValueError("tls_client_ca: needs tls_cert and tls_key")
        if self.client_cert_header is not None and not self.trusted_proxies:
            raise ValueError("client_cert_header: needs trusted_proxies, whose word it is")
        return self

    @property
    def embedded(self) -> bool:
        """Whether the database is SQLite, migrated on start."""
        return self.database_url.startswith("sqlite")

    @property
    def tls(self) -> CertificateFiles | None:
        """The files of the hub's own TLS; None when it serves plain HTTP, as behind a proxy."""
        if self.tls_cert is None or self.tls_key is None:
            return None
        authority = str(self.tls_client_ca) if self.tls_client_ca else None
        return CertificateFiles(
            certificate=str(self.tls_cert), key=str(self.tls_key), client_authority=authority
        )

    def issuer_at(self, port: int) -> str:
        """Return the issuer, made of address and port where none is set."""
        scheme = "https" if self.tls else "http"
        return self.issuer or f"{scheme}://{self.host}:{port}"

    @classmethod
    @override
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Order: what the command line says, the environment, the file."""
        file = TomlConfigSettingsSource(settings_cls, toml_file=_config_file())
        return init_settings, env_settings, file


def load_settings(**given: Any) -> Settings:
    """Return the settings; `given` (from the command line) wins. Raises SettingsError."""
    _refuse_unknown_variables()
    _check_file()
    try:
        settings = Settings(**{name: value for name, value in given.items() if value is not None})
    except ValidationError as error:
        lines = [
            _told(item["loc"], item["msg"])
            for item in error.errors(include_input=False, include_url=False)
        ]
        raise SettingsError("; ".join(lines)) from error
    if settings.issuer is None:
        if "dev_insecure" in settings.model_fields_set and not settings.dev_insecure:
            raise SettingsError(
                f"{PREFIX}ISSUER: must be set, because {PREFIX}DEV_INSECURE is false"
            )
        # Nothing configured, loopback only: the development mode of a first start (contracts §12).
        return settings.model_copy(update={"dev_insecure": True})
    return settings


def _told(place: tuple[int | str, ...], message: str) -> str:
    """Return one problem as the operator reads it: which variable, and what is wrong."""
    text = message.removeprefix("Value error, ")
    if place:
        return f"{PREFIX}{'.'.join(str(part) for part in place).upper()}: {text}"
    # A rule over several settings begins with the name of the one to change.
    name, _, rest = text.partition(":")
    return f"{PREFIX}{name.upper()}:{rest}"


def _config_file() -> Path:
    return Path(os.environ.get(CONFIG_FILE_VARIABLE, "signalhub.toml"))


def _check_file() -> None:
    """Refuse a file that is named and missing, or that is no TOML. Raises SettingsError."""
    file = _config_file()
    try:
        tomllib.loads(file.read_text())
    except FileNotFoundError as error:
        if CONFIG_FILE_VARIABLE in os.environ:
            raise SettingsError(f"{CONFIG_FILE_VARIABLE}: there is no file {file}") from error
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise SettingsError(f"{file}: not readable as TOML ({error})") from error


def is_loopback(host: str) -> bool:
    """Return whether `host` is an address of this machine only."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _refuse_unknown_variables() -> None:
    known = {PREFIX + name.upper() for name in Settings.model_fields} | FOREIGN_VARIABLES
    unknown = sorted(
        name for name in os.environ if name.upper().startswith(PREFIX) and name.upper() not in known
    )
    if unknown:
        raise SettingsError(
            f"unknown setting {', '.join(unknown)}; known are {', '.join(sorted(known))}"
        )
