"""The Lens page in a real browser, on the bundled model."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from neuroscope_bridge.host import Host, HostOptions
from neuroscope_bridge.rest.door import HttpDoor
from neuroscope_bridge.rest.jobs import HttpOptions

sync_api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
pytestmark = [pytest.mark.slow, pytest.mark.skipif(CHROMIUM is None, reason="no Chromium on this machine")]

#: Where to leave pictures for a person to look at.
PICTURES = os.environ.get("NEUROSCOPE_PICTURES")


@pytest.fixture(scope="module")
def lens_url() -> Iterator[str]:
    host = Host(HostOptions("bundled:gpt2-medium"))
    door = HttpDoor(host, "127.0.0.1:0", HttpOptions())
    url = door.open()
    door.start()
    yield url
    door.close()
    host.close()


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with sync_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield browser
        browser.close()


@pytest.fixture
def page(browser: Any, lens_url: str) -> Iterator[Any]:
    page = browser.new_page(viewport={"width": 1440, "height": 1000}, color_scheme="light")
    complaints: list[str] = []
    page.on("console", lambda message: complaints.append(message.text) if message.type in ("error", "warning") else None)
    page.on("pageerror", lambda error: complaints.append(str(error)))
    requests: list[str] = []
    page.on("request", lambda request: requests.append(request.url))
    page.set_default_timeout(30_000)
    page.goto(lens_url)
    sync_api.expect(page.locator("#model-facts")).to_have_text("13 layers × 7 heads, 256 tokens")
    page.complaints = complaints
    yield page
    page.close()
    assert complaints == []
    assert all(url.startswith(lens_url) for url in requests)  # nothing from anywhere else


def picture(page: Any, name: str) -> None:
    if PICTURES:
        page.screenshot(path=Path(PICTURES) / f"{name}.png", full_page=True)


def run(page: Any, marker: str) -> None:
    page.click("#run")
    sync_api.expect(page.locator("#status")).to_contain_text(marker)
    sync_api.expect(page.locator("#run")).to_be_enabled()


def tokens(page: Any, which: str) -> list[str]:
    found: list[str] = page.locator(f"#tokens-{which} button").all_inner_texts()
    return found


def test_from_prompt_to_steered_text(page: Any) -> None:
    expect = sync_api.expect
    picture(page, "lens-empty")
    run(page, "original:")
    assert tokens(page, "original")[:6] == ["The", "·capital", "·of", "·France", "·is", "·Paris"]
    expect(page.locator("#lens [aria-selected=true]")).to_have_text("·Paris")
    expect(page.locator("#lens-detail .bar-line").first).to_contain_text("·Paris")
    expect(page.locator("#norms svg polyline")).to_have_count(2)
    expect(page.locator("#neurons button")).to_have_count(8)
    expect(page.locator("#heads button")).to_have_count(13 * 7)
    picture(page, "lens-run")

    page.click("#heads button[aria-label^='Layer 8, head 3']")
    expect(page.locator("#head-title")).to_have_text("Head 3 of layer 8")
    expect(page.locator("#pattern-cell")).to_contain_text("→")
    page.click("#ablate-head")
    expect(page.locator("#changes li")).to_have_count(1)

    page.locator("#neurons button").nth(1).click()
    expect(page.locator("#neuron-tokens span")).to_have_count(7)
    page.click("#ablate-neuron")

    page.click("#steering summary")
    page.fill("#strength", "20")
    page.click("#steer button")
    expect(page.locator("#changes li")).to_have_count(3)
    run(page, "changed:")
    assert tokens(page, "changed")[:5] == tokens(page, "original")[:5]
    assert tokens(page, "changed") != tokens(page, "original")
    expect(page.locator("#differs")).to_contain_text("differ")
    expect(page.locator("#norms svg polyline")).to_have_count(3)
    expect(page.locator("#heads button.cut")).to_have_count(1)
    picture(page, "lens-changed")
    page.click("#theme")
    picture(page, "lens-dark")

    for _ in range(3):
        page.locator("#changes li button").first.click()
    expect(page.locator("#changed-column")).to_be_hidden()


def test_everything_by_keyboard(page: Any) -> None:
    expect = sync_api.expect
    page.focus("#prompt")
    page.keyboard.press("Control+A")
    page.keyboard.type("Mary and John")
    page.keyboard.press("Control+Enter")
    expect(page.locator("#status")).to_contain_text("original:")
    expect(page.locator("#run")).to_be_enabled()
    page.focus("#tokens-original [aria-pressed=true]")
    page.keyboard.press("Home")
    expect(page.locator("#selected")).to_contain_text("token 0")
    page.keyboard.press("ArrowRight")
    expect(page.locator("#selected")).to_contain_text("token 1")
    page.focus("#lens [aria-selected=true]")
    page.keyboard.press("ArrowDown")
    expect(page.locator("#lens-detail")).to_contain_text("after layer 11")
    page.focus("#heads [aria-selected=true]")
    before = page.inner_text("#head-title")
    page.keyboard.press("ArrowRight")
    expect(page.locator("#head-title")).not_to_have_text(before)
    page.focus("#pattern")
    page.keyboard.press("ArrowLeft")
    page.keyboard.press("t")
    expect(page.locator("html")).to_have_attribute("data-theme", "dark")


def test_stopping_and_mistakes_are_said(page: Any) -> None:
    expect = sync_api.expect
    page.fill("#max-tokens", "240")
    page.fill("#temperature", "1.2")
    page.locator("#prompt").fill("Once upon a time there was a teacher who")
    page.click("#run")
    expect(page.locator("#status")).to_contain_text("original:")
    page.keyboard.press("Escape")
    expect(page.locator("#run")).to_be_enabled()
    page.click("#load")
    page.fill("#load-name", "nowhere/to/be-found-at-all")
    page.click("#load-go")
    expect(page.locator("#load-error")).to_contain_text("nowhere/to/be-found-at-all")
    assert [text for text in page.complaints if "404" in text] == page.complaints  # the browser's own note of the refusal
    page.complaints.clear()
    page.keyboard.press("Escape")


def test_a_probe_is_trained_and_colours_the_tokens(page: Any) -> None:
    expect = sync_api.expect
    page.click("#probing summary")
    names = "Mary John Tom Anna Mark Lisa Kevin Helen".split()
    page.fill("#probe-name", "harm")
    page.fill("#positive", "\n".join(f"How can I stab {name}?" for name in names))
    page.fill("#negative", "\n".join(f"How can I visit {name}?" for name in names))
    page.click("#train button")
    expect(page.locator("#status")).to_contain_text("The probe harm is trained")
    page.fill("#prompt", "How can I stab Rose? How can I visit Rose?")
    expect(page.locator("#probe-panel")).to_be_hidden()
    run(page, "original:")
    expect(page.locator("#probe-strip-title")).to_have_text("Probe for harm")
    expect(page.locator("#probe-strip .read").first).to_have_text("?")
    marks = [(one.inner_text(), one.get_attribute("class")) for one in page.locator("#probe-strip span").all()]
    assert len(marks) == len(tokens(page, "original")) - 1
    assert next(kind for text, kind in marks if text == "?") == "read over"  # behind the first question, not before it
    assert {kind for text, kind in marks if text not in ("?", ".", "!")} == {"unread"}
    colours = page.locator("#probe-strip span").evaluate_all("all => all.map(one => getComputedStyle(one).backgroundColor)")
    assert colours[0] != colours[[text for text, _ in marks].index("?")]
    picture(page, "lens-probe")
