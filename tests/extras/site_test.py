"""The leaderboard in headless Chromium: it sorts, logs no error, and fits a phone."""

import functools
import html
import http.server
import importlib.util
import pathlib
import re
import shutil
import subprocess
import threading

import pytest

ROOT = pathlib.Path(__file__).parents[2]
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="Chromium is not installed")

# Clicks on a heading twice and on a classifier, in a frame as wide as a phone, and writes what it finds.
SCRIPT = """
<iframe src="page.html" style="width: 390px; height: 2000px; border: 0"></iframe><pre id="found"></pre><script>
const frame = document.querySelector("iframe");
frame.addEventListener("load", () => {
  const page = frame.contentDocument;
  const section = [...page.querySelectorAll("section")].at(-1);
  const names = () => [...section.querySelectorAll("tbody tr")].map((row) => row.firstChild.textContent).join(",");
  const click = (selector) => section.querySelector(selector).click();
  const heading = "thead th:nth-child(2) button";
  const found = { first: names() };
  click(heading); found.falling = names();
  click(heading); found.rising = names();
  found.sorted = section.querySelector("thead th:nth-child(2)").getAttribute("aria-sort");
  found.lines = section.querySelectorAll(".robust").length;
  click("tbody button"); found.alone = section.querySelectorAll(".robust").length;
  found.width = page.documentElement.scrollWidth;
  document.getElementById("found").textContent = Object.entries(found).map((pair) => pair.join("=")).join("\\n");
});
</script>
"""


@pytest.fixture(scope="module")
def build():
    spec = importlib.util.spec_from_file_location("site_build", ROOT / "docs" / "site" / "build.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


class Quiet(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *arguments):
        pass


@pytest.fixture
def address(build, tmp_path):
    """Serves the leaderboard on the loopback interface, as its page has it but without the theme."""
    body = re.search(r"````\{raw\} html\n(.*)\n````", build.leaderboard_page(), re.S)[1]
    style = (ROOT / "docs" / "site" / "_static" / "leaderboard.css").read_text()
    head = f'<!doctype html><meta charset="utf-8"><link rel="icon" href="data:,"><style>{style}</style>'
    (tmp_path / "page.html").write_text(head + body)
    (tmp_path / "test.html").write_text(f'<!doctype html><meta charset="utf-8"><link rel="icon" href="data:,">{SCRIPT}')
    handler = functools.partial(Quiet, directory=str(tmp_path))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        yield f"http://127.0.0.1:{server.server_address[1]}"
        server.shutdown()


def test_the_leaderboard_sorts_and_fits_a_phone(build, address):
    options = ["--headless", "--no-sandbox", "--disable-gpu", "--enable-logging=stderr", "--virtual-time-budget=5000"]
    done = subprocess.run(
        [CHROMIUM, *options, "--dump-dom", f"{address}/test.html"], capture_output=True, text=True, timeout=120
    )
    text = html.unescape(re.search(r'<pre id="found">(.*?)</pre>', done.stdout, re.S)[1])
    found = dict(line.split("=") for line in text.splitlines())
    entries = {}
    for path in (ROOT / "docs" / "results" / "leaderboard" / "mnist").rglob("*.json"):
        entries[path.stem] = build.json.loads(path.read_text())["natural_accuracy"]
    falling, rising = (found[order].split(",") for order in ("falling", "rising"))
    assert set(falling) == set(entries)
    assert [entries[name] for name in falling] == sorted(entries.values(), reverse=True)
    assert [entries[name] for name in rising] == sorted(entries.values())
    assert found["first"] != found["rising"] and found["sorted"] == "ascending"
    assert int(found["lines"]) == len(entries) and found["alone"] == "1"
    assert int(found["width"]) <= 390
    assert "CONSOLE" not in done.stderr, done.stderr
