"""Debian's Chromium without a window, driven by its own chromedriver, in a machine.

The sandbox is off: a user namespace in a user namespace is not everywhere allowed.
"""

from __future__ import annotations

from selenium.webdriver import Chrome, ChromeOptions, ChromeService

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


def browser(profile: str) -> Chrome:
    """Start one whose profile is in the directory PROFILE."""
    options = ChromeOptions()
    options.binary_location = "/usr/bin/chromium"
    for word in (*_WORDS, f"--user-data-dir={profile}"):
        options.add_argument(word)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    return Chrome(options=options, service=ChromeService("/usr/bin/chromedriver"))


def show_as(driver: Chrome, width: int, height: int, *, is_phone: bool, is_dark: bool) -> None:
    """Show pages as on a screen of WIDTH x HEIGHT (in CSS pixels), light or dark."""
    metrics = {
        "width": width, "height": height, "mobile": is_phone,
        "deviceScaleFactor": 2 if is_phone else 1,
    }  # fmt: skip
    driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)
    scheme = {"name": "prefers-color-scheme", "value": "dark" if is_dark else "light"}
    driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": [scheme]})
