"""All settings, from `LUTHIER_*` variables, then `luthier.toml`, then the defaults below.

`DATABASE_URL` and `REDIS_URL` are read under their customary names too.
"""

from __future__ import annotations

import os
import secrets
from functools import lru_cache
from pathlib import Path
from typing import Annotated, Literal

from pydantic import AliasChoices, Field, SecretStr, field_validator
from pydantic_settings import (
    BaseSettings,
    NoDecode,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
    TomlConfigSettingsSource,
)

MIN_SECRET_LENGTH = 16


class Settings(BaseSettings):
    model_config = SettingsConfigDict(
        env_prefix="LUTHIER_",
        toml_file="luthier.toml",
        extra="ignore",
        env_nested_delimiter="__",
        populate_by_name=True,
        protected_namespaces=(),
    )

    data_dir: Path = Path("luthier-data")
    """Everything the service keeps on this machine lies below it."""
    host: str = "127.0.0.1"
    port: int = 8000

    database_url: str | None = Field(
        None, validation_alias=AliasChoices("LUTHIER_DATABASE_URL", "DATABASE_URL")
    )
    redis_url: str | None = Field(
        None, validation_alias=AliasChoices("LUTHIER_REDIS_URL", "REDIS_URL")
    )
    storage_url: str | None = None
    """`file:///path` or `s3://bucket/prefix`; None is `DATA_DIR/storage`."""
    s3_endpoint: str | None = None
    s3_region: str = "us-east-1"
    s3_access_key_id: str | None = None
    s3_secret_access_key: SecretStr | None = None
    secret: SecretStr | None = None
    """Keys the HMAC under which API keys are stored. None: made once, in `DATA_DIR/secret`."""

    base_models: dict[str, Path] = Field(default_factory=dict)
    """Folders of models registered by the administrator: name → path, equal on every worker."""
    hub: bool = True
    """Whether Hugging Face ids may be looked up on the hub. Registered and packaged models and
    those in the local hub cache work without."""
    hub_timeout_seconds: float = 5.0

    hf_datasets: bool = False
    """Whether jobs may name datasets of the hub (`hf://datasets/…`), fetched by the control
    workers without a token."""
    data_folders: Annotated[dict[str, Path], NoDecode] = Field(default_factory=dict)
    """Folders whose files every project may name (`folder://NAME/…`): `NAME=/path,…`, at the same
    path on every control worker."""

    mlflow_tracking_uri: str | None = None
    """Where jobs with an MLflow integration report to; its credentials come from MLflow's own
    variables (`MLFLOW_TRACKING_USERNAME`, …) in a worker's environment."""
    mlflow_allowed_uris: Annotated[list[str], NoDecode] = Field(default_factory=list)
    """Others that a job may name, with commas between them."""
    wandb_api_key: SecretStr | None = None
    """Of Weights & Biases, for all jobs that report there."""
    wandb_base_url: str = "https://api.wandb.ai"
    wandb_offline: bool = False
    """Keep runs of Weights & Biases in `DATA_DIR/worker/wandb`, to be sent by `wandb sync`."""

    max_upload_bytes: int = 16 * 1024**3
    max_body_bytes: int = 1024**2
    token_cache_bytes: int = Field(16 * 1024**3, ge=0)
    """What encoded rows may take of a worker's disk between jobs; 0 keeps none. What was not used
    for longest goes first."""
    dataset_cache_bytes: int = Field(64 * 1024**3, ge=0)
    """What prepared data sets may take of a worker's disk between jobs, likewise. Those of the last
    hour stay in any case."""
    hub_cache_bytes: int = Field(128 * 1024**3, ge=0)
    """What base models of the hub may take of a worker's disk, likewise, by whole revisions. Those
    in use stay in any case."""
    max_job_tokens: int = 10**12
    """Bounds steps x batch x length of one job, so that no spec asks for a run without end."""

    lease_seconds: float = 30.0
    heartbeat_seconds: float = 5.0
    reconcile_seconds: float = 5.0
    clean_seconds: float = 300.0
    grace_seconds: float = 120.0
    """What a worker may take on SIGTERM to save and hand its job back."""
    stop_upload_seconds: float = Field(60.0, ge=0)
    """How long a pause, a cancel that saves, or a worker's end waits, once the trainer has stopped,
    for an object storage that takes no byte of the last checkpoint."""
    cpu_ranks: int = Field(1, ge=1, le=64)
    """Processes that share a job on this worker's CPU, as GPUs do one on theirs. More than one may
    pay on a machine with several sockets."""
    max_job_seconds: float = 30 * 86400.0
    """How long a job may run, all its attempts together; then it ends with `time_limit`."""
    checkpoint_keep_last: int = Field(3, ge=1)
    """Published checkpoints that a job keeps beside its best one."""
    checkpoint_keep_every: int | None = Field(None, ge=1)
    """Keep those of every so many steps as well, for ever."""
    orphan_seconds: float = 86400.0
    """Age at which bytes that nothing refers to are removed: uploads that were cut off, attempts
    that were lost. Above the longest upload, or that is taken for one."""
    prepared_data_seconds: float = 7 * 86400.0
    """How long what a validation prepared of a file is kept for jobs to come; at most until the
    file is deleted."""
    estimate_wait_seconds: float = 5.0
    """How long an estimate waits for the check of its files, if that has yet to end."""
    prediction_model_bytes: int = 2 * 1024**3
    """The largest model that POST /v1/predictions tries on a control worker."""
    prediction_memory_bytes: int = 8 * 1024**3
    """What the process that does so may take, of address space."""
    prediction_seconds: float = 180.0
    """And for how long."""
    max_failures: int = 100
    """Interruptions (machines lost, workers killed) after which a job is given up, however much
    progress it makes between them."""
    broker_timeout_seconds: float = 1.0

    outgoing_allow: Annotated[list[str], NoDecode] = Field(default_factory=list)
    """Host names, addresses and networks that users' webhooks may reach though they are not public,
    with commas between them; over plain HTTP too."""
    webhook_timeout_seconds: float = Field(15.0, gt=0)
    """How long a receiver may take to answer."""
    webhook_test_seconds: float = 20.0
    """How long a call that tests a webhook endpoint waits for what its receiver answered: above
    `webhook_timeout_seconds`."""
    webhook_retry_seconds: list[float] = Field(
        default_factory=lambda: [5.0, 300.0, 1800.0, 7200.0, 18e3, 36e3, 50400.0, 72e3, 86400.0]
    )
    """The waits before each further try of a delivery: over three days, as Standard Webhooks
    advises. After the last one it has failed."""
    webhook_disable_seconds: float = 5 * 86400.0
    """An endpoint that has answered nothing well for so long is disabled at its next failure."""
    webhook_log_seconds: float = 30 * 86400.0
    """How long deliveries that have ended are kept to be looked at."""

    otlp_endpoint: str | None = Field(
        None,
        validation_alias=AliasChoices("LUTHIER_OTLP_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT"),
    )
    """The collector that traces are sent to by OTLP over HTTP, such as `http://collector:4318`."""
    metrics_token: SecretStr | None = None
    """Opens `GET /metrics`. None: made once, in `DATA_DIR/metrics_token`."""
    log_format: Literal["text", "json"] = "text"
    log_level: str = "INFO"

    @field_validator("outgoing_allow", mode="before")
    @classmethod
    def _words(cls, value: object) -> object:
        if not isinstance(value, str):
            return value
        return [word.strip() for word in value.split(",") if word.strip()]

    @field_validator("mlflow_allowed_uris", mode="before")
    @classmethod
    def _listed(cls, value: object) -> object:
        if not isinstance(value, str):
            return value
        return [part.strip() for part in value.split(",") if part.strip()]

    @field_validator("data_folders", mode="before")
    @classmethod
    def _pairs(cls, value: object) -> object:
        if not isinstance(value, str):
            return value
        pairs = [pair.strip() for pair in value.split(",") if pair.strip()]
        if not all("=" in pair for pair in pairs):
            raise ValueError("write NAME=/path, several with commas between them")
        return dict(pair.split("=", 1) for pair in pairs)

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        return init_settings, env_settings, TomlConfigSettingsSource(settings_cls)

    def require_database_url(self) -> str:
        if not self.database_url:
            raise SystemExit(
                "DATABASE_URL is not set. Point it at a PostgreSQL 15 or newer, such as "
                "postgresql://user:password@host/luthier, or run `luthier-server up`, "
                "which brings its own."
            )
        return self.database_url

    def require_redis_url(self) -> str:
        if not self.redis_url:
            raise SystemExit(
                "REDIS_URL is not set. Point it at a Redis or Valkey, such as "
                "redis://host:6379/0, or run `luthier-server up`, which brings its own."
            )
        return self.redis_url

    def resolved_storage_url(self) -> str:
        return self.storage_url or (self.data_dir.resolve() / "storage").as_uri()

    def signing_secret(self) -> bytes:
        """The HMAC key. On one machine it is made on first use; a fleet must set it."""
        if self.secret is not None:
            value = self.secret.get_secret_value()
            if len(value) < MIN_SECRET_LENGTH:
                raise SystemExit(
                    f"LUTHIER_SECRET is shorter than {MIN_SECRET_LENGTH} characters. "
                    "Make one with: openssl rand -hex 32"
                )
            return value.encode()
        return _made_once(self.data_dir / "secret")

    def scrape_token(self) -> bytes:
        """What `GET /metrics` asks for; each machine of a fleet makes its own if none is set."""
        if self.metrics_token is not None:
            return self.metrics_token.get_secret_value().encode()
        return _made_once(self.data_dir / "metrics_token")


def _made_once(path: Path) -> bytes:
    """A secret of this machine's own."""
    if not path.exists():
        write_private(path, secrets.token_hex(32))
    return path.read_text().strip().encode()


def write_private(path: Path, text: str) -> None:
    """Write a file that only its owner may read, whole or not at all. The first writer wins."""
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f".{path.name}.{os.getpid()}")
    with open(os.open(part, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w") as file:
        file.write(text)
    try:
        os.link(part, path)
    except FileExistsError:
        pass
    finally:
        part.unlink()


@lru_cache
def get_settings() -> Settings:
    """This process's settings, read once."""
    return Settings()
