"""A broker of its own, an exporter that serves the fleet page, and Debian's Chromium looking at it.

Pictures are kept in build/screenshots, for people to look at after CI.
"""

import json
import os
import sys
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from selenium import webdriver
from selenium.webdriver.chrome.service import Service

from dagster_taskiq_kit.config.settings import TaskiqSettings
from dagster_taskiq_kit.dev.embedded_broker import free_port
from dagster_taskiq_kit.host.process_group import ProcessGroup, wait_until
from tests.browser.conftest import FLAGS, Browser
from tests.chaos.own_broker import OwnBroker
from tests.metrics.conftest import get

from .crowd import Crowd

UI = "http://dagster.example"


class Served:
    """An exporter and its broker.

    Args:
        broker: The broker.
        settings: The deployment.
        group: What ends with the test.
        log: What the exporter says.
    """

    def __init__(
        self, broker: OwnBroker, settings: TaskiqSettings, group: ProcessGroup, log: Path
    ) -> None:
        self.broker = broker
        self.settings = settings
        self.group = group
        self.log = log
        self.crowd = Crowd(settings)
        self.url = ""

    def start_exporter(self, *options: str) -> None:
        port = free_port()
        self.url = f"http://127.0.0.1:{port}"
        command = [sys.executable, "-m", "dagster_taskiq_kit", "exporter", "--no-dagster"]
        command += ["--url", self.broker.url, "--namespace", self.settings.namespace]
        with self.log.open("ab") as output:
            self.exporter = self.group.start(
                [*command, "--port", str(port), "--ui-url", UI, *options],
                environment=dict(os.environ), output=output.fileno(),
            )  # fmt: skip
        assert wait_until(self.answers, 60), self.log.read_text()

    def answers(self) -> bool:
        try:
            return get(f"{self.url}/-/healthy")[0] == 200
        except OSError:
            return False

    def fleet(self) -> dict[str, Any]:
        return json.loads(get(f"{self.url}/api/fleet")[1])

    def wait_for(self, true: Callable[[dict[str, Any]], bool], what: str) -> dict[str, Any]:
        found: dict[str, Any] = {}

        def seen() -> bool:
            nonlocal found
            found = self.fleet()
            return true(found)

        assert wait_until(seen, 30), f"{what} in vain: {json.dumps(found)[:3000]}"
        return found

    def events(self) -> Iterator[dict[str, Any]]:
        """Yield what the page is told, as it is told."""
        with urllib.request.urlopen(f"{self.url}/api/fleet/events", timeout=30) as stream:
            for line in stream:
                if line.startswith(b"data: "):
                    yield json.loads(line.removeprefix(b"data: "))


@pytest.fixture
def served(tmp_path) -> Iterator[Served]:
    broker = OwnBroker(tmp_path / "broker")
    try:
        with ProcessGroup() as group:
            settings = TaskiqSettings(url=broker.url, namespace="fleetpage")
            yield Served(broker, settings, group, tmp_path / "exporter.log")
    finally:
        broker.stop()


@pytest.fixture
def open_page(served: Served) -> Iterator[Callable[..., Browser]]:
    """Opens the fleet page in a browser of its own."""
    with ExitStack() as stack:

        def opened(*flags: str) -> Browser:
            options = webdriver.ChromeOptions()
            options.binary_location = "/usr/bin/chromium"
            for flag in (*FLAGS, *flags):
                options.add_argument(f"--{flag}")
            options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
            driver = webdriver.Chrome(options=options, service=Service("/usr/bin/chromedriver"))
            stack.callback(driver.quit)
            return Browser(driver, served.url)

        yield opened
