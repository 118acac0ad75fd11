"""What every command refuses: one sentence on stderr that says what to do, and exit code 1."""

import pytest
import yaml

from .conftest import Live, ask, ask_here, commands

#: What only asks the broker; the others log, fork, or move descriptors.
IN_PROCESS = ("status", "worker", "queue", "dead-letter", "bogus")


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["bogus"], "No such command 'bogus'."),
        (["status", "--bogus"], "No such option '--bogus'."),
        (["status", "--watch", "soon"], "'soon' is not a valid float range."),
        (["status", "--url", "amqp://h"], "url: 'amqp://h' is not a broker url"),
        (["status", "--namespace", "a b"], "'a b' is not a namespace"),
        (["status", "-y", "/nowhere.yaml"], "The file '/nowhere.yaml' cannot be read"),
        (["worker", "show"], "Missing argument 'NAME'."),
        (["worker", "show", "nobody"], "There is no worker 'nobody'; known are: worker-1."),
        (["worker", "drain"], "Name the workers, or say --all; not both and not neither."),
        (["worker", "drain", "worker-1", "--all"], "not both and not neither."),
        (["worker", "terminate", "nobody"], "There is no worker 'nobody'"),
        (["worker", "start", "-q", "a b"], "Queue: 'a b' is not a queue name"),
        (["worker", "start", "-f", "/nowhere.py"], "/nowhere.py"),
        (["worker", "start", "-w", "/nowhere.yaml"], "/nowhere.yaml"),
        (["worker", "start", "--", "--uid", "7"], "'--uid' is an argument of Celery's worker"),
        (["queue", "pause", "a b"], "'a b' is not a queue name"),
        (["queue", "resume", "a b"], "'a b' is not a queue name"),
        (["queue", "purge", "a b"], "'a b' is not a queue name"),
        (["queue", "pause", "defualt"], "There is no queue 'defualt': did you mean 'default'? Say --create"),
        (["queue", "resume", "defualt"], "There is no queue 'defualt': did you mean 'default'?"),
        (["queue", "purge", "defualt"], "There is no queue 'defualt': did you mean 'default'?"),
        (["queue", "purge", "other", "--yes"], "There is no queue 'other'; known are: default."),
        (["queue", "reprioritize", "nosuchrun", "10"], "There is no open run 'nosuchrun'"),
        (["worker", "drain", "wroker-1"], "There is no worker 'wroker-1': did you mean 'worker-1'?"),
        (["queue", "reprioritize", "r1", "11"], "11 is not in the range 0<=x<=10."),
        (["dead-letter", "show", "7-0"], "There is no dead letter '7-0'."),
        (["dead-letter", "requeue", "7-0"], "There is no dead letter '7-0'."),
        (["dead-letter", "requeue"], "Name the dead letters, or say --all"),
        (["dead-letter", "purge"], "Name the dead letters, or say --all"),
        (["doctor", "--migrate", "/nowhere.yaml"], "The file '/nowhere.yaml' cannot be read"),
        (["doctor", "-w", "/nowhere.yaml"], "There is no workspace file '/nowhere.yaml'."),
        (["exporter", "--basic-auth-user", "me"], "DAGSTER_TASKIQ_EXPORTER_PASSWORD"),
        (["exporter", "--tls-cert", "/no.pem", "--tls-key", "/no.key"], "/no.pem cannot be used"),
        (["exporter", "--host", "203.0.113.7"], "cannot listen on 203.0.113.7"),
        (["dev", "-w", "/nowhere.yaml"], "There is no workspace file '/nowhere.yaml'"),
        (["dev", "-q", "a b"], "'a b' is not a queue name"),
    ],
)  # fmt: skip
def test_what_is_refused_is_one_sentence_and_exit_code_1(refusing: Live, arguments, sentence):
    if arguments[0] in IN_PROCESS and arguments[:2] != ["worker", "start"]:
        said = ask_here(refusing.environment, *arguments, code=1)
    else:
        home = {"DAGSTER_HOME": ""} if arguments[0] == "dev" else {}
        said = refusing.cli(*arguments, code=1, **home)
    assert sentence in said.sentence


@pytest.fixture(scope="module")
def refusing(request):
    """One fleet for all that is refused: it is not changed by it."""
    make_fleet = request.getfixturevalue("make_fleet")
    with make_fleet() as fleet:
        live = Live(fleet, fleet.home / "none.yaml", None)
        live.start_worker()
        yield live


def test_a_worker_without_code_is_refused(refusing: Live, tmp_path):
    said = refusing.cli("worker", "start", code=1, cwd=tmp_path)
    assert said.sentence.startswith("Error: No code to load: ")
    assert said.sentence.endswith("Name it with -m MODULE, -f FILE or -w WORKSPACE.")


def test_code_that_does_not_load_is_its_own_traceback_and_what_to_do(refusing: Live):
    said = refusing.cli("worker", "start", "-m", "no_such_module", code=1).err
    assert "Error: Code location 'no_such_module' failed to load. Its own error was:" in said
    assert said.endswith("Fix the import error above, then start the worker again.\n")


ANSWERING = [path for path, _ in commands() if path not in (("worker", "start"), ("dev",))]


@pytest.mark.parametrize("path", ANSWERING, ids=" ".join)
def test_a_broker_that_is_away_is_one_sentence_of_every_command(refusing: Live, tmp_path, path):
    """Each finds its broker by -y as well as by --url, --namespace and the environment."""
    if path == ("exporter",):
        return  # it serves `up 0`: test_without_the_broker_it_answers_200_up_0_and_is_not_ready
    file = tmp_path / "away.yaml"
    file.write_text(yaml.safe_dump({"url": "redis://127.0.0.1:1", "give_up_s": 0.1}))
    names = {("queue", "reprioritize"): ["r1", "5"]}.get(path, ["x"])
    names = [] if path[-1] in ("list", "status", "top", "doctor") else names
    arguments = [*path, *names, "-y", str(file)]
    code = 2 if path == ("status",) else 1
    asked = ask_here if path[0] in IN_PROCESS else ask
    said = asked(refusing.environment, *arguments, code=code)
    assert said.sentence.startswith("Error: Broker redis://127.0.0.1:1: no answer")
    by_option = ["--url", "redis://u:hidden@127.0.0.1:1", "--namespace", "x"]
    said = asked(refusing.environment, *arguments, *by_option, code=code)
    assert said.sentence.startswith("Error: Broker redis://u:***@127.0.0.1:1: no answer")


@pytest.mark.parametrize("path", [("doctor",), ("worker", "start"), ("exporter", "--dagster")])
def test_without_dagster_home_a_command_that_needs_it_says_so(refusing: Live, path):
    assert "DAGSTER_HOME is not set" in refusing.cli(*path, code=1, DAGSTER_HOME="").sentence
