"""A browser for tests: Debian's Chromium without a window, driven by Selenium."""

import os
import shutil
import time
from collections.abc import Callable
from typing import Any

import pytest
from selenium import webdriver
from selenium.common.exceptions import NoSuchElementException, StaleElementReferenceException

_PROGRAMS = {
    "Chromium": ("chromium", "chromium-browser", "google-chrome"),
    "ChromeDriver": ("chromedriver",),
}


def start_browser() -> webdriver.Chrome:
    """Start Chromium; where it is not installed the test is skipped, but fails with CI=true."""
    found = {}
    for name, commands in _PROGRAMS.items():
        found[name] = next(filter(None, map(shutil.which, commands)), None)
        if found[name] is None:
            reason = f"{name} is not installed: apt-get install chromium chromium-driver"
            if os.environ.get("CI") == "true":
                pytest.fail(reason)
            pytest.skip(reason)
    options = webdriver.ChromeOptions()
    options.binary_location = found["Chromium"]
    for argument in ("--headless=new", "--no-sandbox", "--disable-dev-shm-usage"):
        options.add_argument(argument)
    # With the path given, Selenium downloads no driver.
    return webdriver.Chrome(options, webdriver.ChromeService(found["ChromeDriver"]))


def until(answer: Callable[[], Any], *, seconds: float = 60.0) -> Any:
    """Call `answer` until it returns something true, and return that; fail after a time.

    Elements that are not there yet, or no longer, count as false.
    """
    end = time.monotonic() + seconds
    while True:
        try:
            if value := answer():
                return value
        except (NoSuchElementException, StaleElementReferenceException):
            pass
        if time.monotonic() > end:
            pytest.fail(f"nothing came within {seconds:g} s", pytrace=True)
        time.sleep(0.05)
