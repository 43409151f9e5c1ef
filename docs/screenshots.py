"""Make the two screenshots of the pages, report.png and page.png, of an evaluated run of the sample: `make demo` leaves one.

    python docs/screenshots.py runs/sample

Needs playwright (requirements-dev.txt) and Chromium: `apt-get install chromium`.
"""

from __future__ import annotations

import argparse
import shutil
from pathlib import Path
from threading import Thread
from typing import Any

from playwright.sync_api import sync_playwright

from segnet.inference.predictor import Predictor
from segnet.web.server import Server

FOLDER = Path(__file__).parent
PICTURE = Path("data/sample/JPEGImages/sample_00004.jpg")
REPORT = {"viewport": {"width": 1120, "height": 1860}, "device_scale_factor": 0.75}
PAGE = {"viewport": {"width": 1000, "height": 860}}


def main() -> None:
    """Write both pictures beside this file."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path, metavar="RUN", help="a run of configs/sample.yaml that was evaluated on val")
    run = parser.parse_args().run
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=shutil.which("chromium"))
        save_report(browser.new_page(**REPORT), run / "evaluation" / "val" / "report.html")
        save_page(browser.new_page(**PAGE), run)
        browser.close()


def save_report(page: Any, report: Path) -> None:
    """The top of a report, with the picture that it shows first."""
    page.goto(report.resolve().as_uri())
    page.wait_for_selector("#viewer:visible")
    page.screenshot(path=FOLDER / "report.png")


def save_page(page: Any, run: Path) -> None:
    """The page of `segnet serve` after it has answered a picture."""
    server = Server(Predictor(run), "127.0.0.1", 0)
    thread = Thread(target=server.serve)
    thread.start()
    try:
        page.goto(server.listener.url)
        page.wait_for_selector("#choose:enabled")
        page.set_input_files("#file", PICTURE)
        page.locator("#status").filter(has_text=f"Done: {PICTURE.name}").wait_for()
        page.screenshot(path=FOLDER / "page.png")
    finally:
        server.stop()
        thread.join()


if __name__ == "__main__":
    main()
