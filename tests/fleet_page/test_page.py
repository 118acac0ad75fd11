"""The fleet page in a real browser: what it shows, that it is live, and that all can read it."""

import json
from pathlib import Path

import axe_core_python

from .conftest import UI, Served
from .crowd import of_200_workers

AXE = Path(axe_core_python.__file__).parent / "axe.min.js"


def complaints(browser) -> list[str]:
    """Return what axe-core finds on the page."""
    browser.driver.execute_script(AXE.read_text())
    script = "const done = arguments[0]; axe.run().then(found => done(found.violations))"
    found = browser.driver.execute_async_script(script)
    return [f"{each['id']}: {each['nodes'][0]['html']}" for each in found]


def errors(browser) -> list[str]:
    """Return what the browser complained of: scripts that failed, what the policy refused."""
    log = browser.driver.get_log("browser")
    return [each["message"] for each in log if each["level"] in ("SEVERE", "WARNING")]


def test_the_page_shows_the_fleet_follows_it_and_survives_an_outage(served: Served, open_page):
    crowd = served.crowd
    for number in range(4):
        crowd.submit("bulk", f"load_{number}")
    crowd.add_worker("w1", ["bulk", "default"], slots=3, busy=2)
    served.start_exporter()
    page = open_page()
    shown = page.open(
        "/", "bulk", "w1", "host-w1", "2 waiting", "2 running", "700 MiB", "All is well"
    )
    assert "load_" in shown
    assert "What is wrong" not in shown
    page.picture("fleet-healthy")
    run = page.driver.find_element("css selector", "#running a")
    assert run.get_attribute("href").startswith(f"{UI}/runs/")
    assert complaints(page) == []

    marker = "document.querySelector('[data-worker]').mark = 'same'"
    page.driver.execute_script(marker)
    crowd.submit("nobody", "alone")
    page.wait_for("What is wrong", "Served by 0 live workers", "nobody", "no worker serves it")
    page.picture("fleet-backlog")
    kept = page.driver.execute_script("return document.querySelector('[data-worker]').mark")
    assert kept == "same", "an element that did not change was made anew"
    assert complaints(page) == []

    search = page.driver.find_element("id", "words")
    search.send_keys("alone")
    page.wait_for("1 of 3")
    search.clear()
    search.send_keys(" ")

    served.broker.stop()
    page.wait_for("The broker is away", "What is shown is", "w1")
    page.picture("fleet-outage")
    assert complaints(page) == []
    served.broker.start()
    page.wait_until(lambda text: "The broker is away" not in text, "the broker")
    assert errors(page) == []


def test_a_fleet_of_200_workers_is_shown_at_once_and_stays_smooth(served: Served, open_page):
    of_200_workers(served.crowd)
    served.start_exporter()
    page = open_page("window-size=1900,1400")
    page.open("/", "worker-199", "queue-49", "the first 200 are shown")
    page.picture("fleet-200-workers")
    paint = page.driver.execute_script(
        "return performance.getEntriesByName('first-contentful-paint')[0].startTime"
    )
    print(f"first paint after {paint:.0f} ms (target: 1000)")
    page.driver.execute_script(
        "window.longest = 0; new PerformanceObserver(list => { for (const e of list.getEntries())"
        " window.longest = Math.max(window.longest, e.duration) }).observe({type: 'longtask'})"
    )
    before = served.fleet()["taken_at_ms"]
    served.wait_for(lambda said: said["taken_at_ms"] > before + 5_000, "some seconds")
    longest = page.driver.execute_script("return window.longest")
    print(f"longest task of the page in 5 s: {longest:.0f} ms")
    said = json.dumps(served.fleet())
    print(f"data: {len(said) / 1024:.0f} KiB")
    assert errors(page) == []


def test_the_page_is_readable_on_a_phone_and_in_the_dark(served: Served, open_page):
    crowd = served.crowd
    for number in range(3):
        crowd.submit("bulk", f"load_{number}")
    crowd.add_worker("w1", ["bulk"], slots=3, busy=2)
    crowd.submit("nobody", "alone")
    served.start_exporter()
    page = open_page()
    page.driver.execute_cdp_cmd(
        "Emulation.setDeviceMetricsOverride",
        {"width": 390, "height": 1400, "deviceScaleFactor": 2, "mobile": True},
    )
    page.open("/", "bulk", "w1", "Served by 0 live workers")
    sideways = "return document.documentElement.scrollWidth - document.documentElement.clientWidth"
    assert page.driver.execute_script(sideways) == 0
    page.picture("fleet-phone")
    assert complaints(page) == []
    page.driver.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})
    page.driver.execute_cdp_cmd(
        "Emulation.setEmulatedMedia",
        {"features": [{"name": "prefers-color-scheme", "value": "dark"}]},
    )
    page.open("/", "bulk", "w1", "Served by 0 live workers")
    page.picture("fleet-dark")
    assert complaints(page) == []
