"""A report in headless Chromium: no error, nothing fetched, tables are sorted by a click, and a click on a number tells its record.

Usage: page.py REPORT.html PICTURE [WIDTH [dark]]. Exits with 77 where there is no Chromium. The picture is for a person to look at.
"""

import base64
import os
import sys

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, os.path.join(HERE, "../../../lowbit-serve/tests"))
import page as browser  # noqa: E402

WATCH = """
window.faults = [];
addEventListener("error", (event) => faults.push(event.message));
addEventListener("securitypolicyviolation", (event) => faults.push(event.violatedDirective));
console.error = console.warn = (...text) => faults.push(text.join(" "));
"""
SORT = """(() => {
  const head = [...document.querySelectorAll("thead th.num")].find((head) => head.closest("table").tBodies[0].rows.length > 3);
  const values = () => [...head.closest("table").tBodies[0].rows].map((row) => row.cells[head.cellIndex].dataset.v);
  const sorted = (list) => list.every((value, i) => !i || Number(list[i - 1]) <= Number(value));
  head.querySelector("button").click();
  const up = values().filter((value) => value !== undefined);
  head.querySelector("button").click();
  const down = values().filter((value) => value !== undefined).reverse();
  return up.length > 3 && sorted(up) && sorted(down) && up.length === down.length;
})()"""


def main():
    if browser.BROWSER is None:
        sys.exit(77)
    report, picture = os.path.abspath(sys.argv[1]), sys.argv[2]
    width = int(sys.argv[3]) if len(sys.argv) > 3 else 1400
    page = browser.Page("about:blank", width, 900, "dark" in sys.argv)
    page.ask("Page.enable")
    page.ask("Page.addScriptToEvaluateOnNewDocument", source=WATCH)
    page.ask("Page.navigate", url="file://" + report)
    page.wait(lambda: page.run("document.readyState === 'complete' && document.title.length > 0 && 'faults' in window"))
    assert page.run("performance.getEntriesByType('resource').length") == 0, "something is fetched"
    assert not page.run("document.documentElement.scrollWidth > innerWidth"), "the page is wider than the window"
    height = page.run("document.documentElement.scrollHeight")
    page.ask("Emulation.setDeviceMetricsOverride", width=width, height=min(height, 12000), deviceScaleFactor=1, mobile=False)
    with open(picture, "wb") as file:
        file.write(base64.b64decode(page.ask("Page.captureScreenshot")["data"]))
    page.ask("Emulation.setDeviceMetricsOverride", width=width, height=900, deviceScaleFactor=1, mobile=False)
    assert page.run(SORT), "a click on a head sorts the rows, and a second one the other way"
    page.run("document.querySelector('td[data-m]').click()")
    told = page.run("document.querySelector('.origin').textContent")
    assert "SHA-256" in told and "Command" in told, told
    ids = page.run("(() => { const all = [...document.querySelectorAll('[id]')].map((e) => e.id); return all.length - new Set(all).size })()")
    assert ids == 0, "an id stands twice"
    faults = page.run("faults.join('; ')")
    assert not faults, faults
    page.end(picture.replace(".png", "-origin.png"))


main()
