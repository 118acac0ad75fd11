"""Something is made when the code is imported, and three steps use it at once.

``MADE`` names it. A step fails when what it gets is another's, or what it expects is not there.
"""

import asyncio
import atexit
import http.client
import multiprocessing
import os
import random
import socket
import sqlite3
import tempfile
import threading
import time
from pathlib import Path

import dagster as dg

from dagster_taskiq_kit import taskiq_executor

MADE = os.environ["MADE"]
SERVER = ("127.0.0.1", int(os.environ.get("MADE_PORT", "0")))
NUMBERS = Path(os.environ["MADE_FOLDER"]) / "numbers"
TIMES = 50


def expect(found: object, wanted: object) -> None:
    if found != wanted:
        raise AssertionError(f"wanted {wanted!r} and got {found!r}")


def note(number: object) -> None:
    with NOTES_LOCK, NUMBERS.open("a") as file:
        file.write(f"{number}\n")


NOTES_LOCK = threading.Lock()


class Connection:
    """A socket to a server that says what it hears."""

    def __init__(self) -> None:
        self.socket = socket.create_connection(SERVER, 10)
        self.answers = self.socket.makefile("r")

    def use(self, number: int) -> None:
        for count in range(TIMES):
            self.socket.sendall(f"{number}-{count}\n".encode())
            expect(self.answers.readline().strip(), f"{number}-{count}")


class Http:
    """A connection that is kept, as a session of requests has."""

    def __init__(self) -> None:
        self.connection = http.client.HTTPConnection(*SERVER, timeout=10)
        self.use(9)

    def use(self, number: int) -> None:
        for count in range(TIMES):
            self.connection.request("GET", f"/{number}-{count}")
            expect(self.connection.getresponse().read().decode(), f"/{number}-{count}")


class RequestsSession:
    """A session that has kept a connection."""

    def __init__(self) -> None:
        import requests

        self.session = requests.Session()
        self.use(9)

    def use(self, number: int) -> None:
        for count in range(TIMES):
            url = f"http://{SERVER[0]}:{SERVER[1]}/{number}-{count}"
            expect(self.session.get(url, timeout=10).text, f"/{number}-{count}")


class Boto3:
    """A client of S3, which keeps connections once it was used."""

    def __init__(self, *, used: bool) -> None:
        import boto3

        self.client = boto3.client(
            "s3", "eu-west-1", endpoint_url=f"http://{SERVER[0]}:{SERVER[1]}",
            aws_access_key_id="x", aws_secret_access_key="y",
        )  # fmt: skip
        if used:
            self.use(9)

    def use(self, number: int) -> None:
        for count in range(TIMES):
            got = self.client.get_object(Bucket="bucket", Key=f"{number}-{count}")
            expect(got["Body"].read().decode(), f"/bucket/{number}-{count}")


class Grpc:
    """A channel that has connected."""

    def __init__(self) -> None:
        import grpc

        self.channel = grpc.insecure_channel(f"{SERVER[0]}:{SERVER[1]}")
        self.use(9)

    def use(self, number: int) -> None:
        call = self.channel.unary_unary("/echo/echo")
        for count in range(TIMES):
            expect(call(f"{number}-{count}".encode(), timeout=20), f"{number}-{count}".encode())


class ExitHandler:
    """What is done at the end of a process: here of each step, as on Dagster's own executors."""

    def __init__(self) -> None:
        self.used = 0
        atexit.register(self.end)

    def end(self) -> None:
        if self.used:
            note(self.used)

    def use(self, number: int) -> None:
        self.used = number + 1


class Lock:
    """A lock that is held."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.lock.acquire()

    def use(self, number: int) -> None:  # noqa: ARG002
        expect(self.lock.locked(), True)
        self.lock.release()
        expect(self.lock.acquire(timeout=10), True)


class Postgres:
    """A session of psycopg2."""

    def __init__(self) -> None:
        import psycopg2

        self.connection = psycopg2.connect(os.environ["MADE_URL"])

    def use(self, number: int) -> None:
        for count in range(TIMES):
            with self.connection.cursor() as cursor:
                cursor.execute("SELECT %s, pg_sleep(0.001)", (f"{number}-{count}",))
                expect(cursor.fetchone()[0], f"{number}-{count}")


class Redis:
    """A client that has connected."""

    def __init__(self) -> None:
        import redis

        self.client = redis.Redis.from_url(os.environ["MADE_URL"])
        self.client.ping()

    def use(self, number: int) -> None:
        for count in range(TIMES):
            expect(self.client.echo(f"{number}-{count}"), f"{number}-{count}".encode())


class Sqlite:
    """A database in a file, with a transaction of its own each time."""

    def __init__(self) -> None:
        self.connection = sqlite3.connect(NUMBERS.with_suffix(".db"), timeout=30)
        self.connection.execute("CREATE TABLE IF NOT EXISTS seen (number)")
        self.connection.commit()

    def use(self, number: int) -> None:
        for count in range(TIMES):
            with self.connection:
                self.connection.execute("INSERT INTO seen VALUES (?)", (f"{number}-{count}",))
        query = "SELECT count(*) FROM seen WHERE number LIKE ?"
        expect(self.connection.execute(query, (f"{number}-%",)).fetchone()[0], TIMES)


class File:
    """A temporary file: whoever shares it shares its position."""

    def __init__(self) -> None:
        self.file = tempfile.TemporaryFile("w+")  # noqa: SIM115

    def use(self, number: int) -> None:
        for count in range(TIMES):
            self.file.seek(0)
            self.file.write(f"{number}-{count}\n")
            self.file.flush()
            time.sleep(0.001)
            self.file.seek(0)
            expect(self.file.readline().strip(), f"{number}-{count}")


class Queue:
    """A queue between processes."""

    def __init__(self) -> None:
        self.queue = multiprocessing.Queue()

    def use(self, number: int) -> None:
        for count in range(TIMES):
            self.queue.put(f"{number}-{count}")
            expect(self.queue.get(timeout=10), f"{number}-{count}")


class Loop:
    """An event loop."""

    def __init__(self) -> None:
        self.loop = asyncio.new_event_loop()

    def use(self, number: int) -> None:
        for _ in range(TIMES):
            expect(self.loop.run_until_complete(asyncio.sleep(0.001, number)), number)


class Thread:
    """A thread that answers."""

    def __init__(self) -> None:
        self.asked, self.answered = threading.Event(), threading.Event()
        threading.Thread(target=self.answer, daemon=True).start()

    def answer(self) -> None:
        while self.asked.wait():
            self.asked.clear()
            self.answered.set()

    def use(self, number: int) -> None:  # noqa: ARG002
        self.asked.set()
        expect(self.answered.wait(10), True)


class Log:
    """A file that is only ever appended to, as a handler of logs has it."""

    def __init__(self) -> None:
        self.file = NUMBERS.with_suffix(".log").open("a")

    def use(self, number: int) -> None:
        self.file.write(f"{number}\n")
        self.file.flush()


class Generator:
    """A generator of random numbers; each step notes what it gets."""

    def __init__(self, generator) -> None:
        self.generator = generator

    def use(self, number: int) -> None:  # noqa: ARG002
        note(self.generator.random())


class Frames:
    """Nothing but pandas, and the threads of its libraries."""

    def __init__(self) -> None:
        import pandas as pd

        self.frame = pd.DataFrame({"key": [n % 7 for n in range(700)], "value": range(700)})

    def use(self, number: int) -> None:
        import numpy as np

        expect(int(self.frame.groupby("key")["value"].sum().sum()), sum(range(700)))
        matrix = np.random.default_rng(number).random((300, 300)) + 300 * np.eye(300)
        expect(bool(np.allclose(matrix @ np.linalg.inv(matrix), np.eye(300))), True)


def _numpy_generator(*seed: int):
    import numpy as np

    return np.random.default_rng(*seed)


MAKES = {
    "socket": Connection, "http": Http, "psycopg2": Postgres, "redis": Redis, "sqlite3": Sqlite,
    "tempfile": File, "multiprocessing": Queue, "asyncio": Loop, "thread": Thread, "log": Log,
    "pandas": Frames, "requests": RequestsSession, "grpc": Grpc, "exit handler": ExitHandler,
    "lock": Lock, "boto3": lambda: Boto3(used=True), "boto3, not used": lambda: Boto3(used=False),
    "random": lambda: Generator(random.Random()),
    "random, seeded": lambda: Generator(random.Random(42)),
    "numpy": lambda: Generator(_numpy_generator()),
    "numpy, seeded": lambda: Generator(_numpy_generator(42)),
}  # fmt: skip
MADE_OBJECT = MAKES[MADE]()
#: Where generators are looked for.
GENERATOR = getattr(MADE_OBJECT, "generator", None)


def _op(number: int):
    @dg.op(name=f"use_{number}")
    def uses() -> None:
        MADE_OBJECT.use(number)

    return uses


@dg.job
def using():
    for number in range(3):
        _op(number)()


defs = dg.Definitions(jobs=[using], executor=taskiq_executor)
