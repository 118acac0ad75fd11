"""The stack that `dagster-taskiq dev` starts, and Debian's Chromium looking at its UI.

Pictures are kept in build/screenshots, for people to look at after CI.
"""

import os
import re
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import yaml
from selenium import webdriver
from selenium.webdriver.chrome.service import Service

from dagster_taskiq_kit.host.process_group import wait_until
from tests.webserver_client import Webserver

ROOT = Path(__file__).resolve().parents[2]
PICTURES = ROOT / "build" / "screenshots"
CODE = ROOT / "tests" / "health" / "code" / "health_jobs.py"
FLAGS = (
    "headless=new", "no-sandbox", "disable-gpu", "disable-dev-shm-usage", "window-size=1500,1100",
    "no-first-run", "disable-background-networking", "disable-component-update", "disable-sync",
    "disable-quic", "force-color-profile=srgb",
)  # fmt: skip


class Browser:
    """Chromium on one UI; asserts on what a person would read there.

    Args:
        driver: The browser.
        url: Where the UI answers.
    """

    def __init__(self, driver: webdriver.Chrome, url: str) -> None:
        self.driver = driver
        self._url = url

    @property
    def text(self) -> str:
        return self.driver.find_element("tag name", "body").text

    def open(self, path: str, *expected: str, within_s: float = 60) -> str:
        """Open a page and wait until it shows all that is expected; returns its text."""
        self.driver.get(self._url + path)
        return self.wait_for(*expected, within_s=within_s)

    def wait_for(self, *expected: str, within_s: float = 60) -> str:
        found = ""

        def shown() -> bool:
            nonlocal found
            found = self.text
            return all(words in found for words in expected)

        if not wait_until(shown, within_s):
            missing = [words for words in expected if words not in found]
            self.picture("missing-" + re.sub(r"\W+", "-", missing[0])[:40])
            raise AssertionError(f"The page does not show {missing}. It shows:\n{found}")
        return found

    def wait_until(self, true: Callable[[str], bool], what: str, within_s: float = 60) -> str:
        """Wait until something is true of the page's text; returns the text."""
        assert wait_until(lambda: true(self.text), within_s), f"{what} in vain:\n{self.text}"
        return self.text

    def click(self, words: str) -> None:
        """Click what shows exactly these words; the last of several."""
        found = f"//*[normalize-space(text())='{words}']"
        self.driver.find_elements("xpath", found)[-1].click()

    def cut_off(self, container: str = "body") -> list[str]:
        """Return the texts that the page shows with an ellipsis for want of room."""
        script = """
            const within = document.querySelector(arguments[0]);
            return [...within.querySelectorAll('*')].filter(e =>
                getComputedStyle(e).textOverflow === 'ellipsis' && e.scrollWidth > e.clientWidth + 1
                && e.innerText).map(e => e.innerText);
        """
        return self.driver.execute_script(script, container)

    def scroll_to(self, words: str) -> None:
        element = self.driver.find_element("xpath", f"//*[normalize-space(text())='{words}']")
        self.driver.execute_script("arguments[0].scrollIntoView()", element)

    def picture(self, name: str) -> None:
        PICTURES.mkdir(parents=True, exist_ok=True)
        # Charts and fonts are drawn after the text is there.
        self.driver.execute_async_script(
            "const done = arguments[0]; document.fonts.ready.then(() => "
            "requestAnimationFrame(() => requestAnimationFrame(() => setTimeout(done, 1000))))"
        )
        assert self.driver.save_screenshot(str(PICTURES / f"{name}.png"))


class DevUi:
    """A stack with its UI.

    Args:
        webserver: Its webserver, as a client.
        gate: The file that the project's ops wait for.
        log: What the stack says.
    """

    def __init__(self, webserver: Webserver, gate: Path, log: Path) -> None:
        self.webserver = webserver
        self.gate = gate
        self.log = log

    def wait_for_verdict(self, expected: str, *path: str, within_s: float = 120) -> None:
        *key, name = path
        key = ["taskiq", *key]
        found = lambda: self.webserver.verdict(key, name) == expected  # noqa: E731
        assert wait_until(found, within_s), (path, self.webserver.verdict(key, name))


@pytest.fixture(scope="module")
def dev_ui(tmp_path_factory) -> Iterator[DevUi]:
    directory = tmp_path_factory.mktemp("dev")
    workspace = directory / "workspace.yaml"
    target = {"relative_path": str(CODE), "location_name": "project"}
    workspace.write_text(yaml.safe_dump({"load_from": [{"python_file": target}]}))
    log, gate = directory / "log", directory / "gate"
    environment = {
        **os.environ, "GATE": str(gate), "REPORT_INTERVAL_S": "5",
        "DAGSTER_TASKIQ_UNSERVED_NOTE_S": "3",
    }  # fmt: skip
    command = [sys.executable, "-m", "dagster_taskiq_kit", "dev", "-w", str(workspace)]
    command += ["--home", str(directory / "home"), "--port", "0", "--workers", "1"]
    with log.open("wb") as output:
        stack = subprocess.Popen(
            command, cwd=ROOT, env=environment, stdout=output, stderr=output, start_new_session=True
        )
    try:
        up = lambda: re.search(r"UI +(http://\S+)", log.read_text())  # noqa: E731
        assert wait_until(lambda: bool(up()) or stack.poll() is not None, 150), log.read_text()
        url = up()
        assert url, log.read_text()
        yield DevUi(Webserver(url[1], "project"), gate, log)
    finally:
        gate.touch()
        stack.send_signal(signal.SIGINT)
        assert stack.wait(90) == 0, log.read_text()


@pytest.fixture(scope="module")
def browser(dev_ui: DevUi) -> Iterator[Browser]:
    options = webdriver.ChromeOptions()
    options.binary_location = "/usr/bin/chromium"
    for flag in FLAGS:
        options.add_argument(f"--{flag}")
    driver = webdriver.Chrome(options=options, service=Service("/usr/bin/chromedriver"))
    try:
        yield Browser(driver, dev_ui.webserver.url)
    finally:
        driver.quit()
