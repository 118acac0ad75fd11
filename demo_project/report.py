"""The report as Dagster shows it: one plot and one table for each way of grouping the flights.

The plot travels inside its Markdown, so the catalog shows it from any host without shared files.
"""

import base64
import io

import dagster as dg

from .delays import DelayGroup, of_grouping

GROUPINGS = ("month", "carrier", "airport", "weather")


def draw_delays(groups: list[DelayGroup]) -> bytes:
    """Return a PNG of the mean departure delay by month and by weather."""
    from matplotlib.figure import Figure  # not pyplot, which would look for a display

    figure = Figure(figsize=(8, 3), layout="constrained")
    for axes, grouping in zip(figure.subplots(1, 2), ("month", "weather"), strict=True):
        shown = of_grouping(groups, grouping)
        axes.barh([group.name for group in shown], [group.mean_delay_min for group in shown])
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
    return dg.MetadataValue.table(
        [
            dg.TableRecord(
                {
                    grouping: group.name,
                    "flights": group.flights,
                    "cancelled": group.flights - group.departed,
                    "mean_delay_min": round(group.mean_delay_min, 2),
                }
            )
            for group in of_grouping(groups, grouping)
        ]
    )
