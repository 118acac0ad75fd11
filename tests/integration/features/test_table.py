"""Every feature with every launcher on every storage says what Dagster itself would have said.

Invariant: the cells are the full product; one that is missing fails the collection.
"""

from itertools import product

import dagster as dg
import pytest
from demands import Case
from launching import execute, open_site, partition_tags
from observed import Observed
from table import FEATURES, NAMES

from dagster_taskiq_kit import TaskiqRunLauncher
from dagster_taskiq_kit.testing.fleet import OUR_LAUNCHER

#: What ``run_launcher`` of the instance is, and what that makes of it.
LAUNCHERS = {
    "ours": (OUR_LAUNCHER, TaskiqRunLauncher),
    "default": (None, dg.DefaultRunLauncher),
    # No launcher is asked: the run is executed by the process that wants it.
    "none": (None, dg.DefaultRunLauncher),
}
STORAGES = ("sqlite", "postgres")
SITES = list(product(LAUNCHERS, STORAGES))
#: Keeps a reference, which runs in this process, from filling the screen.
QUIET = {"loggers": {"console": {"config": {"log_level": "CRITICAL"}}}}

assert set(SITES) == set(product(("ours", "default", "none"), ("sqlite", "postgres")))
assert {feature.name for feature in FEATURES.values()} == NAMES


@pytest.fixture(scope="module")
def site(request, make_fleet):
    """The fleet of a launcher and a storage, with one worker."""
    launcher, storage = request.param
    configured, expected = LAUNCHERS[launcher]
    fleet = make_fleet(storage, launcher=configured)
    with open_site(fleet, workspace=launcher != "none") as made:
        assert type(made.fleet.instance.run_launcher) is expected
        said = made.fleet.worker_log(1)
        made.fleet.wait_for(lambda: "jobs.py (warm)" in said.read_text(), "warm code with pandas")
        yield made


@pytest.fixture(scope="module")
def peers(tmp_path_factory):
    """Runs the reference of a feature, once; returns a run for each of its partitions."""
    known = {}
    with dg.DagsterInstance.local_temp(str(tmp_path_factory.mktemp("reference"))) as instance:

        def runs(feature):
            if feature.name not in known:
                feature.prepare(instance)
                known[feature.name] = [
                    Observed.of(
                        instance, execute(instance, feature, feature.reference, QUIET, tags)
                    )
                    for tags in partition_tags(feature, "reference")
                ]
            return known[feature.name]

        yield runs


# One by one, so that the site keeps its scope; stacked, they are the product.
@pytest.mark.parametrize("feature", FEATURES.values(), ids=[n.replace(" ", "_") for n in FEATURES])
@pytest.mark.parametrize("site", SITES, ids=["-".join(site) for site in SITES], indirect=True)
def test_a_feature_is_what_it_is_in_process(site, feature, peers, capfd):
    with capfd.disabled():  # pytest's own capture hides what the reference writes to stdout
        references = peers(feature)
    feature.prepare(site.fleet.instance)
    for run_id, reference in zip(site.start(feature), references, strict=True):
        run = site.fleet.wait_for_run(run_id)
        observed = Observed.of(site.fleet.instance, run_id)
        said = "\n".join(site.fleet.said(run_id))
        assert run.status is feature.status is reference.run.status, said
        assert observed.story() == reference.story(), said
        assert observed.after_its_end() == reference.after_its_end(), said
        workers, taken = observed.workers()
        assert len(workers) == 1, said
        assert taken >= observed.begun(), said
        for demand in feature.demands:
            demand(Case(observed, reference, site.fleet))
