"""A plan that was made before the fork is the plan that Dagster would make, or there is none."""

import os
from pathlib import Path

import dagster as dg
import pytest
from dagster._core.execution.api import create_execution_plan
from dagster._core.execution.plan.outputs import StepOutputHandle
from dagster._core.execution.plan.plan import ExecutionPlan
from dagster._core.snap import snapshot_from_execution_plan
from dagster._core.snowflake_partner import (
    SNOWFLAKE_PARTNER_CONNECTION_IDENTIFIER,
    SNOWFLAKE_PARTNER_ENV_VAR,
)

from dagster_taskiq_kit.dagster_internals import names as internals
from dagster_taskiq_kit.dagster_internals import planning
from dagster_taskiq_kit.dagster_internals.code_locations import keep_reconstructed_code, load_code
from dagster_taskiq_kit.vocabulary.messages import CodeName
from dagster_taskiq_kit.worker.code_targets import CodeTargets, code_locations
from dagster_taskiq_kit.worker.warm.prepared_jobs import PreparedJobs

CODE = Path(__file__).parent / "code" / "planned_jobs.py"
PREPARED = [
    "assets", "chain", "configured_with_values", "dynamic", "nested", "parted_assets",
    "with_defaults", "with_environment",
]  # fmt: skip
NOTHING_KNOWN = internals.KnownExecutionState()


@pytest.fixture(scope="module")
def code():
    return load_code(code_locations(CodeTargets(files=[str(CODE)]))[0][0])


@pytest.fixture
def prepared(code, monkeypatch):
    monkeypatch.setenv("PLANNED_NAME", "anne")
    # What Dagster's body of a step sets.
    monkeypatch.setenv(SNOWFLAKE_PARTNER_ENV_VAR, SNOWFLAKE_PARTNER_CONNECTION_IDENTIFIER)
    made = PreparedJobs()
    with dg.DagsterInstance.ephemeral() as instance:
        made.prepare(code, instance)
    # pytest writes into it in which phase of a test it is.
    monkeypatch.setattr(made, "_environment", CalledEnvironment(made._environment))
    return made


class CalledEnvironment(dict):
    def __ne__(self, other):
        return without_phase(self) != without_phase(other)


def without_phase(environment):
    return {name: value for name, value in environment.items() if name != "PYTEST_CURRENT_TEST"}


def recon(code, name):
    return code.job(CodeName(job=name, location=code.location, repository=None, pointer=None))


def definition(code, name):
    return recon(code, name).get_definition()


def as_seen(plan, definition):
    """All that a plan says: its steps, their inputs and outputs, and what is known."""
    return snapshot_from_execution_plan(plan, "job"), plan


def test_every_job_without_a_say_of_the_users_is_prepared(code, prepared):
    found = [
        name
        for _, name in code.jobs
        if prepared.find(definition(code, name), {}, [], NOTHING_KNOWN) is not None
    ]
    assert sorted(found) == PREPARED
    assert len(prepared) == len(PREPARED)


@pytest.mark.parametrize("name", PREPARED)
def test_its_plans_are_those_that_dagster_makes(code, prepared, name):
    job = definition(code, name)
    state = internals.KnownExecutionState(
        previous_retry_attempts={"one": 2},
        ready_outputs={StepOutputHandle("one", "result")},
    )
    keys = create_execution_plan(job, {}).step_keys_to_execute
    for step_keys in [list(keys), *([key] for key in keys if "[?]" not in key)]:
        try:
            own = create_execution_plan(job, {}, step_keys, state)
        except dg.DagsterInvariantViolationError as error:
            with pytest.raises(type(error)):  # a collect whose pieces are not known
                prepared.find(job, {}, step_keys, state)
            continue
        plan, config = prepared.find(job, {}, step_keys, state)
        assert plan == own
        assert as_seen(plan, job) == as_seen(own, job)
        assert plan.step_keys_to_execute == step_keys
        assert plan.known_state is state
        assert config == internals.ResolvedRunConfig.build(job, {})


def test_a_wrong_step_is_refused_as_dagster_refuses_it(code, prepared):
    from dagster._core.errors import DagsterExecutionStepNotFoundError

    with pytest.raises(DagsterExecutionStepNotFoundError):
        prepared.find(definition(code, "chain"), {}, ["nothing"], NOTHING_KNOWN)


def test_planning_leaves_the_prepared_plan_as_it_was(code, prepared):
    job = definition(code, "dynamic")
    before = snapshot_from_execution_plan(create_execution_plan(job, {}), "job")
    plan, _ = prepared.find(job, {}, ["pieces"], NOTHING_KNOWN)
    assert [*plan.step_dict] == [*create_execution_plan(job, {}).step_dict]
    everything, _ = prepared.find(
        job, {}, create_execution_plan(job, {}).step_keys_to_execute, NOTHING_KNOWN
    )
    assert snapshot_from_execution_plan(everything, "job") == before


def test_none_for_a_run_config(code, prepared):
    config = {"ops": {"sized": {"config": {"size": 2}}}}
    job = definition(code, "with_defaults")
    assert prepared.find(job, config, ["sized"], NOTHING_KNOWN) is None


def test_none_for_known_dynamic_outputs(code, prepared):
    state = internals.KnownExecutionState(dynamic_mappings={"pieces": {"result": ["0", "1"]}})
    assert prepared.find(definition(code, "dynamic"), {}, ["more[0]"], state) is None


def test_none_for_a_selection(code, prepared):
    some = recon(code, "chain").get_subset(op_selection=["one"]).get_definition()
    assert prepared.find(some, {}, ["one"], NOTHING_KNOWN) is None
    assets = recon(code, "assets").get_subset(asset_selection={dg.AssetKey("upstream")})
    assert prepared.find(assets.get_definition(), {}, ["upstream"], NOTHING_KNOWN) is None


def test_none_in_another_environment(code, prepared, monkeypatch):
    job = definition(code, "with_environment")
    _, config = prepared.find(job, {}, ["says_name"], NOTHING_KNOWN)
    assert config.resources["named"].config == {"name": "anne"}
    monkeypatch.setenv("PLANNED_NAME", "berta")
    assert prepared.find(job, {}, ["says_name"], NOTHING_KNOWN) is None


def test_preparing_leaves_the_environment_alone(code, monkeypatch):
    monkeypatch.delenv(SNOWFLAKE_PARTNER_ENV_VAR, raising=False)
    before = dict(os.environ)
    with dg.DagsterInstance.ephemeral() as instance:
        PreparedJobs().prepare(code, instance)
    assert dict(os.environ) == before


def test_an_environment_that_cannot_be_had_prepares_nothing(code, monkeypatch):
    made = PreparedJobs()
    with dg.DagsterInstance.ephemeral() as instance:
        monkeypatch.setattr(type(instance), "inject_env_vars", lambda *_: 1 / 0)
        made.prepare(code, instance)
    assert len(made) == 0


# ---- what Dagster's own body makes of it


@pytest.fixture
def planned(code, prepared, monkeypatch):
    """Call what the body of a step calls, and count what is done anew."""
    from dagster._cli import api
    from dagster._core.execution.context_creation_job import create_context_creation_data

    done = []
    build, build_plan = internals.ResolvedRunConfig.build, ExecutionPlan.build

    def counted_build(*arguments, **more):
        done.append("config")
        return build(*arguments, **more)

    def counted_plan(*arguments, **more):
        done.append("plan")
        return build_plan(*arguments, **more)

    monkeypatch.setattr(internals.ResolvedRunConfig, "build", staticmethod(counted_build))
    monkeypatch.setattr(ExecutionPlan, "build", staticmethod(counted_plan))

    def plan(name, run_config, step_key, state=NOTHING_KNOWN, selection=None, context_config=None):
        done.clear()
        job = recon(code, name).get_subset(op_selection=selection)
        with planning._planned_once(prepared.find):
            made = api.create_execution_plan(
                job,
                run_config=run_config,
                step_keys_to_execute=[step_key],
                known_state=state,
                repository_load_data=None,
            )
            config = run_config if context_config is None else context_config
            data = create_context_creation_data(job, made, config, None, None)
        assert internals.ResolvedRunConfig.build is counted_build
        own = create_execution_plan(
            job, run_config, step_keys_to_execute=[step_key], known_state=state
        )
        assert made == own
        assert data.resolved_run_config == build(job.get_definition(), config)
        return data.resolved_run_config, done[:-2]  # without those of the last comparison

    return plan


def test_nothing_is_planned_anew_for_an_empty_config(planned):
    assert planned("nested", {}, "inner.again")[1] == []


def test_a_run_config_is_resolved_once(planned):
    config = {"ops": {"sized": {"config": {"size": 2}}}}
    resolved, done = planned("with_defaults", config, "more")
    assert (resolved.ops["sized"].config["size"], done) == (2, ["config", "plan"])


def test_nothing_is_kept_from_one_run_config_to_the_next(planned):
    sizes = []
    for size in (2, 3):
        config = {"ops": {"sized": {"config": {"size": size}}}}
        resolved, done = planned("with_defaults", config, "more")
        sizes.append(resolved.ops["sized"].config["size"])
        assert done == ["config", "plan"]
    resolved, done = planned("with_defaults", {}, "more")
    assert ([*sizes, resolved.ops["sized"].config["size"]], done) == ([2, 3, 1], [])


def test_another_config_for_the_context_is_resolved_for_itself(planned):
    config = {"ops": {"sized": {"config": {"size": 2}}}}
    resolved, done = planned("with_defaults", {}, "more", context_config=config)
    assert (resolved.ops["sized"].config["size"], done) == (2, ["config"])


@pytest.mark.parametrize(
    ("name", "config", "size", "op"),
    [
        ("with_mapped_graph", {}, 3, "mapped.sized"),
        ("with_mapped_graph", {"ops": {"mapped": {"config": {"size": 9}}}}, 9, "mapped.sized"),
        ("mapped_job", {}, 4, "sized"),
        ("mapped_job", {"size": 8}, 8, "sized"),
        ("configured_by_function", {}, 4, "doubled"),
        ("needs_config", {"ops": {"sized_by_config": {"config": {"size": 6}}}}, 6,
         "sized_by_config"),
    ],
)  # fmt: skip
def test_where_the_user_has_a_say_it_is_planned_anew(planned, name, config, size, op):
    resolved, done = planned(name, config, op)
    assert (resolved.ops[op].config["size"], done) == (size, ["config", "plan"])


def test_a_selection_is_planned_anew(planned):
    assert planned("chain", {}, "one", selection=["one"])[1] == ["config", "plan"]


def test_a_mapped_step_is_planned_anew(planned):
    state = internals.KnownExecutionState(dynamic_mappings={"pieces": {"result": ["0", "1", "2"]}})
    for key in ("more[1]", "total"):
        assert planned("dynamic", {}, key, state)[1] == ["config", "plan"]


def test_from_the_third_time_on_a_config_is_resolved_anew(code, prepared):
    job = definition(code, "chain")
    with planning._planned_once(lambda *_: None):
        first, second, third = (internals.ResolvedRunConfig.build(job, {}) for _ in range(3))
    assert first is second
    assert third is not second


# ---- code that a function makes


def test_definitions_that_a_function_makes_are_made_once_for_all_jobs(monkeypatch):
    original = internals.ReconstructableRepository.get_definition
    monkeypatch.setattr(
        internals.ReconstructableRepository, "get_definition", original
    )  # given back
    keep_reconstructed_code()
    file = CODE.with_name("made_by_function.py")
    code = load_code(code_locations(CodeTargets(files=[str(file)]))[0][0])
    made = PreparedJobs()
    with dg.DagsterInstance.ephemeral() as instance:
        made.prepare(code, instance)
    import sys

    (module,) = [m for m in list(sys.modules.values()) if getattr(m, "__file__", "") == str(file)]
    calls = len(module.CALLS)
    assert len(made) == 3
    for name in ("a", "b", "assets", "a"):
        job = recon(code, name).with_repository_load_data(None).get_subset()
        assert id(job.get_definition()) in made._prepared
    assert len(module.CALLS) == calls
