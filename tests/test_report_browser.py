"""The report in a real browser. Needs requirements-browser.txt and a Chromium (see there); skipped without."""

import os
import shutil

import pytest
from report_data import HOSTILE, comparison_of, results_of, sequences_of

from siamdff_jax.evaluation import report

sync_api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed (requirements-browser.txt)")
CHROMIUM = os.environ.get("CHROMIUM") or next(
    filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
if not CHROMIUM:
  pytest.skip("no Chromium found (set CHROMIUM)", allow_module_level=True)

# Chromium as root needs no-sandbox; the others keep it from asking for updates.
FLAGS = ["--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
         "--disable-component-update", "--disable-sync"]
WIDTHS = {"desktop": (1280, 900), "phone": (390, 844)}
# Charts whose marks are drawn: more than the axes, which a chart without data has, too.
MARKS = """() => [...document.querySelectorAll("[data-chart]")].map((place) => {
  const svg = place.querySelector("svg"), canvas = place.querySelector("canvas");
  if (svg) return [place.dataset.chart, [...svg.querySelectorAll(".role-mark path")].filter(
      (path) => path.getBBox().width > 0).length];
  const pixels = new Uint32Array(canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height).data.buffer);
  return [place.dataset.chart, new Set(pixels).size - 10];
})"""


@pytest.fixture(scope="module", params=[3, 21])
def trackers(request):
  names = [f"tracker {i}" for i in range(request.param)]
  names[1] = HOSTILE
  return names


@pytest.fixture(scope="module")
def written(trackers, tmp_path_factory):
  """(comparison, the report's path)."""
  sequences = sequences_of(4, frames=28, pictures=True)
  results = results_of(sequences, trackers)
  comparison = comparison_of(sequences, results)
  folder = tmp_path_factory.mktemp("report")
  report.write(comparison, folder, data="made up", clips=report.make_clips(comparison, sequences, results))
  return comparison, folder / "report.html"


@pytest.fixture(scope="module")
def browser():
  with sync_api.sync_playwright() as playwright:
    browser = playwright.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
    yield browser
    browser.close()


@pytest.fixture
def opened(browser, written):
  """A function that opens the report at a width; afterwards nothing may have failed or been asked for."""
  said, asked, pages = [], [], []

  def open_at(width, height):
    page = browser.new_page(viewport={"width": width, "height": height})
    page.on("console", lambda message: said.append(message.text))  # Warnings, too.
    page.on("pageerror", lambda error: said.append(str(error)))
    page.on("dialog", lambda dialog: (said.append(f"dialog: {dialog.message}"), dialog.dismiss()))
    page.on("request", lambda request: asked.append(request.url))
    page.goto(written[1].as_uri())
    page.wait_for_selector("html[data-drawn]")
    pages.append(page)
    return page

  yield open_at
  for page in pages:
    page.close()
  assert said == []
  assert {url for url in asked if not url.startswith(("data:", "blob:"))} == {written[1].as_uri()}


@pytest.mark.parametrize("name", WIDTHS)
def test_charts_are_drawn_and_fit(opened, written, tmp_path, name):
  width, height = WIDTHS[name]
  page = opened(width, height)
  marks = dict(page.evaluate(MARKS))
  assert set(marks) == {"success", "precision", "normalized_precision", "attributes", "sizes", "speeds", "failures",
                        "presence", "reliability", "overlap-0", "overlap-1", "overlap-2", "overlap-3"}
  assert all(count > 0 for count in marks.values()), marks
  assert marks["success"] == len(written[0].trackers)
  assert page.evaluate("document.documentElement.scrollWidth") <= width
  wider = page.evaluate("""(width) => [...document.querySelectorAll("svg, canvas, img, video, h1, p")].filter(
      (one) => !one.closest(".table, .legend") && one.getBoundingClientRect().right > width).length""", width)
  assert wider == 0
  page.screenshot(path=tmp_path / f"{name}.png", full_page=True)


def column(page, index):
  cells = page.query_selector_all(f"#sequence-table tbody tr > :nth-child({index + 1})")
  return [cell.inner_text().strip() for cell in cells]


def test_the_table_of_sequences_sorts(opened, written):
  comparison, _ = written
  page = opened(1280, 900)
  heads = page.query_selector_all("#sequence-table .heads button")
  names = sorted(comparison.sequences)
  heads[0].click()
  assert column(page, 0) == names
  heads[0].click()
  assert column(page, 0) == names[::-1]
  scores = {name: comparison.scores[comparison.trackers[0]].metrics["sequences"][name]["success_auc"]
            for name in names}
  heads[4].click()  # The best tracker is the first one.
  assert column(page, 0) == sorted(names, key=scores.get)
  # The last tracker's first losses: numbers (of three trackers, 9 and 10 are among them), never lost after all others.
  ranked = sorted(comparison.trackers, key=lambda name: -comparison.estimates[name]["success_auc"].value)
  first = [comparison.failures[ranked[-1]][name].first for name in names]
  assert first.count(None) == 1

  def shown():
    return [text.split()[0] for text in column(page, 2 * len(ranked) + 3)]

  expected = [str(frame) for frame in sorted(frame for frame in first if frame is not None)] + ["–"]
  heads[-1].click()
  assert shown() == expected
  heads[-1].click()
  assert shown() == expected[::-1]
  heads[5].click()  # The best tracker never loses anything: dashes only.
  assert set(column(page, 5)) == {"–"}
  assert page.query_selector_all("#sequence-table th[aria-sort]")[0].inner_text().startswith("lost")


def test_the_legend_picks_a_tracker_out(opened):
  page = opened(1280, 900)
  faint = """() => [...document.querySelectorAll("[data-chart=success] .role-mark path")].filter(
      (path) => Number(path.getAttribute("opacity") ?? 1) < 0.5).length"""
  total = len(page.query_selector_all("[data-chart=success] .role-mark path"))
  button = page.query_selector_all(".legend button")[1]
  assert page.evaluate(faint) == 0
  button.click()
  page.mouse.move(5, 5)
  page.wait_for_function(f"({faint})() === {total - 1}")
  assert button.get_attribute("aria-pressed") == "true"
  button.click()
  page.mouse.move(5, 5)
  page.wait_for_function(f"({faint})() === 0")


def test_the_clip_plays(opened):
  page = opened(1280, 900)
  video = page.query_selector("video")
  video.evaluate("(video) => video.play()")
  page.wait_for_function("document.querySelector('video').currentTime > 0.3")
  assert video.evaluate("(video) => [video.videoWidth, video.videoHeight, video.loop, video.controls]") == [
      724, 320, True, True]


def test_dark(browser, written, tmp_path):
  page = browser.new_page(viewport={"width": 1280, "height": 900}, color_scheme="dark")
  page.goto(written[1].as_uri())
  page.wait_for_selector("html[data-drawn]")
  label = page.evaluate("getComputedStyle(document.querySelector('[data-chart] .role-axis-label text')).fill")
  assert label == "rgb(154, 164, 179)" and "rgb(20, 23, 28)" in page.evaluate(
      "getComputedStyle(document.body).backgroundColor")
  page.screenshot(path=tmp_path / "dark.png")
  page.close()
