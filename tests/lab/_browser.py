"""A person at a machine of the laboratory, with a browser: opens a notebook and runs cells.

Run inside a machine as `python _browser.py`: reads {"url", "cells": [CODE...], "screenshot": PATH
or null} from its standard input, prints {"title", "outputs": [TEXT...], "url", "kernel": URL of its
websocket}. It may be told "token", which is typed where the page asks for it, "names": {NAME:
ADDRESS}, and "again": {"url", "cell"}, another way to the same page: there its notebook is open as
before, and "again": {"output", "url", "kernel"} is printed, too. Debian's Chromium, by its own
chromedriver; the sandbox is off, as a user namespace in a user namespace is not everywhere allowed.
"""

from __future__ import annotations

import contextlib
import json
import os
import sys
import tempfile
from collections.abc import Mapping
from typing import Any

from selenium.common.exceptions import TimeoutException, WebDriverException
from selenium.webdriver import ActionChains, Chrome, ChromeOptions, ChromeService, Keys
from selenium.webdriver.common.by import By
from selenium.webdriver.remote.webelement import WebElement
from selenium.webdriver.support.wait import WebDriverWait

WAIT_S = 60
NOTEBOOK_CARD = ".jp-LauncherCard[data-category=Notebook]"
IDLE = ".jp-NotebookPanel .jp-Notebook-ExecutionIndicator[data-status=idle]"
CELL = ".jp-NotebookPanel .jp-Notebook .jp-CodeCell"
KEPT = """
const ask = new XMLHttpRequest();
ask.open("GET", "/lab/api/workspaces", false);
ask.send();
return ask.responseText.includes("notebook:");
"""


def browser(profile: str, names: Mapping[str, str]) -> Chrome:
    """Start a Chromium without a window, whose profile is in PROFILE; it knows NAMES."""
    options = ChromeOptions()
    rules = ",".join(f"MAP {name} {address}" for name, address in names.items())
    options.binary_location = "/usr/bin/chromium"
    for word in ("--headless=new", "--no-sandbox", "--disable-dev-shm-usage", "--disable-gpu",
                 "--no-first-run", "--no-proxy-server", "--disable-background-networking",
                 "--window-size=1000,823", f"--user-data-dir={profile}",
                 *([f"--host-resolver-rules={rules}"] if rules else [])):  # fmt: skip
        options.add_argument(word)
    options.set_capability("goog:loggingPrefs", {"performance": "ALL"})
    return Chrome(options=options, service=ChromeService("/usr/bin/chromedriver"))


class Lab:
    """JupyterLab in a browser."""

    def __init__(self, driver: Chrome) -> None:
        self._driver = driver

    def find(self, selector: str) -> WebElement:
        """Return what SELECTOR finds, once it can be clicked on."""
        found: list[WebElement] = []

        def is_there(driver: Any) -> bool:
            found[:] = [one for one in driver.find_elements(By.CSS_SELECTOR, selector)
                        if one.is_displayed()]  # fmt: skip
            return bool(found)

        WebDriverWait(self._driver, WAIT_S).until(is_there, f"not on the page: {selector}")
        return found[0]

    def log_in(self, token: str) -> None:
        """Type TOKEN where the page asks for it."""
        self.find("#password_input").send_keys(token, Keys.ENTER)

    def new_notebook(self) -> None:
        """Click on the first kernel of the launcher, and wait until it is ready."""
        self.find(NOTEBOOK_CARD).click()
        self.ready()
        # It asks once whether it may fetch news; that covers the page.
        with contextlib.suppress(TimeoutException):
            news = ".Toastify__toast .jp-toast-button:last-child"
            WebDriverWait(self._driver, 2).until(
                lambda driver: driver.find_elements(By.CSS_SELECTOR, news)
            )[0].click()

    def ready(self) -> None:
        """Wait until a notebook is open, and its kernel idle."""
        self.find(CELL)
        self.find(IDLE)

    def run_cell(self, number: int, code: str) -> str:
        """Type CODE into cell NUMBER, run it, and return the text of its output."""
        cell = f"{CELL}:nth-of-type({number})"
        self.find(f"{cell} .cm-content").click()
        self._driver.execute_cdp_cmd("Input.insertText", {"text": code})
        WebDriverWait(self._driver, WAIT_S).until(lambda _: self._has_begun(cell))
        return self.find(f"{cell} .jp-OutputArea-output").text

    def _has_begun(self, cell: str) -> bool:
        """Press Shift-Enter in CELL; a page that is not yet connected to its kernel drops that."""
        prompt = f"{cell} .jp-InputPrompt"
        self.find(f"{cell} .cm-content").click()
        keys = ActionChains(self._driver).key_down(Keys.SHIFT).send_keys(Keys.ENTER)
        keys.key_up(Keys.SHIFT).perform()
        with contextlib.suppress(TimeoutException):
            WebDriverWait(self._driver, 3).until(
                lambda _: self.find(prompt).text not in ("", "[ ]:"), "not run"
            )
            return True
        return False

    def wait_kept(self) -> None:
        """Wait until the server knows what is open here, and would open it again."""
        WebDriverWait(self._driver, WAIT_S).until(
            lambda driver: driver.execute_script(KEPT), "the workspace is not kept"
        )

    def kernel(self) -> str:
        """Return the URL of the websocket to the kernel that the browser has opened."""
        for entry in self._driver.get_log("performance"):  # type: ignore[no-untyped-call]
            message = json.loads(entry["message"])["message"]
            if message["method"] == "Network.webSocketCreated":
                url = str(message["params"]["url"])
                if "/channels" in url:
                    return url
        return ""


def main() -> None:
    """Do what is asked for."""
    order = json.load(sys.stdin)
    with tempfile.TemporaryDirectory() as profile:
        # All that it leaves is in there.
        for name in ("XDG_RUNTIME_DIR", "XDG_CONFIG_HOME", "XDG_CACHE_HOME"):
            os.environ[name] = profile
        driver = browser(profile, order.get("names", {}))
        try:
            driver.get(order["url"])
            lab = Lab(driver)
            outputs = []
            if order.get("token"):
                lab.log_in(order["token"])
            if order["cells"]:
                lab.new_notebook()
            for number, code in enumerate(order["cells"], 1):
                outputs.append(lab.run_cell(number, code))
            if order["screenshot"]:
                driver.save_screenshot(order["screenshot"])
            said: dict[str, Any] = {
                "title": driver.title, "outputs": outputs, "url": driver.current_url,
                "kernel": lab.kernel(),
            }  # fmt: skip
            if again := order.get("again"):
                lab.wait_kept()
                driver.get(again["url"])
                lab.ready()
                output = lab.run_cell(1, again["cell"])
                said["again"] = {"output": output, "url": driver.current_url,
                                 "kernel": lab.kernel()}  # fmt: skip
            print(json.dumps(said))  # noqa: T201
        except WebDriverException as error:
            body = driver.find_element(By.TAG_NAME, "body").text
            sys.exit(f"{error.msg}\n{driver.current_url}\n{body[:1000]}")
        finally:
            driver.quit()


if __name__ == "__main__":
    main()
