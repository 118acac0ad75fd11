"""Whether children that are forked after an import compute right: it is tried, not guessed.

A count of threads does not tell: OpenBLAS, OpenMP and others end and begin theirs around a fork, or
make them when they are first used. What hangs is a child of a process that has used such a pool.

Invariant: the trial is made in children of its own, several at once, with a deadline; nothing of it
is left in this process.
"""

import contextlib
import importlib
import os
import signal
import sys
import time
from collections.abc import Callable, Collection, Mapping
from typing import Any

#: How long the children may take, on a machine that is busy.
_WITHIN_S = 60.0
_PAUSE_S = 0.01
_CHILDREN = 2
_FAILED = 70


def _module(name: str) -> Any:
    """Import a library that only some have."""
    return importlib.import_module(name)


def _numpy() -> bool:
    np = _module("numpy")
    matrix = np.random.default_rng(0).random((300, 300)) + 300 * np.eye(300)
    return bool(np.allclose(matrix @ np.linalg.inv(matrix), np.eye(300)))


def _pandas() -> bool:
    pd = _module("pandas")
    frame = pd.DataFrame({"key": [n % 7 for n in range(10_000)], "value": range(10_000)})
    return int(frame.groupby("key")["value"].sum().sum()) == sum(range(10_000))


def _scipy() -> bool:
    np, linalg = _module("numpy"), _module("scipy.linalg")
    values = linalg.svdvals(np.diag(np.arange(1.0, 201.0)))
    return bool(np.isclose(values[0], 200.0))


def _sklearn() -> bool:
    linear_model = _module("sklearn.linear_model")
    model = linear_model.LinearRegression().fit(
        [[n] for n in range(100)], [2 * n for n in range(100)]
    )
    return abs(float(model.coef_[0]) - 2) < 1e-6  # noqa: PLR2004


def _polars() -> bool:
    pl = _module("polars")
    frame = pl.DataFrame({"key": [n % 7 for n in range(10_000)], "value": range(10_000)})
    summed = frame.lazy().group_by("key").agg(pl.col("value").sum()).collect()
    return int(summed["value"].sum()) == sum(range(10_000))


def _pyarrow() -> bool:
    pa, pc = _module("pyarrow"), _module("pyarrow.compute")
    table = pa.table({"key": [n % 7 for n in range(10_000)], "value": list(range(10_000))})
    grouped = table.group_by("key").aggregate([("value", "sum")])
    return int(pc.sum(grouped["value_sum"]).as_py()) == sum(range(10_000))


def _duckdb() -> bool:
    duckdb = _module("duckdb")
    found = duckdb.connect().execute("SELECT sum(range) FROM range(10000)").fetchone()
    return found is not None and int(found[0]) == sum(range(10_000))


def _torch() -> bool:
    torch = _module("torch")
    matrix = torch.eye(300) * 2
    return bool(torch.allclose(matrix @ matrix, torch.eye(300) * 4))


def _lightgbm() -> bool:
    lgb, np = _module("lightgbm"), _module("numpy")
    data = np.arange(200.0).reshape(100, 2)
    model = lgb.train({"verbose": -1, "num_threads": 2}, lgb.Dataset(data, data[:, 0]), 2)
    return len(model.predict(data)) == 100  # noqa: PLR2004


def _xgboost() -> bool:
    np, xgb = _module("numpy"), _module("xgboost")
    data = np.arange(200.0).reshape(100, 2)
    model = xgb.train({"nthread": 2}, xgb.DMatrix(data, label=data[:, 0]), 2)
    return len(model.predict(xgb.DMatrix(data))) == 100  # noqa: PLR2004


#: By package: a real computation with it, and whether its result is right.
TRIALS: Mapping[str, Callable[[], bool]] = {
    "duckdb": _duckdb, "lightgbm": _lightgbm, "numpy": _numpy, "pandas": _pandas, "polars": _polars,
    "pyarrow": _pyarrow, "scipy": _scipy, "sklearn": _sklearn, "torch": _torch,
    "xgboost": _xgboost,
}  # fmt: skip


def failed_packages(packages: Collection[str]) -> Mapping[str, str]:
    """Try packages in children that are forked now, each in a few at once.

    Args:
        packages: Names of packages in :data:`TRIALS` that are imported.

    Returns:
        What went wrong, by package; nothing when all computed right.
    """
    return {name: wrong for name in sorted(packages) if (wrong := _try(TRIALS[name]))}


def _try(computes: Callable[[], bool]) -> str:
    sys.stdout.flush()
    deadline_s = time.monotonic() + _WITHIN_S
    pids = [_fork(computes) for _ in range(_CHILDREN)]
    wrongs = [_end_of(pid, deadline_s) for pid in pids]
    return next((wrong for wrong in wrongs if wrong), "")


def _fork(computes: Callable[[], bool]) -> int:
    pid = os.fork()
    if pid:
        return pid
    try:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        os._exit(0 if computes() else _FAILED)
    finally:
        os._exit(_FAILED)


def _end_of(pid: int, deadline_s: float) -> str:
    """Return what went wrong in a child; '' when it left well."""
    while time.monotonic() < deadline_s:
        ended, status = os.waitpid(pid, os.WNOHANG)
        if ended:
            code = os.waitstatus_to_exitcode(status)
            if code < 0:
                return f"a forked child that computes with it dies of {signal.Signals(-code).name}"
            return "" if code == 0 else "a forked child that computes with it fails"
        time.sleep(_PAUSE_S)
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)
    return "a forked child that computes with it hangs"
