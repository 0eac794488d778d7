"""Debian's Chromium without a window, driven by its own chromedriver, in a machine.

The sandbox is off: a user namespace in a user namespace is not everywhere allowed.
"""

from __future__ import annotations

import contextlib
import shlex

from selenium.common.exceptions import WebDriverException
from selenium.webdriver import Chrome, ChromeOptions, ChromeService

_PROGRAM = "/usr/bin/chromium"
_DRIVER = "/usr/bin/chromedriver"
_WORDS = (
    "--headless=new",
    "--no-sandbox",
    "--disable-dev-shm-usage",
    "--disable-gpu",
    "--no-first-run",
    "--no-proxy-server",
    "--disable-background-networking",
    "--hide-scrollbars",
)


def command_line(profile: str, *, debugged_at: int) -> str:
    """Return what a shell starts one with, whose profile is PROFILE; a URL is to follow.

    `attached` finds it at the port DEBUGGED_AT of localhost.
    """
    words = (*_WORDS, f"--user-data-dir={profile}", f"--remote-debugging-port={debugged_at}")
    return shlex.join([_PROGRAM, *words])


def attached(address: str) -> Chrome:
    """Take over one that somebody has started, at ADDRESS; it ends with what is returned."""
    options = ChromeOptions()
    options.debugger_address = address
    return Chrome(options=options, service=ChromeService(_DRIVER))


def end_attached(driver: Chrome) -> None:
    """End it, which its driver alone would not."""
    with contextlib.suppress(WebDriverException):
        driver.execute_cdp_cmd("Browser.close", {})
    driver.quit()


def browser(profile: str) -> Chrome:
    """Start one whose profile is in the directory PROFILE."""
    options = ChromeOptions()
    options.binary_location = _PROGRAM
    for word in (*_WORDS, f"--user-data-dir={profile}"):
        options.add_argument(word)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    return Chrome(options=options, service=ChromeService(_DRIVER))


def show_as(driver: Chrome, width: int, height: int, *, is_phone: bool, is_dark: bool) -> None:
    """Show pages as on a screen of WIDTH x HEIGHT (in CSS pixels), light or dark."""
    metrics = {
        "width": width, "height": height, "mobile": is_phone,
        "deviceScaleFactor": 2 if is_phone else 1,
    }  # fmt: skip
    driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)
    scheme = {"name": "prefers-color-scheme", "value": "dark" if is_dark else "light"}
    driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": [scheme]})
