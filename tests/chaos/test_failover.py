"""A failover by Sentinel or in a Cluster is to a running job an ordinary outage of the broker."""

import dagster as dg
import pytest

from .high_availability import ClusterOfTwo, SentinelPair, client_of, until
from .test_broker_faults import nothing_is_left, once

STATUS = dg.DagsterRunStatus


@pytest.fixture
def sentinels(tmp_path):
    made = SentinelPair(tmp_path / "sentinel")
    yield made
    made.servers.stop()


@pytest.fixture
def cluster(tmp_path):
    made = ClusterOfTwo(tmp_path / "cluster", "of-a-cluster")
    yield made
    made.servers.stop()


def test_a_primary_killed_under_its_sentinel(make_chaos, sentinels: SentinelPair):
    with make_chaos(url=sentinels.url) as chaos:
        chaos.start_worker()
        run_id = chaos.launch("chain")
        chaos.wait_for_bodies("first")
        sentinels.servers.kill(sentinels.primary)
        chaos.open_gates("first", "second")
        assert chaos.fleet.wait_for_run(run_id, 120).status is STATUS.SUCCESS
        once(chaos, "first", "second")
        nothing_is_left(chaos)
        # What was connected follows, and so does who comes anew.
        assert chaos.fleet.wait_for_run(chaos.launch("one"), 120).status is STATUS.SUCCESS


def test_a_namespace_that_moves_to_another_node_of_a_cluster(make_chaos, cluster: ClusterOfTwo):
    with make_chaos(url=cluster.url, namespace="of-a-cluster") as chaos:
        chaos.start_worker()
        run_id = chaos.launch("chain")
        chaos.wait_for_bodies("first")
        cluster.take_over()
        assert until(lambda: client_of(cluster.replica).info("replication")["role"] == "master")
        chaos.open_gates("first", "second")
        assert chaos.fleet.wait_for_run(run_id, 120).status is STATUS.SUCCESS
        once(chaos, "first", "second")
        nothing_is_left(chaos)
        assert chaos.fleet.wait_for_run(chaos.launch("one"), 120).status is STATUS.SUCCESS
