"""Definitions that a function makes anew with each call, as a ``dg`` project's are."""

import dagster as dg

CALLS: list[int] = []


@dg.definitions
def defs():
    CALLS.append(1)

    @dg.asset
    def number() -> int:
        return 1

    @dg.op
    def one() -> int:
        return 1

    def job(name):
        return dg.GraphDefinition(name=name, node_defs=[one]).to_job()

    return dg.Definitions(
        assets=[number], jobs=[job("a"), job("b"), dg.define_asset_job("assets", [number])]
    )
