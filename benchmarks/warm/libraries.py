"""The libraries that data platforms import, and a real computation with each.

Invariant: a computation raises when its result is wrong, and needs no server but one it starts.
"""

import re
from dataclasses import dataclass


@dataclass(frozen=True)
class Library:
    """One library.

    Args:
        name: What it is called.
        requirement: What pip installs.
        imports: The statement that imports it, as code does.
        computes: A computation that raises when it is wrong.
        documented: What its makers say of forks; '' where they say nothing.
    """

    name: str
    requirement: str
    imports: str
    computes: str
    documented: str = ""

    @property
    def package(self) -> str:
        """The package that has it."""
        return re.split(r"[\[<>=! ]", self.requirement, maxsplit=1)[0]


_HTTP = """
import http.server, threading
class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200); self.send_header("Content-Length", "2"); self.end_headers()
        self.wfile.write(b"ok")
    def log_message(self, *_): pass
server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
threading.Thread(target=server.serve_forever, daemon=True).start()
url = f"http://127.0.0.1:{server.server_address[1]}/"
"""

_DBT_PROJECT = """
import os, pathlib, tempfile
def project():
    folder = pathlib.Path(tempfile.mkdtemp())
    (folder / "models").mkdir()
    (folder / "models" / "a.sql").write_text("select 1 as one")
    (folder / "dbt_project.yml").write_text("name: p\\nprofile: p\\n")
    (folder / "profiles.yml").write_text(
        f"p: {{target: t, outputs: {{t: {{type: duckdb, path: '{folder}/p.duckdb'}}}}}}"
    )
    return str(folder)
"""

_DBT = (
    _DBT_PROJECT + "where = project()\n"
    "done = dbt.cli.main.dbtRunner().invoke("
    "['run', '--project-dir', where, '--profiles-dir', where])\n"
    "assert done.success, done.exception"
)

LIBRARIES = [
    Library(
        "numpy", "numpy", "import numpy as np",
        "m = np.random.default_rng(0).random((300, 300)) + 300 * np.eye(300)\n"
        "assert np.allclose(m @ np.linalg.inv(m), np.eye(300))",
        "OpenBLAS ends its threads before a fork and begins them after it (pthread_atfork)",
    ),
    Library(
        "pandas", "pandas", "import pandas as pd",
        "f = pd.DataFrame({'k': [n % 7 for n in range(100_000)], 'v': range(100_000)})\n"
        "assert f.groupby('k')['v'].sum().sum() == sum(range(100_000))",
    ),
    Library(
        "scipy", "scipy", "import scipy.linalg, numpy as np",
        "assert np.isclose(scipy.linalg.svdvals(np.diag(np.arange(1., 201.)))[0], 200)",
    ),
    Library(
        "scikit-learn", "scikit-learn", "import sklearn.ensemble, numpy as np",
        "x = np.arange(400.).reshape(200, 2)\n"
        "m = sklearn.ensemble.RandomForestRegressor(20, n_jobs=2).fit(x, x[:, 0])\n"
        "assert len(m.predict(x)) == 200",
        "GCC's OpenMP may freeze in a fork once it computed (its FAQ)",
    ),
    Library(
        "polars", "polars", "import polars as pl",
        "f = pl.DataFrame({'k': [n % 7 for n in range(100_000)], 'v': range(100_000)})\n"
        "assert f.lazy().group_by('k').agg(pl.col('v').sum()).collect()['v'].sum() == "
        "sum(range(100_000))",
        "do not fork once it computed: its thread pool holds locks",
    ),
    Library(
        "pyarrow", "pyarrow", "import pyarrow as pa, pyarrow.compute as pc",
        "assert pc.sum(pa.array(range(100_000))).as_py() == sum(range(100_000))",
        "its pools are made anew after a fork (at-fork handlers)",
    ),
    Library(
        "duckdb", "duckdb", "import duckdb",
        "assert duckdb.connect().execute('select sum(range) from range(100000)').fetchone()[0] == "
        "sum(range(100_000))",
    ),
    Library(
        "torch", "torch", "import torch, torch.utils.data",
        "m = torch.eye(400) * 2\nassert torch.allclose(m @ m, torch.eye(400) * 4)\n"
        "numbers = torch.utils.data.DataLoader(list(range(64)), 8, num_workers=2)\n"
        "assert sum(int(each.sum()) for each in numbers) == sum(range(64))",
        "CUDA does not bear forks",
    ),
    Library(
        "jax", "jax", "import jax, jax.numpy as jnp",
        "assert float(jnp.sum(jnp.arange(1000))) == sum(range(1000))",
        "os.fork() is incompatible with its threads, once it computed",
    ),
    Library(
        "xgboost", "xgboost", "import xgboost as xgb, numpy as np",
        "x = np.arange(400.).reshape(200, 2)\n"
        "m = xgb.train({'nthread': 2}, xgb.DMatrix(x, label=x[:, 0]), 5)\n"
        "assert len(m.predict(xgb.DMatrix(x))) == 200",
    ),
    Library(
        "lightgbm", "lightgbm", "import lightgbm as lgb, numpy as np",
        "x = np.arange(400.).reshape(200, 2)\n"
        "m = lgb.train({'verbose': -1, 'num_threads': 2}, lgb.Dataset(x, x[:, 0]), 5)\n"
        "assert len(m.predict(x)) == 200",
        "GCC's OpenMP hangs in a fork once it computed (its FAQ)",
    ),
    Library(
        "google-cloud-bigquery", "google-cloud-bigquery", "from google.cloud import bigquery",
        "from google.auth.credentials import AnonymousCredentials\n"
        "assert bigquery.Client('p', AnonymousCredentials()).project == 'p'",
    ),
    Library(
        "google-cloud-storage", "google-cloud-storage", "from google.cloud import storage",
        "assert storage.Client.create_anonymous_client().project is None",
    ),
    Library(
        "grpcio", "grpcio", "import grpc",
        "channel = grpc.insecure_channel('127.0.0.1:1')\n"
        "try:\n    channel.unary_unary('/x/y')(b'', timeout=2)\n"
        "except grpc.RpcError as error:\n    assert error.code() is grpc.StatusCode.UNAVAILABLE",
        "forks are for before its first channel; after it with GRPC_ENABLE_FORK_SUPPORT",
    ),
    Library(
        "boto3", "boto3", "import boto3",
        "c = boto3.client('s3', 'eu-west-1', aws_access_key_id='x', aws_secret_access_key='y')\n"
        "u = c.generate_presigned_url('get_object', {'Bucket': 'b', 'Key': 'k'})\n"
        "assert 'Signature' in u",
    ),
    Library(
        "snowflake-connector", "snowflake-connector-python", "import snowflake.connector",
        # A login that is refused waits for its own threads, which a fork does not have.
        "error = snowflake.connector.errors.OperationalError('refused', errno=250001)\n"
        "assert error.errno == 250001 and 'refused' in str(error)",
    ),
    Library(
        "sqlalchemy", "sqlalchemy", "import sqlalchemy as sa",
        "with sa.create_engine('sqlite://').connect() as c:\n"
        "    assert c.execute(sa.text('select 1')).scalar() == 1",
        "dispose of an engine's connections in a fork",
    ),
    Library(
        "psycopg2", "psycopg2-binary", "import psycopg2", "assert psycopg2.__libpq_version__",
        "a connection must not be used by two processes",
    ),
    Library("psycopg", "psycopg[binary]", "import psycopg", "assert psycopg.pq.version()"),
    Library(
        "asyncpg", "asyncpg", "import asyncpg, asyncio",
        "async def connect():\n"
        "    await asyncpg.connect('postgresql://u@127.0.0.1:1/d', timeout=5)\n"
        "try:\n    asyncio.run(connect())\nexcept OSError:\n    pass\n"
        "else:\n    raise AssertionError",
    ),
    Library(
        "pymysql", "pymysql", "import pymysql",
        "try:\n    pymysql.connect(host='127.0.0.1', port=1)\n"
        "except pymysql.err.OperationalError:\n    pass\n"
        "else:\n    raise AssertionError",
    ),
    Library(
        "confluent-kafka", "confluent-kafka", "import confluent_kafka",
        "producer = confluent_kafka.Producer({'test.mock.num.brokers': 1})\n"
        "producer.produce('topic', b'said')\n"
        "assert producer.flush(30) == 0",
    ),
    Library(
        "dbt-core", "dbt-core<1.12 dbt-duckdb", "import dbt.cli.main", _DBT,
        "commands of one process run one after another, in threads of their own",
    ),
    Library(
        "dagster-dbt", "dagster-dbt dbt-core<1.12 dbt-duckdb", "import dagster_dbt",
        _DBT_PROJECT + "where = project()\n"
        "dbt = dagster_dbt.DbtCliResource(project_dir=where, profiles_dir=where)\n"
        "assert dbt.cli(['run']).wait().is_successful()",
    ),
    Library(
        "pyspark", "pyspark", "import pyspark.sql.types as t",
        "assert t.StructType([t.StructField('a', t.LongType())]).simpleString() == "
        "'struct<a:bigint>'",
    ),
    Library(
        "dask", "dask[array]", "import dask.array as da",
        "assert int(da.arange(100_000, chunks=10_000).sum().compute()) == sum(range(100_000))",
    ),
    Library("ray", "ray", "import ray", "assert not ray.is_initialized()"),
    Library(
        "requests", "requests", "import requests",
        _HTTP + "assert requests.Session().get(url).text == 'ok'",
        "",
    ),
    Library(
        "httpx", "httpx", "import httpx", _HTTP + "assert httpx.Client().get(url).text == 'ok'"
    ),
    Library(
        "aiohttp", "aiohttp", "import aiohttp, asyncio",
        _HTTP + "async def get():\n"
        "    async with aiohttp.ClientSession() as s, s.get(url) as r:\n"
        "        assert await r.text() == 'ok'\n"
        "asyncio.run(get())",
    ),
    Library(
        "opentelemetry", "opentelemetry-sdk",
        "from opentelemetry.sdk.trace import TracerProvider",
        "with TracerProvider().get_tracer('x').start_as_current_span('y') as span:\n"
        "    assert span.is_recording()",
    ),
    Library(
        "sentry-sdk", "sentry-sdk", "import sentry_sdk",
        "sentry_sdk.init(dsn=None)\nassert sentry_sdk.capture_message('x') is None",
    ),
    Library(
        "prometheus-client", "prometheus-client", "import prometheus_client",
        "assert b'python_info' in prometheus_client.generate_latest()",
    ),
    Library("structlog", "structlog", "import structlog", "structlog.get_logger().info('x')"),
    Library("loguru", "loguru", "import loguru", "loguru.logger.info('x')"),
]  # fmt: skip
