"""Settings, read once in entry points and passed on as values.

Every setting can be given in the environment, as `ORCHESTRATOR_<NAME>` or by the name in its `alias`.
"""

import re
from datetime import timedelta
from enum import StrEnum
from typing import Annotated, Literal

import orjson
from pydantic import AliasChoices, BeforeValidator, Field, SecretStr, ValidationInfo, field_validator
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

from orchestrator.encryption import Vault
from orchestrator.errors import ConfigurationError
from orchestrator.pricing import Price
from orchestrator.store.apart import DEFAULT_THRESHOLD, Apart, Mode
from orchestrator.store.pool import Pooler
from orchestrator.store.row_security import TENANT_ROLE, RowSecurityMode
from queues.addresses import is_redis
from queues.sentinel import Sentinels, is_sentinel
from sequences.durations import parse_duration


def _duration(value: object) -> object:
    """Read a duration as people write it in an environment: `6`, `0.5` (seconds), `6s`, `500ms`, `PT6S`."""
    if not isinstance(value, str):
        return value
    try:
        return timedelta(seconds=float(value))
    except (ValueError, OverflowError):
        return parse_duration(value)


Duration = Annotated[timedelta, BeforeValidator(_duration)]


_LEVELS = {"TRACE": "DEBUG", "WARN": "WARNING", "CRITICAL": "ERROR"}
"""Names of levels elsewhere, and ours."""


class ReadyNeed(StrEnum):
    """What an API may need in order to be ready, beside the database and the loops."""

    REDIS = "redis"
    BROKER = "broker"
    WORKERS = "workers"


class Settings(BaseSettings):
    """All settings of all processes, with their units, defaults and reasons."""

    model_config = SettingsConfigDict(
        env_prefix="ORCHESTRATOR_", env_ignore_empty=True, extra="ignore", populate_by_name=True
    )

    database_url: str = Field(
        "",
        validation_alias=AliasChoices("DATABASE_URL", "ORCHESTRATOR_DATABASE_URL", "ORCH8_DATABASE_URL"),
        description="PostgreSQL, the only truth",
    )
    database_pooler: Pooler = Field(
        Pooler.SESSION,
        validation_alias=AliasChoices("DATABASE_POOLER", "ORCHESTRATOR_DATABASE_POOLER"),
        description="`transaction` behind PgBouncer in transaction mode; `session` without a pooler",
    )
    row_security: RowSecurityMode = Field(
        RowSecurityMode.AUTO,
        description="row-level security behind the queries of tenants: `auto` uses it where the role `tenant_role` is "
        "there, `required` serves no tenant without it, `off` leaves it out",
    )
    tenant_role: str = Field(
        TENANT_ROLE,
        pattern=r"^[a-z_][a-z0-9_]{0,62}$",
        description="role of PostgreSQL that is taken to read for one tenant; `orchestrator migrate` makes it if its "
        "account may",
    )
    redis_url: str = Field(
        "",
        validation_alias=AliasChoices("REDIS_URL", "ORCHESTRATOR_REDIS_URL", "ORCH8_REDIS_URL"),
        description="Redis for hints and the mark that shows when it was emptied; may be emptied at any moment; behind "
        "Sentinels `sentinel://:password@one:26379/0;sentinel://two:26379#primary`; not needed beside RabbitMQ",
    )
    broker_url: str = Field(
        "",
        validation_alias=AliasChoices("BROKER_URL", "ORCHESTRATOR_BROKER_URL"),
        description="Celery broker: Redis, or RabbitMQ (`amqp://`); the Redis of `redis_url` when empty",
    )
    installation: str = Field(
        "",
        pattern=r"^[A-Za-z0-9_.-]*$",
        description="name that the keys of this installation in Redis carry; by default the id that its database "
        "keeps. Set it where a database is a copy of another one and both use the same Redis",
    )
    http_address: str = Field(
        "127.0.0.1:8080",
        validation_alias=AliasChoices("ORCHESTRATOR_HTTP_ADDRESS", "ORCH8_HTTP_ADDR"),
        description="Address the API listens on",
    )
    run_migrations: bool = Field(
        default=True,
        validation_alias=AliasChoices("ORCHESTRATOR_RUN_MIGRATIONS", "ORCH8_RUN_MIGRATIONS"),
        description="lets `orchestrator api` bring the database up to date before it serves",
    )
    await_migrations: bool = Field(
        default=False,
        description="lets a process that does not migrate the database wait for the one that does, for a minute",
    )
    tick_interval_ms: int | None = Field(
        None,
        ge=0,
        validation_alias=AliasChoices("ORCHESTRATOR_TICK_INTERVAL_MS", "ORCH8_TICK_INTERVAL_MS"),
        description="how late an idle loop may see what is due, 100 by default; set, it also delays the first pick-up "
        "of a new instance, so that clients can still change it",
    )
    loop_batch: int = Field(
        256,
        ge=1,
        validation_alias=AliasChoices("ORCHESTRATOR_LOOP_BATCH", "ORCH8_BATCH_SIZE"),
        description="instances that one round of a loop handles at the most",
    )
    max_instances_per_tenant: int = Field(
        0,
        ge=0,
        validation_alias=AliasChoices("ORCHESTRATOR_MAX_INSTANCES_PER_TENANT", "ORCH8_MAX_INSTANCES_PER_TENANT"),
        description="steps of one tenant that one round of the dispatcher lets go; 0 for no limit beside fairness",
    )
    max_concurrent_steps: int = Field(
        128,
        ge=1,
        validation_alias=AliasChoices("ORCHESTRATOR_MAX_CONCURRENT_STEPS", "ORCH8_MAX_CONCURRENT_STEPS"),
        description="steps that one worker process runs at once at the most, whatever `--concurrency` says; "
        "coroutines are counted apart (`async_capacity`)",
    )
    cron_tick: Duration = Field(
        timedelta(seconds=10),
        gt=timedelta(0),
        validation_alias=AliasChoices("ORCHESTRATOR_CRON_TICK", "ORCH8_CRON_TICK_SECS"),
        description="how soon at the latest the loops see a new cron schedule; known ones fire when they are due",
    )
    heartbeat: Duration = Field(timedelta(seconds=2), description="how often a worker process says that it lives")
    dead_after: Duration = Field(
        timedelta(seconds=6), description="three missed heartbeats of 2 s; claims of the dead run again within 8 s"
    )
    task_lease: Duration = Field(
        timedelta(seconds=60),
        validation_alias=AliasChoices("ORCHESTRATOR_TASK_LEASE", "ORCH8_WORKER_REAPER_STALE_SECS"),
        description="how long an HTTP worker may be silent before its task goes back to the queue",
    )
    task_reaper_tick: Duration = Field(
        timedelta(seconds=0.5),
        validation_alias=AliasChoices("ORCHESTRATOR_TASK_REAPER_TICK", "ORCH8_WORKER_REAPER_TICK_SECS"),
        description="how often tasks of silent HTTP workers are looked for",
    )
    node_reaper_tick: Duration = Field(
        timedelta(seconds=60),
        validation_alias=AliasChoices("ORCHESTRATOR_NODE_REAPER_TICK", "ORCH8_NODE_REAPER_TICK_SECS"),
        description="how often worker processes that have died are looked for, to take them off the list",
    )
    node_stale_after: Duration = Field(
        timedelta(seconds=120),
        validation_alias=AliasChoices("ORCHESTRATOR_NODE_STALE_AFTER", "ORCH8_NODE_REAPER_STALE_SECS"),
        description="how long the row of a worker process that has died is kept; its claims are taken long before "
        "(`dead_after`)",
    )
    instance_retention: Duration | None = Field(
        None,
        validation_alias=AliasChoices("ORCHESTRATOR_INSTANCE_RETENTION", "ORCH8_INSTANCE_RETENTION_SECS"),
        description="instances that ended so long ago are deleted with everything of them; unset or 0: never",
    )
    shutdown_grace: Duration | None = Field(
        None,
        description="how long a worker that is told to end lets steps run before it stops them and gives them back; "
        "unset: as long as they take",
    )
    hint_lease: Duration = Field(
        timedelta(seconds=15), description="a hint that no claim has answered for so long is sent again"
    )
    max_hints: int = Field(20, description="hints without a claim before a step is reported as unclaimed")
    hints_per_slot: int = Field(2, description="hints kept out for each worker slot of a queue; the rest waits here")
    max_losses: int = Field(3, description="worker deaths that park a step as poison")
    max_context_bytes: int = Field(262_144, description="limit of a serialized context (contract §2.3)")
    max_output_bytes: int = Field(8 * 1024 * 1024, description="limit of one output")
    externalize_threshold: int = Field(
        DEFAULT_THRESHOLD,
        ge=0,
        validation_alias=AliasChoices("ORCHESTRATOR_EXTERNALIZE_THRESHOLD", "ORCH8_EXTERNALIZE_THRESHOLD"),
        description="bytes above which an output, or a member of the data, is stored apart; 0 for never",
    )
    externalize_outputs: Mode = Field(
        Mode.THRESHOLD, description="which outputs are stored apart: `never`, those above the `threshold`, `always`"
    )
    max_body_bytes: int = Field(10 * 1024 * 1024, description="limit of a request body (contract, api §1)")
    body_timeout: Duration = Field(
        timedelta(seconds=60),
        description="how long the body of a request may take to arrive: one that never ends holds a place of others",
    )
    time_slice: Duration = Field(
        timedelta(seconds=5), description="how long a worker carries on before it lets others have the queue"
    )
    carry_on_steps: int = Field(100, description="steps of one instance a worker runs in a row at the most")
    batch_size: int = Field(32, ge=1, description="steps of built-in instant handlers run and committed at once")
    async_capacity: int = Field(1000, description="coroutine handlers awaiting at once in one worker process")
    allow_internal_urls: bool = Field(
        default=False,
        validation_alias=AliasChoices("ORCHESTRATOR_ALLOW_INTERNAL_URLS", "ORCH8_ALLOW_INTERNAL_URLS"),
        description="lets handlers call private addresses, if it is `true` or `1`; for tests and intranets",
    )
    webhook_urls: Annotated[tuple[str, ...], NoDecode] = Field(
        (),
        validation_alias=AliasChoices("ORCHESTRATOR_WEBHOOK_URLS", "ORCH8_WEBHOOK_URLS"),
        description="addresses told of ended instances and breached SLAs, separated by commas; the same everywhere",
    )
    webhook_secret: str = Field(
        "",
        validation_alias=AliasChoices("ORCHESTRATOR_WEBHOOK_SECRET", "ORCH8_WEBHOOK_SECRET"),
        description="signs what is sent to `webhook_urls`; unsigned when empty",
    )
    webhook_second_secret: str = Field(
        "",
        validation_alias=AliasChoices("ORCHESTRATOR_WEBHOOK_SECOND_SECRET", "ORCH8_WEBHOOK_SECOND_SECRET"),
        description="signs the same once more, in a header of its own, while receivers change from one to the other",
    )
    allow_deprecated_instances: bool = Field(
        default=False,
        validation_alias=AliasChoices("ORCHESTRATOR_ALLOW_DEPRECATED_INSTANCES", "ORCH8_ALLOW_DEPRECATED_INSTANCES"),
        description="lets a deprecated version be started by its id",
    )
    poll_any_queue: bool = Field(
        default=False,
        validation_alias=AliasChoices("ORCHESTRATOR_POLL_ANY_QUEUE", "ORCH8_POLL_ANY_QUEUE"),
        description="lets a plain poll take tasks of named queues",
    )
    require_tenant_header: bool = Field(
        default=True,
        validation_alias=AliasChoices("ORCHESTRATOR_REQUIRE_TENANT_HEADER", "ORCH8_REQUIRE_TENANT_HEADER"),
        description="refuses requests that do not name a tenant",
    )
    api_key: str = Field(
        "",
        validation_alias=AliasChoices("ORCHESTRATOR_API_KEY", "ORCH8_API_KEY"),
        description="root key of the API; without one the server must be started with --insecure",
    )
    api_key_peppers: Annotated[tuple[str, ...], NoDecode] = Field(
        (),
        description="secrets mixed into what is stored of tenant keys, separated by commas: new keys take the first, "
        "keys of the others stay known; `plain` stands for keys made without one",
    )
    encryption_key: SecretStr = Field(
        SecretStr(""),
        validation_alias=AliasChoices("ORCHESTRATOR_ENCRYPTION_KEY", "ORCH8_ENCRYPTION_KEY"),
        description="64 hex characters: seals what is stored; the same in all processes; without one the server must "
        "be started with --insecure-storage",
    )
    old_encryption_key: SecretStr = Field(
        SecretStr(""),
        validation_alias=AliasChoices("ORCHESTRATOR_OLD_ENCRYPTION_KEY", "ORCH8_OLD_ENCRYPTION_KEY"),
        description="64 hex characters: the former key, for reading until everything has been sealed again",
    )
    key_requests_per_second: int = Field(
        0,
        ge=0,
        description="requests of one tenant key that all API processes together take in any second, others get 429; "
        "each for itself while Redis does not answer; 0 for no limit, and the root key has none",
    )
    allow_no_tenant_isolation: bool = Field(
        default=False,
        validation_alias=AliasChoices("ORCHESTRATOR_ALLOW_NO_TENANT_ISOLATION", "ORCH8_ALLOW_NO_TENANT_ISOLATION"),
        description="allows an API key together with requests that name no tenant",
    )
    cors_origins: Annotated[tuple[str, ...], NoDecode] = Field(
        (),
        validation_alias=AliasChoices("ORCHESTRATOR_CORS_ORIGINS", "ORCH8_CORS_ORIGINS"),
        description="origins of browsers that may call the API, separated by commas; none by default",
    )
    max_concurrent_requests: int = Field(
        1024,
        ge=0,
        validation_alias=AliasChoices("ORCHESTRATOR_MAX_CONCURRENT_REQUESTS", "ORCH8_MAX_CONCURRENT_REQUESTS"),
        description="requests worked on at once, the others wait; 0 for no limit (contract, api §1)",
    )
    max_streams: int = Field(
        256,
        ge=0,
        validation_alias=AliasChoices("ORCHESTRATOR_MAX_STREAMS", "ORCH8_MAX_STREAMS"),
        description="event streams that one API process keeps open, of instances and of changes together",
    )
    ready_without_service: bool = Field(
        default=False, description="lets this API report itself as ready although no service loops run beside it"
    )
    ready_needs: Annotated[tuple[ReadyNeed, ...], NoDecode] = Field(
        (),
        description="what else this API needs in order to be ready, separated by commas: `redis`, `broker`, "
        "`workers`; "
        "`orchestrator server` sets it to what it runs",
    )
    log_level: Literal["DEBUG", "INFO", "WARNING", "ERROR"] = Field(
        "INFO",
        validation_alias=AliasChoices("ORCHESTRATOR_LOG_LEVEL", "ORCH8_LOG_LEVEL"),
        description="least severe events that are logged; `warn`, `trace` and lower case are understood",
    )
    env_label: str = Field(
        "",
        validation_alias=AliasChoices("ORCHESTRATOR_ENV_LABEL", "ORCH8_ENV_LABEL"),
        description="name of the environment, shown by /info",
    )
    env_color: str = Field(
        "",
        validation_alias=AliasChoices("ORCHESTRATOR_ENV_COLOR", "ORCH8_ENV_COLOR"),
        description="colour of the environment, shown by /info",
    )
    model_pricing: Annotated[dict[str, Price], NoDecode] = Field(
        {},
        validation_alias=AliasChoices("ORCHESTRATOR_MODEL_PRICING", "ORCH8_MODEL_PRICING"),
        description="US dollars for a million tokens, laid over the built-in prices: JSON such as "
        '`{"my-model": {"input": 1.5, "output": 6}}`, by the beginning of a model\'s name',
    )
    imports: Annotated[tuple[str, ...], NoDecode] = Field(
        (),
        validation_alias=AliasChoices("ORCHESTRATOR_IMPORT"),
        description="modules with handlers, separated by commas",
    )
    step_events: bool = Field(default=True, description="tell Flower about every step")

    @field_validator("redis_url", "broker_url")
    @classmethod
    def _check_address(cls, value: str) -> str:
        if is_sentinel(value):
            Sentinels.of(value)
        return value

    @field_validator("allow_internal_urls", mode="before")
    @classmethod
    def _take_no_other_words(cls, value: object) -> object:
        """Lift a protection by `1` and `true` only (sequences §11): somebody may not have meant another word so."""
        words = {"1", "true", "0", "false", "no", "n", "off", "f"}
        if isinstance(value, str) and value.strip().lower() not in words:
            raise ValueError("expected `true` or `1` to lift the protection, or else `false`")
        return value

    @field_validator("log_level", mode="before")
    @classmethod
    def _level(cls, value: object) -> object:
        return _LEVELS.get(value.upper(), value.upper()) if isinstance(value, str) else value

    @field_validator("instance_retention")
    @classmethod
    def _zero_is_never(cls, value: timedelta | None) -> timedelta | None:
        return value or None

    @field_validator("imports", "cors_origins", "api_key_peppers", "ready_needs", "webhook_urls", mode="before")
    @classmethod
    def _split(cls, value: object) -> object:
        if not isinstance(value, str):
            return value
        return tuple(dict.fromkeys(name.strip() for name in value.split(",") if name.strip()))

    @field_validator("encryption_key", "old_encryption_key")
    @classmethod
    def _check_key(cls, value: SecretStr) -> SecretStr:
        if value.get_secret_value() and re.fullmatch(r"[0-9A-Fa-f]{64}", value.get_secret_value()) is None:
            raise ValueError("expected 64 hex characters")
        return value

    @field_validator("webhook_second_secret")
    @classmethod
    def _check_second(cls, value: str, others: ValidationInfo) -> str:
        if value and not others.data.get("webhook_secret"):
            raise ValueError("a second secret needs ORCHESTRATOR_WEBHOOK_SECRET")
        return value

    @property
    def vault(self) -> Vault | None:
        """What seals stored values; None without a key."""
        key, old = (bytes.fromhex(each.get_secret_value()) for each in (self.encryption_key, self.old_encryption_key))
        if not key and old:
            raise ConfigurationError("ORCH8_OLD_ENCRYPTION_KEY is set without ORCH8_ENCRYPTION_KEY")
        return Vault(key, (old,) if old else ()) if key else None

    @property
    def tick_seconds(self) -> float:
        """How late an idle loop may see what is due; loops may not spin."""
        return 0.1 if self.tick_interval_ms is None else max(0.01, self.tick_interval_ms / 1000)

    @field_validator("model_pricing", mode="before")
    @classmethod
    def _decode(cls, value: object) -> object:
        return orjson.loads(value or "{}") if isinstance(value, str) else value

    @property
    def apart(self) -> Apart:
        """What is stored apart."""
        return Apart(threshold=self.externalize_threshold, outputs=self.externalize_outputs)

    @property
    def celery_broker_url(self) -> str:
        """The broker that Celery connects to."""
        return self.broker_url or self.redis_url

    @property
    def redis_in_use(self) -> str:
        """The Redis that the installation uses: with the hints, or beside a broker that is no Redis; empty for none."""
        return self.celery_broker_url if is_redis(self.celery_broker_url) else self.redis_url
