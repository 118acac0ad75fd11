"""States and transitions, stated once: Lua gets the same table."""

from dagster_taskiq_kit.broker.keys import KEYS, Keys, lua_key_functions
from dagster_taskiq_kit.broker.scripts import load_script
from dagster_taskiq_kit.vocabulary.states import OWNED, TERMINAL, TRANSITIONS, State

SCRIPTS = (
    "begin", "cancel", "cancel_message", "claim", "requeue_dead_letter", "finish", "guard", "leases", "pause", "prune", "purge", "renew", "reprioritize", "requeue", "rescue", "restore", "restate",
    "retire", "revive", "snapshot", "submit", "tell_output", "turn", "watch",
)  # fmt: skip


def test_every_state_has_its_transitions_and_terminal_ones_have_none():
    assert set(TRANSITIONS) == set(State)
    assert all(not TRANSITIONS[state] for state in TERMINAL)
    assert all(TRANSITIONS[state] for state in set(State) - TERMINAL)


def test_only_an_owned_record_can_run_and_only_a_running_one_can_succeed():
    can_run = {state for state, targets in TRANSITIONS.items() if State.RUNNING in targets}
    can_succeed = {state for state, targets in TRANSITIONS.items() if State.SUCCEEDED in targets}
    assert can_run == {State.CLAIMED}
    assert can_succeed == {State.RUNNING}
    assert can_run | can_succeed == OWNED


def test_every_script_carries_the_transitions_and_the_keys():
    for name in SCRIPTS:
        source = load_script(name).source
        assert "queued = {cancelled = true, claimed = true, refused = true}" in source
        assert "function key.record(task_id)" in source


def test_every_script_says_purpose_arguments_answer_and_why_it_is_atomic():
    from importlib import resources

    folder = resources.files("dagster_taskiq_kit.broker") / "scripts"
    assert {path.name for path in folder.iterdir()} == {
        f"{name}.lua" for name in (*SCRIPTS, "prelude", "key_types")
    }
    for name in SCRIPTS:
        header = (folder / f"{name}.lua").read_text().split("\nlocal ")[0]
        for word in ("-- ", "ARGV: ", "Returns: ", "Atomic "):
            assert word in header, f"{name}.lua does not say {word!r}"


def test_all_keys_of_a_namespace_share_one_hash_tag():
    keys = Keys("ns")
    for family, key in KEYS.items():
        assert keys.name(family, *key.parts).startswith("{ns}:" + family)
        assert f"function key.{family}({', '.join(key.parts)})" in lua_key_functions()
