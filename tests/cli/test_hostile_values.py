"""Whatever stands in an option, a setting or a file: one sentence, exit code 1, no secret.

The tables are walked over all commands, all options and all settings as they are declared, so that a
new one is tried without being named here.
"""

import itertools
import typing

import click
import pytest
import yaml

from dagster_taskiq_kit.cli.main import main
from dagster_taskiq_kit.config.settings import ENV_PREFIX, QueueObjective, TaskiqSettings
from dagster_taskiq_kit.vocabulary.errors import ConfigurationError, TaskiqKitError
from dagster_taskiq_kit.vocabulary.masking import masked, masked_data, masked_url

from .conftest import ask, ask_here, clean_environment, commands

#: As people paste them; each holds the word `hidden`, which may be shown nowhere.
URLS = [
    "redis://:qu/hidden+A=@cache.example:6379/0", "redis://user:qu@x/hidden@cache.example:6379/0",
    "redis://:qu hidden@cache.example:6379/0", "rediss://:qu#hidden@cache.example:6380/0",
    "redis://:qu?hidden@cache.example/0", "redis://:hidden", "redis://user:hidden",
    "redis://user:hidden/0", "redis://:123/hidden@h:6379/0", "redis://user:123/hidden@h:6379/0",
    "amqp://user:hidden@h//", "redis://u:hidden@h:99999/0", "redis://u:hidden@h:-1/0",
    "redis://u:hidden@[::1/0", "redis://h/0?p%61ssword=hidden&db=x",
    "redis://h/0?password=a@hidden", "redis://h/0?password=a hidden",
    "redis+sentinel://:qu/hidden@h1,h2/svc", "redis+sentinel://u:1/hidden/x@h/svc",
    "redis+sentinel://h/svc/x?sentinel_password=hidden", "redis+cluster://u:hidden@h/7",
    "redis://u:hidden@h/0?socket_timeout=nan", "redis://u:hidden@h/0?socket_timeout=1e9999",
    "redis://u:hidden@h/0?max_connections=\u00b2", "redis://u:hidden@h/0?ssl_cert_reqs=maybe",
    "redis://u:hi\nhidden@h/0", "redis://u:'hidden'\"hidden@h:x/0",
]  # fmt: skip
NUMBERS = [
    "nan",
    "inf",
    "-inf",
    "-1",
    "1e308",
    "1e-300",
    "9" * 400,
    "",
    "soon",
    "\u00b2",
    "0x10",
    "9999999999999999",
]
TEXTS = ["", "a b", "x" * 5000, "../../etc/passwd", "{x}", "%s%n", "\x1b[31m", "a\nb", "\u202e"]

DEEP = "[" * 3000 + "]" * 3000
FILES = {
    "syntax": "url: redis://u:hidden@h\npassword: 'hidden\n  x: [",
    "tab": "url: redis://u:hidden@h/0\n\tpassword: hidden",
    "percent": "password: %hidden\n",
    "alias": "password: *hidden\n",
    "tag": "password: !hidden x\n",
    "python tag": "password: !!python/object/apply:os.system ['echo hidden']\n",
    "anchor": "a: &hidden 1\nb: &hidden\n- *hidden2",
    "recursive": "a: &a\n  b: *a\nurl: redis://u:hidden@h\n",
    "recursive list": "run_launcher: &a [*a]\n",
    "recursive root": "&a\nb: *a\n",
    "deep": DEEP,
    "deep block": "\n".join(" " * n + "a:" for n in range(400)),
    "laughs": "a: &a [1,2,3,4,5,6,7,8,9]\n"
    + "".join(
        f"{new}: &{new} [{','.join(['*' + old] * 9)}]\n"
        for old, new in itertools.pairwise("abcdefghij")
    ),
    "bytes": b"\xff\xfe\x00hidden",
    "null": "password: hid\0den",
    "date": "url: 2001-99-99\n",
    "digits": "lease_s: " + "9" * 5000,
    "large": "# hidden\n" * 200_000,
    "two documents": "a: 1\n---\npassword: hidden\n",
    "list": "- redis://u:hidden@h\n",
    "text": "redis://u:hidden@h",
    "unhashable": "{[hidden]: 1}",
    "merge": "<<: hidden\nurl: 1\n",
}


@pytest.fixture
def files(tmp_path):
    made = {}
    for name, content in FILES.items():
        made[name] = tmp_path / f"{name.replace(' ', '_')}.yaml"
        made[name].write_bytes(content if isinstance(content, bytes) else content.encode())
    return made


def check(said, what):
    text = said.out + said.err
    assert "Traceback" not in text, what
    assert "hidden" not in text, (what, text)
    assert "not foreseen" not in text, (what, text)
    assert said.err.strip().splitlines()[-1].startswith("Error: "), (what, text)


def refused(environment, *arguments):
    """Ask in this process: what is refused is refused before anything forks."""
    said = ask_here(environment, *arguments, code=1)
    check(said, arguments)
    return said


def arguments_of(command):
    """Something for each argument that a command cannot do without."""
    return ["5" if isinstance(p.type, click.IntRange) else "x" for p in command.params
            if isinstance(p, click.Argument) and (p.required or p.nargs == -1)]  # fmt: skip


ASKING = [(path, command) for path, command in commands() if path != ("dev",)]


@pytest.mark.parametrize(
    ("path", "command"), ASKING, ids=lambda each: " ".join(each) if isinstance(each, tuple) else ""
)
def test_no_command_shows_the_password_of_a_url_that_is_refused(path, command):
    for url in URLS:
        for environment, option in (({}, ["--url", url]), ({"DAGSTER_TASKIQ_URL": url}, [])):
            said = refused(environment, *path, *arguments_of(command), *option)
            assert "is not a broker url" in said.err, url


def test_a_url_that_the_shell_took_apart_is_not_shown():
    for path, command in ASKING:
        if path != ("worker", "start") and not any(p.nargs == -1 for p in command.params):
            refused({}, *path, *arguments_of(command), "--url", "redis://:qu", "hidden@h:6379/0")


def test_every_number_is_of_a_type_that_knows_its_range():
    numbers = 0
    for path, command in commands():
        for option in command.params:
            assert option.type not in (click.INT, click.FLOAT), (path, option.name)
            if isinstance(option.type, click.IntRange | click.FloatRange):
                numbers += 1
                assert None not in (option.type.min, option.type.max), (path, option.name)
    assert numbers > 10


def test_no_number_of_an_option_is_taken_that_cannot_work():
    for path, command in commands():
        for option in command.params:
            if not isinstance(option.type, click.IntRange | click.FloatRange):
                continue
            for value in NUMBERS:
                given = (
                    [option.opts[-1], value]
                    if isinstance(option, click.Option)
                    else ["--", "x", value]
                )
                assert "Invalid value for" in refused({}, *path, *given).err
    for value in ("99999", "65536", "-1"):
        refused({}, "exporter", "--port", value)
        refused({}, "dev", "--port", value)


VALUES = [float("nan"), float("inf"), -float("inf"), -1, 10**400, [], {"a": {}}, [["x"] * 99], b"\xff", object()]  # fmt: skip
IN_ENVIRONMENT = {"DAGSTER_TASKIQ_URL": "redis://h"}


@pytest.mark.parametrize("name", TaskiqSettings.model_fields)
def test_no_setting_is_taken_that_cannot_work(name):
    """In the environment, as Dagster's config gives it, and as a file does."""
    field = TaskiqSettings.model_fields[name]
    kinds = {*typing.get_args(field.annotation), field.annotation}
    hostile = [value for value in NUMBERS if {float, int} & kinds]
    hostile += [value for value in TEXTS if str in kinds and name != "url"]
    if any(str(each).endswith("(ge=0)") for each in field.metadata):
        hostile.remove("1e-300")  # as good as 0
    for value in filter(None, hostile):  # an empty variable is one that is not set
        said = refused({**IN_ENVIRONMENT, ENV_PREFIX + name.upper(): value}, "queue", "list")
        assert name in said.err
    for value in VALUES:
        if (name, value) != ("queues", {"a": {}}):
            with pytest.raises(ConfigurationError, match="Bad settings") as caught:
                TaskiqSettings.resolve({name: value}, {})
            assert len(str(caught.value)) < 2000


@pytest.mark.parametrize("name", QueueObjective.model_fields)
def test_no_objective_is_taken_that_cannot_work(name):
    for value in (*VALUES, "soon"):
        with pytest.raises(ConfigurationError, match="Bad settings"):
            TaskiqSettings.resolve({"queues": {"gpu": {name: value}}}, {})


def test_no_file_is_quoted_and_none_is_walked_for_ever(files, tmp_path):
    for path in files.values():
        for arguments in (["status", "-y", str(path)], ["doctor", "--migrate", str(path)]):
            refused({"DAGSTER_TASKIQ_URL": "redis://h"}, *arguments)
        for command in (["doctor"], ["exporter"], ["worker", "start"], ["dev", "--run", "x"]):
            refused(IN_ENVIRONMENT, *command, "-w", str(path))
    refused({}, "status", "-y", str(tmp_path))
    refused({}, "status", "-y", "/dev/zero")


BLOCKS = {
    "no module": "run_launcher: {module: no_such_module, class: X}",
    "no class": "run_launcher: {module: dagster_taskiq_kit, class: Nobody}",
    "no fields": "run_launcher: 7",
    "list": "run_launcher: []",
    "bad url": "run_launcher: {module: dagster_taskiq_kit, class: TaskiqRunLauncher, config: {url: 'redis://:qu/hidden@h'}}",
    "nan": "run_launcher: {module: dagster_taskiq_kit, class: TaskiqRunLauncher, config: {lease_s: .nan}}",
    "inf": "run_launcher: {module: dagster_taskiq_kit, class: TaskiqRunLauncher, config: {give_up_s: .inf}}",
    "unknown": "run_launcher: {module: dagster_taskiq_kit, class: TaskiqRunLauncher, config: {leese: 3, password: hidden}}",
    "storage": "storage: {postgres: {postgres_url: 'not a url u:hidden@h'}}",
    "storage type": "storage: {postgres: {postgres_db: {username: u, password: hidden, hostname: 7}}}",
    "storage class": "storage: {custom: {module: os, class: path, config: {password: hidden}}}",
    "unknown block": "run_lancher: {password: hidden}",
    "coordinator": "run_coordinator: {module: os, class: getcwd}",
    "logs": "compute_logs: {module: no_such.x, class: Y}",
    "concurrency": "concurrency: {runs: {max_concurrent_runs: soon}}",
    "monitoring": "run_monitoring: {enabled: maybe, start_timeout_seconds: .nan}",
    "folder": "local_artifact_storage: {module: dagster, class: LocalArtifactStorage, config: {base_dir: /proc/hidden}}",
}


@pytest.mark.parametrize("name", [*FILES, *BLOCKS])
def test_a_bad_dagster_yaml_is_one_sentence(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    content = FILES.get(name) or BLOCKS[name]
    (tmp_path / "dagster.yaml").write_bytes(
        content if isinstance(content, bytes) else content.encode()
    )
    environment = {"DAGSTER_HOME": str(tmp_path), "DAGSTER_TASKIQ_URL": "redis://127.0.0.1:1"}
    said = refused(environment, "doctor")
    assert "hidden" not in said.err
    home = tmp_path / "home"  # dev copies the dagster.yaml here into its home
    dev = {"DAGSTER_TASKIQ_URL": "redis://127.0.0.1:1", "DAGSTER_TASKIQ_GIVE_UP_S": "0.1"}
    refused(dev, "dev", "--home", str(home), "-f", __file__, "--run", "x")
    assert "dagster.yaml" in said.err or "cannot be used" in said.err


def test_a_process_refuses_as_well_and_dev_prints_no_password(tmp_path):
    """The whole way, for one of each kind: what an interpreter prints when it ends is seen too."""
    environment = {**clean_environment(), "DAGSTER_HOME": str(tmp_path)}
    (tmp_path / "dagster.yaml").write_text(FILES["recursive"])
    for arguments in (
        ["status", "--watch", "nan"], ["exporter", "--port", "99999"], ["queue", "list", "--url", URLS[0]],
        ["worker", "start", "-f", __file__, "--url", "redis://h"],
    ):  # fmt: skip
        check(ask(environment, *arguments, code=1), arguments)
    workspace = tmp_path / "workspace.yaml"
    workspace.write_text(yaml.safe_dump({"load_from": [{"python_file": __file__}]}))
    for url in [
        "redis://u:hidden@127.0.0.1:1/0",
        "redis://127.0.0.1:1/0?p%61ssword=hidden",
        URLS[0],
    ]:
        dev = {**clean_environment(), "DAGSTER_TASKIQ_URL": url, "DAGSTER_TASKIQ_GIVE_UP_S": "0.1"}
        home = tmp_path / "home"
        check(ask(dev, "dev", "--home", str(home), "-w", str(workspace), "--run", "x", code=1), url)


def test_one_rule_hides_what_is_secret_in_any_text():
    for url in URLS:
        for text in (masked_url(url), masked(masked_url(url)), masked(str(TaskiqKitError(url)))):
            if "hidden" in text:  # within a text a blank may end a url, so a whole one is asked for
                assert url != "".join(url.split())
                assert text != masked_url(url)
    for text in (
        '{"password": "hidden"}', "{'sentinel_password': 'hidden', 'x': 1}", "password=hidden host=h",
        "\n  password: hidden\n", "{user: u, api_key: hidden}", "x postgresql://u:hidden@h/db?sslmode=x y",
    ):  # fmt: skip
        assert "hidden" not in masked(text), text
        assert "***" in masked(text)
    assert masked_data({"a": [{"token": "hidden"}], "b": "redis://u:hidden@h"}) == {
        "a": [{"token": "***"}], "b": "redis://u:***@h",
    }  # fmt: skip
    for text in (
        "Broker redis://h:6379/0: no answer.", "needs a password: put it into the variable X.",
        "redis://[::1]:6379/0 and redis+cluster://h1:1,h2:2", "see https://example.org/a?b=c#d",
    ):  # fmt: skip
        assert masked(text) == text


def test_an_error_that_nobody_foresaw_is_a_sentence_too(monkeypatch):
    def breaks(*_arguments):
        raise RuntimeError("it broke at redis://u:hidden@h")

    monkeypatch.setattr("dagster_taskiq_kit.cli.queue.read_snapshot", breaks)
    said = ask_here({"DAGSTER_TASKIQ_URL": "redis://h"}, "queue", "list", code=1)
    assert said.sentence.startswith(
        "Error: RuntimeError: it broke at redis://u:***@h (not foreseen"
    )
    asked = ask_here(
        {"DAGSTER_TASKIQ_URL": "redis://h", "DAGSTER_TASKIQ_TRACEBACK": "1"},
        "queue",
        "list",
        code=1,
    )
    assert "Traceback" in asked.err
    assert "hidden" not in asked.err
    assert main is not None
