"""Steps that use the libraries of data platforms are forked after their import and compute right.

Those that the test environment has; with ``ALL_LIBRARIES=1`` (``make test-libraries``) all of them,
each installed into a folder of its own.
"""

import os

import pytest

from benchmarks.warm.libraries import LIBRARIES
from benchmarks.warm.probed import is_here, probed

HERE = [library.name for library in LIBRARIES if is_here(library)]
TRIED = [library.name for library in LIBRARIES] if os.environ.get("ALL_LIBRARIES") else HERE
BY_NAME = {library.name: library for library in LIBRARIES}

#: Warm is the rule; what is not, and why, in the words that people are told.
NOT_WARM = {"snowflake-connector": "begun by the import of 'snowflake.connector"}


def test_the_most_used_libraries_are_among_those_that_are_always_tried():
    assert {
        "numpy", "pandas", "polars", "pyarrow", "duckdb", "boto3", "requests", "sqlalchemy",
        "psycopg2", "grpcio",
    } <= set(HERE)  # fmt: skip


@pytest.mark.timeout(900)
@pytest.mark.parametrize("name", TRIED)
def test_a_library_is_served_and_computes_right_in_steps_at_once(name):
    found = probed(BY_NAME[name])
    assert found.computes_right, found
    assert found.served == ("layered" if name in NOT_WARM else "warm"), found.why
    assert all(NOT_WARM[name] in why for why in found.why)
