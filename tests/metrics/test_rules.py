"""Recording and alert rules: valid, tried one by one, and each with a section in the runbook."""

import re
import subprocess
from pathlib import Path

import pytest
import yaml

from dagster_taskiq_kit.exporter.catalogue import CATALOGUE, HISTOGRAM

ROOT = Path(__file__).resolve().parents[2]
RULES = ROOT / "dashboards" / "rules"
FILES = ("recording.yml", "alerts.yml")


def promtool(*arguments: str) -> str:
    done = subprocess.run(
        ["promtool", *arguments], cwd=RULES, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def rules() -> list[dict]:
    groups = [g for name in FILES for g in yaml.safe_load((RULES / name).read_text())["groups"]]
    return [rule for group in groups for rule in group["rules"]]


def alerts() -> list[dict]:
    return [rule for rule in rules() if "alert" in rule]


def test_rules_and_configuration_are_valid():
    promtool("check", "rules", "--lint=all", "--lint-fatal", *FILES)
    promtool("check", "config", "../prometheus.yml")


def test_each_alert_fires_when_it_must_and_is_silent_when_it_must():
    promtool("test", "rules", "tests.yml")
    names = [case["name"] for case in yaml.safe_load((RULES / "tests.yml").read_text())["tests"]]
    for rule in alerts():
        alert, severity = rule["alert"].removeprefix("DagsterTaskiq"), rule["labels"]["severity"]
        for verdict in ("fires", "is silent"):
            begins = f"{alert} ({severity}) {verdict}: "
            assert any(name.startswith(begins) for name in names), begins


@pytest.mark.parametrize("rule", alerts(), ids=lambda rule: rule["alert"])
def test_an_alert_says_what_it_is_and_where_to_read_on(rule):
    annotations = rule["annotations"]
    assert set(annotations) == {"summary", "description", "runbook_url", "dashboard_url"}
    assert rule["labels"]["severity"] in ("critical", "warning")
    file, _, anchor = annotations["runbook_url"].partition("#")
    sections = re.split(r"^## ", (ROOT / file).read_text(), flags=re.MULTILINE)[1:]
    (section,) = [s for s in sections if s.splitlines()[0].lower() == anchor]
    assert "- Confirm: " in section
    assert "- Do: " in section
    dashboards = (ROOT / "dashboards" / "grafana").glob("*.json")
    uid = annotations["dashboard_url"].split("?")[0].removeprefix("/d/")
    assert uid in {yaml.safe_load(path.read_text())["uid"] for path in dashboards}


def test_rules_use_no_metric_that_the_catalogue_does_not_know():
    suffixes = ("_bucket", "_sum", "_count")
    known = {m.name for m in CATALOGUE.values() if m.type != HISTOGRAM}
    known |= {m.name + s for m in CATALOGUE.values() if m.type == HISTOGRAM for s in suffixes}
    recorded = {rule["record"] for rule in rules() if "record" in rule}
    for rule in rules():
        used = re.findall(r"(?:[a-z_]+:)?dagster_taskiq_\w+(?::\w+)?", rule["expr"])
        assert used
        assert set(used) <= known | recorded, set(used) - known - recorded
