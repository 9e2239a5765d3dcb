"""Commands that run the processes of an installation.

What they need is imported inside of them: `orchestrator --help` must not wait for FastAPI and Celery.
"""

import importlib
import importlib.util
import os
import sys
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from orchestrator.collector import importing
from orchestrator.errors import ConfigurationError
from orchestrator.whose import check_packages

if TYPE_CHECKING:
    from orchestrator.settings import Settings

PROCESSES = "Processes"
_APP = "workers"
"""The module of the Celery app."""

Queues = Annotated[str, typer.Option("--queues", "-Q", help="Queues to serve, separated by commas.")]
Imports = Annotated[
    list[str] | None,
    typer.Option("--import", help="Module with handlers; repeatable, beside those of ORCHESTRATOR_IMPORT."),
]


Host = Annotated[str | None, typer.Option(help="Address; by default that of ORCHESTRATOR_HTTP_ADDRESS.")]
Port = Annotated[int | None, typer.Option(help="Port; by default that of ORCHESTRATOR_HTTP_ADDRESS.")]
Concurrency = Annotated[
    int | None, typer.Option("--concurrency", "-c", min=1, help="Steps run at once; by default one per processor.")
]
Insecure = Annotated[bool, typer.Option("--insecure", help="Ask nobody for a key, and need none for what is stored.")]
InsecureAuth = Annotated[bool, typer.Option("--insecure-auth", help="Ask nobody for a key.")]
InsecureStorage = Annotated[bool, typer.Option("--insecure-storage", help="Need no key for what is stored.")]


class Pool(StrEnum):
    """How a worker runs several steps at once."""

    PREFORK = "prefork"
    THREADS = "threads"
    SOLO = "solo"


def add_to(app: typer.Typer) -> None:
    """Add the commands of this module."""
    for command in (dev, server, api, service, worker, flower, migrate):
        app.command(rich_help_panel=PROCESSES)(command)
    app.command("rotate-encryption", rich_help_panel=PROCESSES)(rotate_encryption)
    app.command(rich_help_panel=PROCESSES)(restored)


def migrate(
    to: Annotated[
        str | None, typer.Option(metavar="REVISION", help="Go to this migration, back too; by default to the newest.")
    ] = None,
) -> None:
    """Bring the database of DATABASE_URL to the schema of this version; safe to repeat and to run twice at once.

    With --to it also goes back, which drops what the newer migrations have added: for a roll-back to an older version.
    """
    from orchestrator.store import migrate as migrations  # noqa: PLC0415 - slow
    from orchestrator.store.row_security import RowSecurityMode, remedy  # noqa: PLC0415 - slow

    settings = _settings()
    url = _database_url(settings)
    before = migrations.current(url)
    target = migrations.head() if to is None else to
    fault = None
    if to is None or migrations.is_newer(target, before):
        fault = migrations.upgrade(url, target, tenant_role=settings.tenant_role)
    else:
        migrations.downgrade(url, target, tenant_role=settings.tenant_role)
    after = migrations.current(url)
    typer.echo(f"the database stands at {after} already" if before == after else f"the database went to {after}")
    if fault is not None and settings.row_security is not RowSecurityMode.OFF:
        typer.echo(f"row-level security is not used: {fault}; {remedy(settings.tenant_role)}", err=True)


def restored() -> None:
    """Make the database of DATABASE_URL, restored from a backup or copied, an installation of its own.

    Run it once before the first process starts: hints of the former installation in the same Redis, and late reports
    for claims that were made after the moment that was restored, are then refused.
    """
    from orchestrator.store import installation  # noqa: PLC0415 - slow
    from orchestrator.store.postgres import PostgresStore  # noqa: PLC0415 - slow

    settings = _settings()
    store = PostgresStore(_database_url(settings), pooler=settings.database_pooler, vault=settings.vault)
    try:
        with store.transaction() as tx:
            name = installation.begin_anew(tx, 2 * settings.dead_after)
    finally:
        store.close()
    typer.echo(f"this is installation {name} from now on: start its processes")


def rotate_encryption() -> None:
    """Seal what is stored with ORCH8_ENCRYPTION_KEY: what ORCH8_OLD_ENCRYPTION_KEY has sealed, and what nobody has.

    While everything runs, in pages; broken off, it is run again. Before it all processes must know both keys.
    """
    from orchestrator.store.postgres import PostgresStore  # noqa: PLC0415 - slow
    from orchestrator.store.sealed import seal_everything  # noqa: PLC0415 - slow

    settings = _settings()
    if settings.vault is None:
        raise ConfigurationError("ORCH8_ENCRYPTION_KEY is not set: there is nothing to encrypt with")
    store = PostgresStore(_database_url(settings), pooler=settings.database_pooler, vault=settings.vault)
    try:
        store.try_out()
        typer.echo(f"{seal_everything(store, settings.vault)} rows were sealed; the old key is not needed any more")
    finally:
        store.close()


def api(
    host: Host = None,
    port: Port = None,
    insecure: Insecure = False,
    insecure_auth: InsecureAuth = False,
    insecure_storage: InsecureStorage = False,
    share_port: Annotated[
        bool, typer.Option("--share-port", help="Let other processes with this option serve the same port.")
    ] = False,
) -> None:
    """Serve the HTTP interface. Migrates the database first, unless ORCH8_RUN_MIGRATIONS is false."""
    with importing():
        from orchestrator.server import serve  # noqa: PLC0415 - slow

    settings = _begin()
    _bring_up_to_date(settings)
    default_host, default_port = _address(settings.http_address)
    serve(
        settings,
        host=host or default_host,
        port=default_port if port is None else port,
        shares_port=share_port,
        is_insecure=insecure or insecure_auth,
        stores_openly=insecure or insecure_storage,
    )


def server(
    host: Host = None,
    port: Port = None,
    insecure: Insecure = False,
    insecure_auth: InsecureAuth = False,
    insecure_storage: InsecureStorage = False,
    queues: Queues = "default",
    concurrency: Concurrency = None,
    workers: Annotated[int, typer.Option(min=0, help="How many worker processes.")] = 1,
    api_processes: Annotated[int, typer.Option(min=1, help="How many processes serve the API, on one port.")] = 1,
    imports: Imports = None,
    without: Annotated[
        list[str] | None, typer.Option(help="Leave a part out: api, loops or workers; repeatable.")
    ] = None,
) -> None:
    """Run API, loops and workers under one supervisor, over the servers of DATABASE_URL and REDIS_URL.

    Migrates the database first, unless ORCH8_RUN_MIGRATIONS is false. SIGTERM ends everything within five seconds;
    steps that are still running then are given back, and run again.
    """
    from orchestrator.all_in_one import Part, ServerOptions, run  # noqa: PLC0415 - slow

    settings = _begin()
    _database_url(settings)
    _broker_url(settings)
    check_packages()
    try:
        left_out = {Part(name) for name in without or ()}
    except ValueError as error:
        raise typer.BadParameter(f"{error}; name api, loops or workers", param_hint="--without") from error
    default_host, default_port = _address(settings.http_address)
    options = ServerOptions(
        host=host or default_host,
        port=default_port if port is None else port,
        is_insecure=insecure or insecure_auth,
        stores_openly=insecure or insecure_storage,
        parts=frozenset(Part) - left_out,
        workers=workers,
        api_processes=api_processes,
        queues=_names(queues),
        concurrency=concurrency,
        imports=tuple(imports or ()),
    )
    raise typer.Exit(run(options, settings))


def service() -> None:
    """Run the background loops: fair dispatch, timers, recovery. Any number of these may run."""
    with importing():
        from orchestrator.service import run  # noqa: PLC0415 - slow
    from orchestrator.store.migrate import check, wait_for_upgrade  # noqa: PLC0415 - slow

    settings = _begin()
    _broker_url(settings)
    url = _database_url(settings)
    if settings.await_migrations:
        wait_for_upgrade(url)
    check(url)
    raise typer.Exit(run(settings))


def worker(
    queues: Queues = "default",
    concurrency: Concurrency = None,
    imports: Imports = None,
    name: Annotated[
        str | None, typer.Option(help="Name of the node; made from the process number if not given.")
    ] = None,
    pool: Annotated[
        Pool, typer.Option(help="prefork can stop a handler that hangs; threads suit handlers that wait for others.")
    ] = Pool.PREFORK,
    loglevel: Annotated[
        str | None, typer.Option(help="DEBUG, INFO, WARNING or ERROR; by default that of ORCH8_LOG_LEVEL.")
    ] = None,
    quiet: Annotated[bool, typer.Option("--quiet", help="Leave out Celery's banner.")] = False,
) -> None:
    """Run steps: a Celery worker on the given queues, with the built-in handlers and those of the imported modules."""
    settings = _settings()
    _database_url(settings)
    _broker_url(settings)
    if loglevel is not None:
        os.environ["ORCHESTRATOR_LOG_LEVEL"] = loglevel
        settings = _settings()
    if imports:
        os.environ["ORCHESTRATOR_IMPORT"] = ",".join((*settings.imports, *imports))
    argv = ["worker", f"--queues={queues}", f"--pool={pool}", f"--hostname={_node_name(name)}"]
    argv += ["--without-gossip", "--without-mingle", "--task-events", f"--loglevel={settings.log_level}"]
    at_once = min(concurrency or os.cpu_count() or 1, settings.max_concurrent_steps)
    argv.append(f"--concurrency={at_once}")
    if quiet:
        argv.insert(0, "--quiet")
    _run_celery(argv)


def flower(
    port: Annotated[int, typer.Option(help="Port to listen on.")] = 5555,
    host: Annotated[str, typer.Option(help="Address to listen on.")] = "127.0.0.1",
    options: Annotated[
        list[str] | None, typer.Argument(help="Options of Flower itself, after `--`, such as --basic-auth=me:secret.")
    ] = None,
) -> None:
    """Watch workers and steps in Flower."""
    if importlib.util.find_spec("flower") is None:
        raise ConfigurationError("Flower is not installed: pip install 'orchestrator[flower]'")
    _broker_url(_settings())
    _run_celery(["flower", f"--address={host}", f"--port={port}", *(options or ())])


def dev(
    port: Annotated[int, typer.Option(help="Port of the API on 127.0.0.1.")] = 8080,
    queues: Queues = "default",
    concurrency: Annotated[int, typer.Option("--concurrency", "-c", min=1, help="Steps each worker runs at once.")] = 4,
    workers: Annotated[int, typer.Option(min=0, help="How many worker processes.")] = 1,
    imports: Imports = None,
    with_flower: Annotated[bool, typer.Option("--flower", help="Start Flower as well.")] = False,
    flower_port: Annotated[int, typer.Option(help="Port of Flower.")] = 5555,
    data_dir: Annotated[
        Path | None, typer.Option(help="Folder of data and logs; ORCHESTRATOR_HOME, or the user's data folder.")
    ] = None,
) -> None:
    """Run everything on this machine: PostgreSQL, Redis, API, loops and workers. Ctrl-C ends all of it; data is kept.

    The API listens on 127.0.0.1 only. Unless ORCHESTRATOR_API_KEY is set, it asks for neither a key nor a tenant. With
    DATABASE_URL and REDIS_URL set, it uses those servers instead of starting its own.
    """
    from orchestrator.dev import DevOptions, run  # noqa: PLC0415 - slow

    options = DevOptions(
        data_dir=data_dir,
        api_port=port,
        workers=workers,
        queues=_names(queues),
        concurrency=concurrency,
        imports=tuple(imports or ()),
        flower=with_flower,
        flower_port=flower_port,
    )
    raise typer.Exit(run(options))


def _settings() -> "Settings":
    from pydantic import ValidationError  # noqa: PLC0415 - slow

    from orchestrator.settings import Settings  # noqa: PLC0415 - slow

    try:
        return Settings()
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        name = first["loc"][0] if first["loc"] else "settings"
        raise ConfigurationError(f"the setting {name} cannot be read from the environment: {first['msg']}") from error


def _begin() -> "Settings":
    """Read the settings and begin to log, in a process that goes on until it is told to end."""
    from orchestrator.logs import configure_logging  # noqa: PLC0415 - slow

    settings = _settings()
    configure_logging(settings.log_level)
    return settings


def _bring_up_to_date(settings: "Settings") -> None:
    """Migrate the database, or wait for the process that does, as the settings say."""
    from orchestrator.store import migrate as migrations  # noqa: PLC0415 - slow

    if settings.run_migrations:
        migrations.upgrade(_database_url(settings), tenant_role=settings.tenant_role)
    elif settings.await_migrations:
        migrations.wait_for_upgrade(_database_url(settings))
    else:
        migrations.check(_database_url(settings))


def _database_url(settings: "Settings") -> str:
    if not settings.database_url:
        raise ConfigurationError("DATABASE_URL is not set: name a PostgreSQL server, or use `orchestrator dev`")
    return settings.database_url


def _broker_url(settings: "Settings") -> str:
    if not settings.celery_broker_url:
        raise ConfigurationError("REDIS_URL (or BROKER_URL) is not set: name one, or use `orchestrator dev`")
    return settings.celery_broker_url


def read_settings() -> "Settings":
    """Read the settings of a command that needs both servers.

    Raises:
        ConfigurationError: They name none.
    """
    settings = _settings()
    _database_url(settings)
    _broker_url(settings)
    return settings


def _names(text: str) -> tuple[str, ...]:
    """Split names at commas.

    >>> _names("gpu, default,")
    ('gpu', 'default')
    """
    names = tuple(name for part in text.split(",") if (name := part.strip()))
    if not names:
        raise typer.BadParameter("name at least one queue", param_hint="-Q")
    return names


def _address(text: str) -> tuple[str, int]:
    """Take an address apart.

    >>> _address("0.0.0.0:8080"), _address("[::1]:80"), _address(":9000")
    (('0.0.0.0', 8080), ('::1', 80), ('0.0.0.0', 9000))
    """
    host, _, port = text.rpartition(":")
    if not port.isdigit():
        raise ConfigurationError(f"ORCHESTRATOR_HTTP_ADDRESS is {text!r}; it must be host:port")
    return host.strip("[]") or "0.0.0.0", int(port)  # noqa: S104 - what `:port` means everywhere


def _node_name(name: str | None) -> str:
    """Give the node a name that no other worker of this host has."""
    if name is None:
        return f"worker-{os.getpid()}@%h"
    return name if "@" in name else f"{name}@%h"


def _run_celery(argv: list[str]) -> None:
    """Run a Celery command in this process, as `celery -A workers` would; it looks for modules in the current folder.

    The app is named in no import: workers stand on this package, not below it.
    """
    sys.path.insert(0, "")
    check_packages()
    with importing():
        from celery.__main__ import __file__ as program  # noqa: PLC0415 - slow
        from celery.__main__ import main  # noqa: PLC0415 - slow

        importlib.import_module(_APP)

    sys.argv = [program, "-A", _APP, *argv]  # with which Celery starts itself again on SIGHUP
    main()
