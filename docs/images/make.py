"""Make the pictures of this folder again, from the demo: `python docs/images/make.py`. Needs Chromium."""  # noqa: INP001 - a script

import json
import re
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from playwright.sync_api import Page, sync_playwright

HERE = Path(__file__).parent
CHROMIUM = "/usr/bin/chromium"
ARGUMENTS = ["--headless", "--no-sandbox", "--disable-gpu"]
WINDOW = {"width": 1024, "height": 1200}  # so tall that Dagster shows every box with its rows


def main() -> None:
    """Run the demo, photograph it, and stop it."""
    with tempfile.TemporaryDirectory() as folder:
        demo = subprocess.Popen(
            [sys.executable, "-m", "bookreader_backup_assets", "demo", "--folder", folder],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        try:
            with sync_playwright() as playwright:
                browser = playwright.chromium.launch(executable_path=CHROMIUM, args=ARGUMENTS)
                page = browser.new_page(viewport=WINDOW, device_scale_factor=1.25)
                photograph(page, address(demo))
                browser.close()
        finally:
            demo.send_signal(signal.SIGINT)
            demo.communicate(timeout=60)


def address(demo: subprocess.Popen[str]) -> str:
    """Return the address of the UI, once the demo has said it."""
    for line in demo.stdout or ():
        if found := re.search(r"http://127\.0\.0\.1:\d+", line):
            return found[0]
    raise SystemExit("the demo has ended before it served the UI")


def photograph(page: Page, url: str) -> None:
    """Write `asset-graph.png`: the manifest, and everything it is made of."""
    rows = json.dumps(["checks", "status", "kind-tag"])
    page.add_init_script(f"localStorage.setItem('asset-node-facets', '{rows}')")
    page.goto(f"{url}/assets/backup_set/manifest?view=lineage&lineageScope=upstream&lineageDepth=1")
    page.get_by_text("Hide navigation").click()
    page.get_by_text("Passed").nth(5).wait_for()
    time.sleep(2)  # the graph is still gliding into its place, and nothing says when it has arrived
    page.screenshot(path=HERE / "asset-graph.png")


if __name__ == "__main__":
    main()
