"""Open a page in a browser without a window, and have it report of itself."""

import json
import re
import shutil
import subprocess

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)

# What is wider than a phone, what is loaded from elsewhere, the colours, and what there is to see.
PROBE = """<script>addEventListener("load", () => {
  const wide = [...document.querySelectorAll("body *")].filter(e => !e.closest(".scroll, .skip, svg")
    && e.getBoundingClientRect().right > innerWidth + 1).map(e => e.tagName);
  document.title = JSON.stringify({wide, paper: getComputedStyle(document.body).backgroundColor,
    ink: getComputedStyle(document.querySelector("figure svg")).color,
    loaded: performance.getEntriesByType("resource").length, svgs: document.querySelectorAll("figure svg").length,
    focusable: document.querySelectorAll("a[href], [tabindex='0']").length});
});</script>"""


def opened(page, folder, *, dark=False):
    """The page's report and its text, after the checks that every page must pass."""
    probed = folder / "probed.html"
    probed.write_text(page.read_text().replace("</head>", PROBE + "</head>"))
    command = [CHROMIUM, "--headless", "--no-sandbox", "--disable-gpu", f"--user-data-dir={folder / 'profile'}"]
    command += ["--enable-logging=stderr", "--window-size=500,900", "--dump-dom"]
    command += ["--blink-settings=preferredColorScheme=0"] if dark else []
    done = subprocess.run([*command, probed.as_uri()], capture_output=True, text=True, check=True, timeout=60)
    assert "CONSOLE" not in done.stderr
    report = json.loads(re.search(r"<title>(\{.*?\})</title>", done.stdout)[1])
    assert report["wide"] == []
    assert report["loaded"] == 0
    assert report["ink"] != report["paper"]
    return report, done.stdout
