"""Messages: what is written is read back, and what cannot be read says why."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dagster_taskiq_kit.vocabulary.errors import MessageError
from dagster_taskiq_kit.vocabulary.messages import (
    CodeName,
    RunMessage,
    StepMessage,
    decode,
    encode,
    kind_of,
)
from dagster_taskiq_kit.vocabulary.states import Kind

CODE = CodeName("job", "location", "repository", "module:m")

texts = st.text(max_size=30)
codes = st.builds(CodeName, texts, st.none() | texts, st.none() | texts, st.none() | texts)
messages = st.one_of(
    st.builds(RunMessage, texts, codes, st.integers(0, 9)),
    st.builds(StepMessage, texts, texts, st.integers(1, 9), codes, texts, texts),
)


@given(messages)
def test_what_is_written_is_read_back(message):
    assert decode(message.task_id, kind_of(message), encode(message)) == message


@given(st.binary(max_size=200))
def test_rubbish_is_a_message_error_and_nothing_else(payload):
    with pytest.raises(MessageError):
        decode("id", Kind.STEP, payload)


def changed(**fields):
    return json.dumps({**json.loads(encode(RunMessage("r", CODE))), **fields}).encode()


@pytest.mark.parametrize(
    ("payload", "sentence"),
    [
        (changed(labels={"schema": "99"}), "newer than this worker's 1: update the worker"),
        (changed(labels={}), "is not a taskiq message of ours"),
        (changed(task_name="evil"), "asks for unknown task 'evil'"),
        (changed(args=[{"code": {"job": "j"}, "nonsense": 1}]), "is not a run"),
    ],
)
def test_what_cannot_be_read_says_why(payload, sentence):
    with pytest.raises(MessageError, match="id-1") as caught:
        decode("id-1", Kind.RUN, payload)
    assert sentence in str(caught.value)
    assert caught.value.task_id == "id-1"


def test_task_ids_are_deterministic():
    assert RunMessage("r", CODE, 2).task_id == "run:r:2"
    assert StepMessage("r", "a[b:c]", 3, CODE, "x", "y").task_id == "step:r:a[b:c]:3"


def test_a_message_is_an_ordinary_taskiq_message_without_secrets():
    from taskiq import TaskiqMessage

    body = TaskiqMessage.model_validate_json(encode(StepMessage("r", "s", 1, CODE, "m", "{}")))
    assert body.task_name == "dagster_taskiq_kit:step"
    assert set(body.args[0]) == {
        "run_id", "step_key", "attempt", "code", "retry_mode", "known_state", "timeout_s", "tell_outputs",
    }  # fmt: skip


@given(
    messages,
    st.dictionaries(texts.filter(lambda name: name not in ("schema", "fuse_limit")), texts),
)
def test_a_label_of_another_release_changes_nothing(message, labels):
    body = json.loads(encode(message))
    said = json.dumps({**body, "labels": {**labels, **body["labels"]}}).encode()
    assert decode(message.task_id, kind_of(message), said) == message


def test_what_may_share_a_process_is_executed_by_a_release_that_does_not_know_of_it():
    step = StepMessage("r", "s", 1, CODE, "plan", "{}", fuse_limit=50)
    alone = StepMessage("r", "s", 1, CODE, "plan", "{}")
    # Labels that a release does not know are passed over: to it both are the same message.
    assert json.loads(encode(step))["args"] == json.loads(encode(alone))["args"]
    assert decode(step.task_id, Kind.STEP, encode(step)) == step
