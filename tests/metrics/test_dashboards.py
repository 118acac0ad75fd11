"""The dashboards: what their code says, lint-clean, of the catalogue's metrics, typed by Grafana.

The rules are those of Grafana's dashboard-linter (17 of them, 2026-06), and a few of our own.
"""

import itertools
import json
import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from dagster_taskiq_kit.exporter.catalogue import CATALOGUE, HISTOGRAM, as_table
from dashboards.__main__ import GRAFANA, rendered

ROOT = Path(__file__).resolve().parents[2]
DASHBOARDS = {path.name: json.loads(path.read_text()) for path in sorted(GRAFANA.glob("*.json"))}
#: In JSON a member of an enum is its string.
PLAIN = """
type Plain<T> = T extends string ? `${T}`
  : T extends number | boolean | null | undefined ? T
  : T extends (infer U)[] ? Plain<U>[]
  : T extends object ? { [K in keyof T]: Plain<T[K]> } : T;
"""
#: What dashboard variables stand for when a query is asked.
VALUES = {
    "$__rate_interval": "1m", '"$job"': '".+"', '"$instance"': '".+"', '"$queue"': '".+"',
}  # fmt: skip


def panels(dashboard: dict) -> list[dict]:
    return [panel for panel in dashboard["panels"] if panel["type"] != "row"]


def queries() -> list[tuple[str, str, dict]]:
    return [
        (name, panel["title"], target)
        for name, dashboard in DASHBOARDS.items()
        for panel in panels(dashboard)
        for target in panel["targets"]
    ]


def askable(expression: str) -> str:
    for variable, value in VALUES.items():
        expression = expression.replace(variable, value)
    return expression.replace('queue=".+"', 'queue=~".+"')


def test_the_files_are_what_their_code_says():
    written = {path.name: path.read_text() for path in GRAFANA.glob("*.json")}
    assert written == rendered(), "run `python -m dashboards`"


@pytest.mark.parametrize("name", DASHBOARDS)
def test_a_dashboard_can_be_imported_and_provisioned(name):
    dashboard = DASHBOARDS[name]
    assert len(dashboard["uid"]) <= 40
    assert dashboard["schemaVersion"] == 39
    assert dashboard["editable"] is False  # uneditable-dashboard
    assert "id" not in dashboard
    assert "version" not in dashboard
    assert "${DS_" not in json.dumps(dashboard)
    ids = [panel["id"] for panel in dashboard["panels"]]
    assert len(ids) == len(set(ids))
    provider = yaml.safe_load((GRAFANA.parent / "provisioning" / "dashboards.yaml").read_text())
    assert provider["providers"][0]["type"] == "file"


@pytest.mark.parametrize("name", DASHBOARDS)
def test_variables_are_as_the_linter_wants_them(name):
    variables = {v["name"]: v for v in DASHBOARDS[name]["templating"]["list"]}
    source = variables["datasource"]
    assert (source["type"], source["label"], source["query"]) == (
        "datasource", "Data source", "prometheus",
    )  # fmt: skip
    for variable, label in (("job", "Job"), ("instance", "Instance")):
        found = variables[variable]
        assert (found["type"], found["label"], found["multi"], found["allValue"]) == (
            "query", label, True, ".+",
        )  # fmt: skip
    for variable in variables.values():
        if variable["type"] == "query":
            assert variable["datasource"]["uid"] == "${datasource}"
            assert variable["refresh"] == 2  # template-on-time-change-reload
            assert re.fullmatch(r"label_values\(.+, \w+\)", variable["query"]["query"])


@pytest.mark.parametrize("name", DASHBOARDS)
def test_panels_are_as_the_linter_wants_them(name):
    for panel in panels(DASHBOARDS[name]):
        assert panel["title"]
        assert panel["description"]
        assert panel["targets"]
        assert panel["datasource"] == {"type": "prometheus", "uid": "${datasource}"}
        defaults = panel["fieldConfig"]["defaults"]
        assert defaults["unit"]
        refs = [target["refId"] for target in panel["targets"]]
        assert all(refs)
        assert len(refs) == len(set(refs))
        for target in panel["targets"]:
            assert target["datasource"]["uid"] == "${datasource}"


@pytest.mark.parametrize("name", DASHBOARDS)
def test_panels_do_not_overlap_and_lie_within_the_grid(name):
    taken = set()
    for panel in DASHBOARDS[name]["panels"]:
        place = panel["gridPos"]
        cells = set(
            itertools.product(
                range(place["x"], place["x"] + place["w"]),
                range(place["y"], place["y"] + place["h"]),
            )
        )
        assert place["x"] + place["w"] <= 24
        assert not cells & taken
        taken |= cells


@pytest.mark.parametrize(("name", "title", "target"), queries())
def test_a_query_is_as_the_linter_wants_it(name, title, target):
    expression = target["expr"]
    recorded = "job_queue:" in expression or "ALERTS" in expression  # they know no instance
    for selector in re.findall(r"dagster_taskiq_\w+\{([^}]*)\}", expression):
        if not recorded:
            assert 'job=~"$job"' in selector
            assert 'instance=~"$instance"' in selector
    if not recorded:
        assert (
            re.findall(r"dagster_taskiq_\w+(?!\w|\{)", re.sub(r"\{[^}]*\}", "{", expression)) == []
        )
    counters = [m.name for m in CATALOGUE.values() if m.name.endswith("_total")]
    for counter in counters:
        for place in re.finditer(rf"{counter}\b", expression):
            before = expression[: place.start()]
            assert before.endswith(("rate(", "increase(")), "target-counter-agg"
    for window in re.findall(r"\brate\([^\[]*\[([^\]]+)\]", expression):
        assert window == "$__rate_interval"  # target-rate-interval
    assert "run_id" not in target["legendFormat"]
    # A gauge is never summed over exporters: max comes first.
    for aggregated in re.findall(r"sum(?: by \([^)]*\))? ?\(([^(]{0,4})", expression):
        assert aggregated in ("max ", "max", "rate"), aggregated


def test_every_query_is_promql(tmp_path):
    rules = [
        {"record": f"panel:query_{number}:ask", "expr": askable(target["expr"])}
        for number, (_, _, target) in enumerate(queries())
    ]
    file = tmp_path / "queries.yml"
    file.write_text(yaml.safe_dump({"groups": [{"name": "panels", "rules": rules}]}))
    done = subprocess.run(
        ["promtool", "check", "rules", str(file)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_panels_show_metrics_of_the_catalogue_and_all_of_them():
    suffixes = ("_bucket", "_sum", "_count")
    names = {m.name for m in CATALOGUE.values() if m.type != HISTOGRAM}
    histograms = {m.name for m in CATALOGUE.values() if m.type == HISTOGRAM}
    known = names | {name + suffix for name in histograms for suffix in suffixes}
    used = set()
    for _, _, target in queries():
        used |= set(re.findall(r"(?<![:\w])dagster_taskiq_\w+", target["expr"]))
    assert used <= known
    for path in (ROOT / "dashboards" / "rules").glob("*ing.yml"):
        used |= set(re.findall(r"(?<![:\w])dagster_taskiq_\w+", path.read_text()))
    used |= set(
        re.findall(
            r"dagster_taskiq_\w+", (ROOT / "dashboards" / "rules" / "alerts.yml").read_text()
        )
    )
    missing = {
        name for name in names | histograms if not any(u.startswith(name) for u in used)
    }  # fmt: skip
    assert missing == set()


def test_the_table_in_the_docs_is_made_from_the_catalogue():
    assert as_table() in (ROOT / "docs" / "metrics.md").read_text()


if sys.version_info >= (3, 11):  # the SDK exists for no older Python

    @pytest.mark.parametrize("name", DASHBOARDS)
    def test_grafanas_own_sdk_reads_a_dashboard_and_loses_nothing(name):
        from grafana_foundation_sdk.cog.encoder import JSONEncoder
        from grafana_foundation_sdk.models.dashboard import Dashboard

        ours = DASHBOARDS[name]
        theirs = json.loads(JSONEncoder(sort_keys=True).encode(Dashboard.from_json(ours)))
        assert lost(ours, theirs) == []


def lost(ours, theirs, path="") -> list[str]:
    """Return the paths of ours that the SDK did not know."""
    if isinstance(ours, dict):
        if not isinstance(theirs, dict):
            return [path]
        return [
            each
            for key, value in ours.items()
            for each in lost(value, theirs.get(key), f"{path}.{key}")
        ]
    if isinstance(ours, list):
        if not isinstance(theirs, list):
            return [] if ours == [] and theirs is None else [path]
        pairs = itertools.zip_longest(ours, theirs)
        return [
            each
            for n, (one, other) in enumerate(pairs)
            for each in lost(one, other, f"{path}[{n}]")
        ]
    return [] if ours == theirs else [path]


def test_grafanas_own_types_accept_the_dashboards(tmp_path_factory):
    """TypeScript against the schema package that Grafana publishes."""
    folder = ROOT / "build" / "grafana-schema"
    folder.mkdir(parents=True, exist_ok=True)
    if not (folder / "node_modules" / "typescript").exists():
        wanted = ["@grafana/schema@13", "typescript@5"]
        done = subprocess.run(
            ["npm", "install", "--no-save", "--no-audit", "--no-fund", "--silent", *wanted],
            cwd=folder, capture_output=True, text=True, check=False,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
    for name, dashboard in DASHBOARDS.items():
        literal = json.dumps(dashboard)
        (folder / f"{Path(name).stem}.ts").write_text(
            "import type { Dashboard } from '@grafana/schema';\n"
            f"{PLAIN}export const d: Plain<Dashboard> = {literal};\n"
        )
    files = [f"{Path(name).stem}.ts" for name in DASHBOARDS]
    done = subprocess.run(
        ["node_modules/.bin/tsc", "--noEmit", "--strict", "--skipLibCheck",
         "--moduleResolution", "node", "--esModuleInterop", *files],
        cwd=folder, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout
