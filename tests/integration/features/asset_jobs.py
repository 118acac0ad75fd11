"""Assets, their checks and their partitions, and the jobs that make them.

Invariant: no asset belongs to two of the jobs.
"""

import dagster as dg


@dg.asset
def raw():
    return [3, 1, 2]


@dg.asset
def ordered(raw):
    return sorted(raw)


@dg.asset
def greatest(ordered):
    return ordered[-1]


@dg.asset_check(asset=raw)
def not_empty(raw):
    return dg.AssetCheckResult(passed=bool(raw))


@dg.asset_check(asset=raw)
def is_long(raw):
    return dg.AssetCheckResult(passed=len(raw) > 9, severity=dg.AssetCheckSeverity.WARN)


@dg.asset_check(asset=ordered, blocking=True)
def ends_with_nine(ordered):
    return dg.AssetCheckResult(passed=ordered[-1] == 9)


@dg.asset
def first_page():
    return 1


@dg.asset
def second_page(first_page):
    return first_page + 1


@dg.asset
def last_page(second_page):
    return second_page + 1


# -- partitions

LETTERS = dg.StaticPartitionsDefinition(["x", "y"])


@dg.asset(partitions_def=LETTERS)
def letter(context):
    return context.partition_key


@dg.asset(partitions_def=LETTERS)
def word(letter):
    return letter * 3


JOBS = [
    dg.define_asset_job("checked_assets", selection=[raw, ordered, greatest]),
    dg.define_asset_job("pages", selection=[first_page, second_page, last_page]),
    dg.define_asset_job("letters", selection=[letter, word]),
]
ASSETS = [raw, ordered, greatest, first_page, second_page, last_page, letter, word]
CHECKS = [not_empty, is_long, ends_with_nine]
