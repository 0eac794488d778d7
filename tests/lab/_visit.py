"""A person at a machine of the laboratory who looks at a page, and at what becomes of it.

Run inside a machine as `python -m tests.lab._visit`: reads lines of JSON from its standard input,
and answers each with one. With an argument, the address of a browser that runs already, it is that
one, as it is. {"open": URL, "width", "height", "is_phone", "is_dark"} loads a page;
{"shot": PATH} keeps a picture of it; {"script": CODE} returns what CODE returns.
"""

from __future__ import annotations

import base64
import json
import pathlib
import sys
import tempfile
from typing import Any

from selenium.common.exceptions import WebDriverException
from selenium.webdriver import Chrome

from tests.lab.chromium import attached, browser, end_attached, show_as


def obey(driver: Chrome, order: dict[str, Any]) -> Any:
    """Do what ORDER says, and return what comes of it."""
    if "open" in order:
        show_as(driver, order["width"], order["height"],
                is_phone=order["is_phone"], is_dark=order["is_dark"])  # fmt: skip
        driver.get(order["open"])
        return driver.title
    if "shot" in order:
        taken = driver.execute_cdp_cmd("Page.captureScreenshot", {"format": "png"})
        pathlib.Path(order["shot"]).write_bytes(base64.b64decode(taken["data"]))
        return None
    if "log" in order:
        return driver.get_log("browser")  # type: ignore[no-untyped-call]
    return driver.execute_script(order["script"])


def main() -> None:
    """Do what is asked for, until nothing more is."""
    if sys.argv[1:]:
        driver = attached(sys.argv[1])
        try:
            serve(driver)
        finally:
            end_attached(driver)
        return
    with tempfile.TemporaryDirectory() as profile:
        driver = browser(profile)
        try:
            serve(driver)
        finally:
            driver.quit()


def serve(driver: Chrome) -> None:
    """Answer each order."""
    for line in sys.stdin:
        try:
            said = {"result": obey(driver, json.loads(line))}
        except WebDriverException as error:
            said = {"error": error.msg}
        print(json.dumps(said), flush=True)  # noqa: T201


if __name__ == "__main__":
    main()
