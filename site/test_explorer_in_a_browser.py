"""The explorer in JupyterLab, in a real browser: a slider is moved with the keyboard, and the numbers change.

`make browser` runs it: JupyterLab comes from Binder's environment, playwright from that of the site. The browser is
the one in $BROWSER, a Chromium on the path, or the one that `playwright install chromium` has fetched. The last
picture is runs/site/explorer.png.
"""

import os
import secrets
import shutil
import socket
import subprocess
import time
import urllib.request
from pathlib import Path

import nbformat
import pytest
from playwright.sync_api import expect, sync_playwright

ROOT = Path(__file__).resolve().parents[1]
LAB = Path(os.environ.get("BINDER_ENV", ROOT / ".venv-binder")) / "bin" / "jupyter-lab"
BROWSER = os.environ.get("BROWSER") or shutil.which("chromium") or shutil.which("google-chrome")
CHANGED = "([element, before]) => element.innerText !== before"
WAIT = 180_000  # milliseconds: the first start of a kernel on a busy machine


@pytest.fixture(scope="module")
def lab(tmp_path_factory):
    """The address of a JupyterLab that shows the quickstart's cells up to the explorer, without its prose."""
    folder = tmp_path_factory.mktemp("lab")
    notebook = nbformat.read(ROOT / "notebooks" / "00_quickstart.ipynb", 4)
    notebook.cells = [
        cell for cell in notebook.cells if cell.id in ("parameters", "setup", "records", "one", "explore")
    ]
    nbformat.write(notebook, folder / "00_quickstart.ipynb")
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        port = found.getsockname()[1]
    token = secrets.token_hex(8)
    options = [f"--ServerApp.port={port}", f"--IdentityProvider.token={token}", "--no-browser", "--allow-root"]
    options += ["--LabApp.expose_app_in_browser=True"]
    settings = {"PYTHONPATH": str(ROOT), "CALIB_UTILS_HOME": str(ROOT), "JUPYTER_CONFIG_DIR": str(folder / "config")}
    with (folder / "log").open("w") as log:
        command = [LAB, *options, f"--ServerApp.root_dir={folder}"]
        server = subprocess.Popen(command, env=os.environ | settings, stdout=log, stderr=log)
    try:
        until = time.monotonic() + 120
        while True:
            try:
                urllib.request.urlopen(f"http://127.0.0.1:{port}/api?token={token}", timeout=5)
                break
            except OSError:
                assert server.poll() is None and time.monotonic() < until, (folder / "log").read_text()
                time.sleep(1)
        yield f"http://127.0.0.1:{port}/lab/tree/00_quickstart.ipynb?token={token}"
    finally:
        server.terminate()
        server.wait(30)


@pytest.fixture(scope="module")
def page():
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=BROWSER, args=["--no-sandbox"])
        page = browser.new_page(viewport={"width": 1280, "height": 1000})
        page.set_default_timeout(WAIT)
        yield page
        browser.close()


def test_a_slider_moved_in_jupyterlab_changes_the_numbers_and_the_picture(lab, page):
    page.goto(lab)
    page.wait_for_selector("#jp-main-statusbar >> text=| Idle")  # before that nothing would run
    page.evaluate("window.jupyterapp.commands.execute('notebook:run-all-cells')")
    panel = page.locator(".widget-vbox", has=page.locator(".widget-hslider")).first
    panel.scroll_into_view_if_needed()
    numbers, picture = panel.locator(".widget-html-content").first, panel.locator("img")
    expect(numbers).to_contain_text("noise floor", timeout=WAIT)
    before, drawn = numbers.inner_text(), picture.get_attribute("src")
    slider = panel.get_by_role("slider").first
    slider.focus()
    for _ in range(25):
        slider.press("ArrowLeft")
    expect(panel.locator(".widget-readout").first).to_have_text("25")
    page.wait_for_function(CHANGED, arg=[numbers.element_handle(), before], timeout=WAIT)
    expect(picture).not_to_have_attribute("src", drawn, timeout=WAIT)
    before, stages = numbers.inner_text(), panel.locator("select").first
    stages.select_option(label=stages.locator("option").last.inner_text())
    page.wait_for_function(CHANGED, arg=[numbers.element_handle(), before], timeout=WAIT)
    page.wait_for_selector("#jp-main-statusbar >> text=| Idle")
    page.wait_for_timeout(500)
    target = ROOT / "runs" / "site"
    target.mkdir(parents=True, exist_ok=True)
    panel.screenshot(path=target / "explorer.png")
    page.screenshot(path=target / "lab.png")
