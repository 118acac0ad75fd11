"""The report as Dagster shows it: one plot and one table for each way of grouping the flights.

The plot travels inside its Markdown, so the catalog shows it from any host without shared files.
"""

import base64
import io

import dagster as dg
import pandas as pd

from .delays import DelayGroup

GROUPINGS = ("month", "carrier", "airport", "weather")


def as_frame(groups: list[DelayGroup], grouping: str) -> pd.DataFrame:
    """Return the groups of one grouping with what the report says of each, in their order."""
    rows = [(*group, group.mean_delay_min) for group in groups if group.grouping == grouping]
    frame = pd.DataFrame(rows, columns=[*DelayGroup._fields, "mean_delay_min"])
    frame["cancelled"] = frame["flights"] - frame["departed"]
    return frame.round({"mean_delay_min": 2})


def draw_delays(groups: list[DelayGroup]) -> bytes:
    """Return a PNG of the mean departure delay by month and by weather."""
    from matplotlib.figure import Figure  # not pyplot, which would look for a display

    figure = Figure(figsize=(8, 3), layout="constrained")
    for axes, grouping in zip(figure.subplots(1, 2), ("month", "weather"), strict=True):
        shown = as_frame(groups, grouping)
        axes.barh(shown["name"], shown["mean_delay_min"])
        axes.invert_yaxis()
        axes.set_title(f"by {grouping}")
        axes.set_xlabel("mean departure delay, minutes")
    png = io.BytesIO()
    figure.savefig(png, format="png", dpi=80)
    return png.getvalue()


def as_markdown_image(png: bytes, alt: str) -> dg.MarkdownMetadataValue:
    """Return a picture as Markdown that carries it."""
    return dg.MetadataValue.md(f"![{alt}](data:image/png;base64,{base64.b64encode(png).decode()})")


def as_table(groups: list[DelayGroup], grouping: str) -> dg.TableMetadataValue:
    """Return the groups of one grouping as a table of the catalog."""
    shown = as_frame(groups, grouping).rename(columns={"name": grouping})
    columns = [grouping, "flights", "cancelled", "mean_delay_min"]
    return dg.MetadataValue.table(
        [
            dg.TableRecord(dict(zip(columns, row, strict=True)))
            for row in shown[columns].to_numpy().tolist()
        ]
    )
