"""Jobs of every shape that a plan can have, for the test of prepared plans."""

import dagster as dg


@dg.op
def one() -> int:
    return 1


@dg.op
def more(number: int) -> int:
    return number + 1


@dg.op(out={"left": dg.Out(is_required=False), "right": dg.Out(is_required=False)})
def either(number: int):
    yield dg.Output(number, "left")


@dg.op
def total(numbers: list[int]) -> int:
    return sum(numbers)


@dg.job
def chain():
    more.alias("third")(more(one()))


@dg.graph
def inner(number: int) -> int:
    return more.alias("again")(more(number))


@dg.job
def nested():
    left, _ = either(inner(inner.alias("outer")(one())))
    total([left, one.alias("other")()])


@dg.op(out=dg.DynamicOut())
def pieces():
    for index in range(3):
        yield dg.DynamicOutput(index, str(index))


@dg.job
def dynamic():
    total(pieces().map(more).collect())


@dg.op(config_schema={"size": dg.Field(int, default_value=1), "colour": dg.Field(str, "red")})
def sized(context) -> int:
    return context.op_config["size"]


@dg.op
def given(number: int = 5) -> int:
    return number


@dg.job
def with_defaults():
    more(sized())
    given()


@dg.job
def configured_with_values():
    sized.configured({"size": 7}, name="seven")()


@dg.configured(sized, config_schema={"double": dg.Field(int, default_value=2)})
def doubled(config):
    return {"size": config["double"] * 2}


@dg.job
def configured_by_function():
    doubled()


@dg.config_mapping(config_schema={"size": dg.Field(int, default_value=3)})
def sizes(config):
    return {"sized": {"config": {"size": config["size"]}}}


@dg.graph(config=sizes)
def mapped() -> int:
    return sized()


@dg.job
def with_mapped_graph():
    more(mapped())


@dg.job(
    config=dg.ConfigMapping(
        lambda config: {"ops": {"sized": {"config": {"size": config["size"]}}}},
        {"size": dg.Field(int, default_value=4)},
    )
)
def mapped_job():
    sized()


@dg.op(config_schema={"size": int})
def sized_by_config(context) -> int:
    return context.op_config["size"]


@dg.job
def needs_config():
    sized_by_config()


@dg.job(executor_def=dg.multiprocess_executor, resource_defs={"io_manager": dg.mem_io_manager})
def cannot_be_planned():
    one()


class Named(dg.ConfigurableResource):
    name: str


@dg.op
def says_name(named: Named) -> str:
    return named.name


@dg.job(resource_defs={"named": Named(name=dg.EnvVar("PLANNED_NAME"))})
def with_environment():
    says_name()


@dg.asset(code_version="1")
def upstream() -> int:
    return 1


@dg.asset_check(asset=upstream, blocking=True)
def upstream_is_fine() -> dg.AssetCheckResult:
    return dg.AssetCheckResult(passed=True)


@dg.asset(partitions_def=dg.StaticPartitionsDefinition(["a", "b"]))
def parted() -> int:
    return 1


@dg.asset
def downstream(upstream: int) -> int:
    return upstream


@dg.multi_asset(specs=[dg.AssetSpec("x"), dg.AssetSpec("y")], can_subset=True)
def several(context):
    for key in context.selected_asset_keys:
        yield dg.MaterializeResult(asset_key=key)


defs = dg.Definitions(
    jobs=[
        chain, nested, dynamic, with_defaults, configured_with_values, configured_by_function,
        with_mapped_graph, mapped_job, needs_config, with_environment, cannot_be_planned,
        dg.define_asset_job("assets", [upstream, downstream, several]),
        dg.define_asset_job("parted_assets", [parted]),
    ],
    assets=[upstream, downstream, several, parted],
    asset_checks=[upstream_is_fine],
)  # fmt: skip
