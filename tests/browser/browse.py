"""What a person sees of MLflow in a browser: python browse.py DEBUGGING-PORT FOLDER, with MLFLOW_TRACKING_* in the environment.

It logs in, looks for the run of examples/train_sklearn.py with its metrics and its artifact, and leaves screenshots in the folder.
Run in the environment of the clients.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

from playwright.sync_api import Browser, sync_playwright

_SIZE = {"width": 1280, "height": 800}


def look(browser: Browser, folder: Path) -> None:
    """As the user of the environment."""
    login = {name: os.environ[f"MLFLOW_TRACKING_{name.upper()}"] for name in ("username", "password")}
    context = browser.new_context(http_credentials=login, viewport=_SIZE)
    page = context.new_page()
    refused: list[str] = []
    page.on("response", lambda it: refused.append(f"{it.status} {it.url}") if it.status >= 400 else None)
    page.goto(os.environ["MLFLOW_TRACKING_URI"])
    page.get_by_text("example-iris").first.click()
    page.get_by_text("random-forest").first.click()
    page.get_by_text("f1_macro").first.wait_for()
    page.get_by_text("example-iris-classifier").first.wait_for()
    page.screenshot(path=folder / "mlflow-run.png")
    page.get_by_role("tab", name="Artifacts").click()
    page.get_by_text("classification_report.txt").click()
    page.get_by_text("precision").first.wait_for()
    page.screenshot(path=folder / "mlflow-artifact.png")
    context.close()
    print("refused:", refused)


def look_as_a_stranger(browser: Browser) -> None:
    """Without a password."""
    context = browser.new_context()
    answer = context.new_page().goto(os.environ["MLFLOW_TRACKING_URI"])
    print("stranger:", answer.status if answer else "no answer")
    context.close()


def main(port: str, folder: str) -> None:
    with sync_playwright() as playwright:
        browser = playwright.chromium.connect_over_cdp(f"http://127.0.0.1:{port}")
        look(browser, Path(folder))
        look_as_a_stranger(browser)
        browser.close()


if __name__ == "__main__":
    main(*sys.argv[1:])
