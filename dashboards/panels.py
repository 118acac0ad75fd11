"""What a Grafana dashboard is made of, in types.

Invariant: what leaves here can be imported by hand and provisioned from a file: a fixed uid, no ids
of an instance, every panel and query on the ``datasource`` variable, ``job`` and ``instance`` in
every selector. Schema version 39 (Grafana 10.4); newer ones migrate it upward.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

SCHEMA_VERSION = 39
WIDTH = 24
DATASOURCE = {"type": "prometheus", "uid": "${datasource}"}
#: Put into every selector of a metric that the exporter serves.
SCOPE = 'job=~"$job",instance=~"$instance"'
SEVERITIES = ((0, "green", "fine"), (1, "orange", "WARN"), (2, "red", "ERROR"))

Json = dict[str, Any]


def scoped(expression: str) -> str:
    """Put job and instance into each selector, and the queue where the metric has one.

    A selector is written ``name{}`` or ``name{label="x"}``; braces are what it is known by.
    """
    return re.sub(r"\{(?!\{)([^{}]*)\}", lambda m: "{" + ",".join(
        part for part in (SCOPE, m.group(1)) if part
    ) + "}", expression)  # fmt: skip


@dataclass(frozen=True)
class Query:
    """One query of a panel.

    Args:
        expression: PromQL; every selector in braces.
        legend: Legend, from labels.
        dashed: Draw it as a dashed line without a fill: a limit.
        unscoped: It reads recording rules or ALERTS, which know no instance.
        instant: Ask for one moment only.
        heatmap: It returns buckets.
    """

    expression: str
    legend: str = ""
    dashed: bool = False
    unscoped: bool = False
    instant: bool = False
    heatmap: bool = False

    def as_json(self, ref: str) -> Json:
        """Return the target."""
        found: Json = {
            "datasource": DATASOURCE,
            "editorMode": "code",
            "expr": self.expression if self.unscoped else scoped(self.expression),
            "legendFormat": self.legend or "__auto",
            "range": not self.instant,
            "instant": self.instant,
            "refId": ref,
        }
        if self.heatmap or self.instant:
            found["format"] = "heatmap" if self.heatmap else "table"
        return found


@dataclass(frozen=True)
class Panel:
    """One panel.

    Args:
        title: Its title.
        description: What it shows and when to worry.
        queries: Its queries.
        kind: ``timeseries``, ``stat``, ``table``, ``heatmap`` or ``state-timeline``.
        unit: Grafana's id of the unit.
        width: Of 24 columns.
        height: In rows of Grafana's grid.
        stacked: Stack the series.
        thresholds: From which value which colour, the first from the start.
        links: Title to url; may hold ``${__field.labels.x}``.
        mappings: Value to colour and text.
        top: Upper end of the axis.
        decimals: Digits after the point.
    """

    title: str
    description: str
    queries: Sequence[Query]
    kind: str = "timeseries"
    unit: str = "short"
    width: int = 8
    height: int = 8
    stacked: bool = False
    thresholds: Sequence[tuple[float | None, str]] = ((None, "green"),)
    links: Mapping[str, str] = field(default_factory=dict)
    mappings: Sequence[tuple[int, str, str]] = ()
    top: float | None = None
    decimals: int | None = None

    def as_json(self, panel_id: int, x: int, y: int) -> Json:
        """Return the panel at its place."""
        found: Json = {
            "id": panel_id,
            "type": self.kind,
            "title": self.title,
            "description": self.description,
            "datasource": DATASOURCE,
            "gridPos": {"h": self.height, "w": self.width, "x": x, "y": y},
            "fieldConfig": {"defaults": self._defaults(), "overrides": list(self._overrides())},
            "options": self._options(),
            "targets": [q.as_json(chr(ord("A") + n)) for n, q in enumerate(self.queries)],
        }
        if self.kind == "table":
            found["transformations"] = [
                {"id": "organize", "options": {"excludeByName": {"Time": True, "__name__": True}}}
            ]
        return found

    def _defaults(self) -> Json:
        steps = [{"color": colour, "value": value} for value, colour in self.thresholds]
        defaults: Json = {
            "unit": self.unit,
            "color": {"mode": "thresholds" if self.kind == "stat" else "palette-classic"},
            "thresholds": {"mode": "absolute", "steps": steps},
            "links": [
                {"title": title, "url": url, "targetBlank": True}
                for title, url in self.links.items()
            ],
            "mappings": [],
        }
        if self.kind in ("timeseries", "stat"):
            defaults["min"] = 0
        if self.top is not None:
            defaults["max"] = self.top
        if self.decimals is not None:
            defaults["decimals"] = self.decimals
        if self.mappings:
            options = {
                str(value): {"color": colour, "index": index, "text": text}
                for index, (value, colour, text) in enumerate(self.mappings)
            }
            defaults["mappings"] = [{"type": "value", "options": options}]
        if self.kind == "timeseries":
            limits = len(self.thresholds) > 1
            defaults["custom"] = {
                "drawStyle": "line",
                "lineWidth": 1,
                "fillOpacity": 30 if self.stacked else 8,
                "showPoints": "never",
                "stacking": {"mode": "normal" if self.stacked else "none", "group": "A"},
                "thresholdsStyle": {"mode": "line" if limits else "off"},
            }
        if self.kind == "state-timeline":
            defaults["custom"] = {"fillOpacity": 80, "lineWidth": 0}
        return defaults

    def _overrides(self) -> Sequence[Json]:
        dashes = {"dash": [8, 8], "fill": "dash"}
        return [
            {
                "matcher": {"id": "byFrameRefID", "options": chr(ord("A") + number)},
                "properties": [
                    {"id": "custom.lineStyle", "value": dashes},
                    {"id": "custom.fillOpacity", "value": 0},
                    {"id": "custom.stacking", "value": {"mode": "none", "group": "B"}},
                ],
            }
            for number, query in enumerate(self.queries)
            if query.dashed
        ]

    def _options(self) -> Json:
        if self.kind == "stat":
            return {
                "reduceOptions": {"calcs": ["lastNotNull"], "fields": "", "values": False},
                "colorMode": "value",
                "graphMode": "area",
                "textMode": "auto",
                "justifyMode": "auto",
                "orientation": "auto",
                "wideLayout": True,
                "showPercentChange": False,
                "percentChangeColorMode": "standard",
            }
        if self.kind == "heatmap":
            return {
                "calculate": False,
                "color": {"mode": "scheme", "scheme": "Oranges", "steps": 64},
                "yAxis": {"unit": self.unit},
                "cellGap": 1,
            }
        if self.kind == "table":
            return {"showHeader": True, "cellHeight": "sm"}
        legend = {"displayMode": "list", "placement": "bottom", "showLegend": True, "calcs": []}
        if self.kind == "state-timeline":
            return {"legend": legend, "mergeValues": True, "showValue": "never", "rowHeight": 0.9}
        return {"legend": legend, "tooltip": {"mode": "multi", "sort": "desc"}}


@dataclass(frozen=True)
class Row:
    """A titled row of panels."""

    title: str
    panels: Sequence[Panel]


@dataclass(frozen=True)
class Dashboard:
    """A dashboard.

    Args:
        uid: Its id, the same everywhere.
        title: Its title.
        description: What it is for.
        rows: Its rows.
        variables: Variables beside datasource, job and instance.
        since: How far it looks back.
        links: Title to url.
    """

    uid: str
    title: str
    description: str
    rows: Sequence[Row]
    variables: Sequence[Json] = ()
    since: str = "now-6h"
    links: Mapping[str, str] = field(default_factory=dict)

    def as_json(self) -> Json:
        """Return the dashboard."""
        return {
            "uid": self.uid,
            "title": self.title,
            "description": self.description,
            "tags": ["dagster", "taskiq"],
            "schemaVersion": SCHEMA_VERSION,
            "editable": False,
            "graphTooltip": 1,
            "timezone": "browser",
            "refresh": "30s",
            "time": {"from": self.since, "to": "now"},
            "links": [_link(title, url) for title, url in self.links.items()],
            "annotations": {"list": []},
            "templating": {
                "list": [
                    _datasource_variable(),
                    label_variable("job", "Job", "dagster_taskiq_up"),
                    label_variable("instance", "Instance", 'dagster_taskiq_up{job=~"$job"}'),
                    *self.variables,
                ]
            },
            "panels": list(self._panels()),
        }

    def _panels(self) -> Sequence[Json]:
        found: list[Json] = []
        y = 0
        for row in self.rows:
            place = {"h": 1, "w": WIDTH, "x": 0, "y": y}
            found.append(
                {"id": len(found) + 1, "type": "row", "title": row.title, "collapsed": False,
                 "gridPos": place, "panels": []}
            )  # fmt: skip
            x, y, tallest = 0, y + 1, 0
            for panel in row.panels:
                if x + panel.width > WIDTH:
                    x, y, tallest = 0, y + tallest, 0
                found.append(panel.as_json(len(found) + 1, x, y))
                x, tallest = x + panel.width, max(tallest, panel.height)
            y += tallest
        return found


def label_variable(name: str, label: str, selector: str, *, several: bool = True) -> Json:
    """Return a variable with the values of a label."""
    found: Json = {
        "name": name,
        "label": label,
        "type": "query",
        "datasource": DATASOURCE,
        "query": {"query": f"label_values({selector}, {name})", "refId": "variable"},
        "refresh": 2,
        "sort": 1,
        "multi": several,
        "includeAll": several,
        "hide": 0,
        "regex": "",
        "skipUrlSync": False,
        "options": [],
    }
    if several:
        found |= {"allValue": ".+", "current": {"text": ["All"], "value": ["$__all"]}}
    return found


def text_variable(name: str, label: str, value: str) -> Json:
    """Return a variable that a person types."""
    option = {"selected": True, "text": value, "value": value}
    return {
        "name": name, "label": label, "type": "textbox", "query": value, "current": option,
        "options": [option], "hide": 0, "skipUrlSync": False,
    }  # fmt: skip


def _datasource_variable() -> Json:
    return {
        "name": "datasource", "label": "Data source", "type": "datasource", "query": "prometheus",
        "refresh": 1, "regex": "", "hide": 0, "multi": False, "includeAll": False, "options": [],
        "current": {"text": "default", "value": "default"}, "skipUrlSync": False,
    }  # fmt: skip


def _link(title: str, url: str) -> Json:
    return {
        "title": title, "url": url, "type": "link", "icon": "external link", "tags": [],
        "tooltip": title, "targetBlank": True, "asDropdown": False, "includeVars": False,
        "keepTime": False,
    }  # fmt: skip
