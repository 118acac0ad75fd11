"""The component as a ``dg`` project loads it from YAML."""

import dagster as dg
import pytest
import yaml

from dagster_taskiq_kit import TaskiqHealthComponent


def load(attributes: dict) -> dg.Definitions:
    """Load the component as Dagster loads a defs.yaml."""
    component = TaskiqHealthComponent.resolve_from_yaml(yaml.safe_dump(attributes))
    return component.build_defs(dg.ComponentTree.for_test().load_context)


def test_a_component_in_yaml_makes_what_the_function_makes():
    defs = load(
        {
            "queues": {"gpu": {"slo_s": 600, "backlog_warn": 20}},
            "owners": ["team:platform"],
            "stuck_run_policy": "resume",
            "fresh_within_s": 120,
        }
    )
    keys = {key.to_user_string() for key in defs.resolve_asset_graph().get_all_asset_keys()}
    assert keys == {
        "taskiq/redis", "taskiq/queue/default", "taskiq/queue/gpu", "taskiq/workers", "taskiq/runs",
    }  # fmt: skip
    sensors = {sensor.name: sensor for sensor in defs.sensors}
    assert set(sensors) == {"taskiq_health_sensor", "taskiq_stuck_run_sensor"}
    assert "policy: resume" in sensors["taskiq_stuck_run_sensor"].description


@pytest.mark.parametrize(
    ("attributes", "words"),
    [
        ({"url": "http://localhost"}, "attributes of TaskiqHealthComponent"),
        ({"stuck_run_policy": "pray"}, "There is no policy 'pray'"),
        ({"queues": {"gpu": {"backlog_warn": 9, "backlog_error": 3}}}, "must not be below"),
    ],
)
def test_a_bad_attribute_is_one_sentence(attributes, words):
    with pytest.raises(Exception, match=words):
        load(attributes)
