"""What is not configured again for each step is what Dagster would have configured it to be."""

import logging

import dagster as dg
import pytest

from dagster_taskiq_kit.dagster_internals.step_logging import configure_logging_once


@pytest.fixture(autouse=True)
def _dagsters_logger_is_left_as_it_was_found():
    logger = logging.getLogger("dagster")
    level = logger.level
    yield
    vars(logger).pop("setLevel", None)
    logger.setLevel(level)


def with_file(file) -> dict:
    """``python_logs`` of a ``dagster.yaml`` with one handler, which writes to ``file``."""
    handler = {"class": "logging.FileHandler", "level": "INFO", "filename": str(file)}
    return {"dagster_handler_config": {"handlers": {"to_a_file": handler}}}


def test_handlers_of_dagster_yaml_are_made_by_dagster_for_each_step(tmp_path):
    file = tmp_path / "log"
    with dg.instance_for_test(overrides={"python_logs": with_file(file)}) as instance:
        configure_logging_once(instance)
        (handler,) = instance.get_yaml_python_handlers()
        assert isinstance(handler, logging.FileHandler)
        assert handler.baseFilename == str(file)
        handler.close()


def test_where_none_are_configured_there_are_none_and_those_of_user_code_live_on(tmp_path):
    logger = logging.getLogger("of_the_users_code")
    handler = logging.FileHandler(tmp_path / "log")
    logger.addHandler(handler)
    try:
        with dg.instance_for_test() as instance:
            configure_logging_once(instance)
            assert instance.get_yaml_python_handlers() == []
            logger.warning("still here")
            assert "still here" in (tmp_path / "log").read_text()
    finally:
        logger.removeHandler(handler)
        handler.close()


def test_a_level_is_set_when_it_is_another_one():
    logger = logging.getLogger("dagster")
    with dg.instance_for_test() as instance:
        configure_logging_once(instance)
    below = logging.getLogger("dagster.of_this_test")
    logger.setLevel(logging.ERROR)
    assert not below.isEnabledFor(logging.WARNING)
    logger.setLevel(logging.ERROR)
    logger.setLevel("DEBUG")
    assert logger.level == logging.DEBUG
    assert below.isEnabledFor(logging.WARNING)  # what a logger has remembered is forgotten too


def test_a_steps_log_reaches_the_handlers_of_dagster_yaml(tmp_path):
    file = tmp_path / "log"

    @dg.op
    def says(context: dg.OpExecutionContext):
        context.log.info("said in a step")

    @dg.job
    def job():
        says()

    with dg.instance_for_test(overrides={"python_logs": with_file(file)}) as instance:
        configure_logging_once(instance)
        assert job.execute_in_process(instance=instance).success
    assert "said in a step" in file.read_text()
