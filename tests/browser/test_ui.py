"""What a person sees in Dagster's UI, in a real browser: one story of a backlog that comes and goes."""

from .conftest import Browser, DevUi


def test_the_ui_shows_a_backlog_where_it_is_why_and_how_it_went(dev_ui: DevUi, browser: Browser):
    web = dev_ui.webserver
    dev_ui.wait_for_verdict("ok", "queue", "default", "backlog")
    unserved = web.launch_job("waiting_in_slow")
    for _ in range(6):
        web.launch_job("waiting")
    dev_ui.wait_for_verdict("ERROR", "queue", "default", "backlog")

    catalog = browser.open(
        "/assets", "taskiq / redis", "taskiq / queue / default", "taskiq / workers", "taskiq / runs"
    )
    catalog = browser.wait_until(lambda text: "Loading" not in text, "all rows")
    assert catalog.count("Materialized") == 4
    assert "Never materialized" not in catalog
    assert browser.cut_off() == []
    browser.picture("catalog")

    page = browser.open(
        "/assets/taskiq/queue/default?view=checks&checkDetail=backlog",
        "5 waiting", "warn > 2, error > 4", "Failed",
    )  # fmt: skip
    for check in ("backlog", "dead_letters", "has_live_worker", "oldest_waiting_age"):
        assert check in page
    assert "start more, or give them more slots" in page
    browser.picture("check-backlog")

    browser.open(
        "/assets/taskiq/workers?view=checks&checkDetail=slots_free",
        "no run slot is free for 5 waiting runs",
    )
    browser.picture("check-slots")

    browser.open("/asset-groups", "redis", "default", "workers", "runs")
    browser.picture("lineage")

    browser.open(f"/runs/{unserved}", "no live worker", "slow", within_s=90)
    browser.picture("run-unserved")

    dev_ui.gate.touch()
    dev_ui.wait_for_verdict("ok", "queue", "default", "backlog")
    browser.open(
        "/assets/taskiq/queue/default?view=checks&checkDetail=backlog", "0 waiting", "Plots"
    )
    browser.scroll_to("Metadata")
    browser.picture("check-backlog-plot")
    browser.click("Execution history")
    history = browser.wait_for("Timestamp", "Evaluation result")
    assert "Failed" in history
    assert "Passed" in history
    browser.picture("check-history")

    browser.open(
        "/assets/taskiq/queue/default?view=overview", "Freshness policy", "Passing", "oldest_waiting_s",
        "platform", "https://example.org/runbook#queue",
    )  # fmt: skip
    browser.picture("asset-overview")


def test_the_sensor_page_lists_ticks_with_their_summary(dev_ui: DevUi, browser: Browser):
    dev_ui.wait_for_verdict("ok", "redis", "reachable")
    page = browser.open(
        "/locations/project/sensors/taskiq_health_sensor", "0 runs requested", "Running", "not_fine"
    )
    assert "Reports the health of the taskiq broker" in page
    browser.picture("sensor-ticks")
    browser.click("0 runs requested")
    browser.wait_for("checks")
    browser.picture("sensor-tick")
