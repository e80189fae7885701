"""How the page is served, and who gets in."""

from __future__ import annotations

import re

import httpx
from playwright.sync_api import BrowserContext, Page, expect

from tests.conftest import Service


def test_the_page_is_static_and_strict(service: Service) -> None:
    index = httpx.get(service.url)
    assert index.status_code == 200
    assert index.headers["cache-control"] == "no-cache"
    policy = index.headers["content-security-policy"]
    assert "default-src 'none'" in policy
    assert "unsafe" not in policy
    assert "<script>" not in index.text
    assets = re.findall(r'"(/assets/[^"]+)"', index.text)
    assert len(assets) == 3
    for path in assets:
        asset = httpx.get(service.url + path)
        assert asset.status_code == 200, path
        assert "immutable" in asset.headers["cache-control"]
        assert "http://" not in asset.text.replace("http://www.w3.org/", "")
    for path in ("/assets/none.js", "/assets/../page.py", "/assets/%2e%2e/page.py"):
        assert httpx.get(service.url + path).status_code == 404


def test_a_wrong_key_is_told_and_a_right_one_lasts_for_the_tab(
    context: BrowserContext, service: Service
) -> None:
    page = context.new_page()
    page.goto("/")
    page.get_by_label("API key").fill("lk-0000000wrong")
    page.keyboard.press("Enter")
    expect(page.get_by_role("alert")).to_contain_text("wrong, revoked or expired")

    page.get_by_label("API key").fill(service.key)
    page.keyboard.press("Enter")
    expect(page.get_by_role("heading", name="Jobs")).to_be_visible()
    page.reload()
    expect(page.get_by_role("heading", name="Jobs")).to_be_visible()
    other = context.new_page()
    other.goto("/")
    expect(other.get_by_label("API key")).to_be_visible()


def test_the_keyboard_leads_everywhere(page: Page) -> None:
    page.keyboard.press("?")
    shortcuts = page.get_by_role("dialog", name="Keyboard shortcuts")
    expect(shortcuts).to_be_visible()
    page.keyboard.press("Escape")
    expect(shortcuts).to_be_hidden()
    for key, heading in (("f", "Files"), ("m", "Models"), ("n", "New job"), ("j", "Jobs")):
        page.keyboard.press(key)
        expect(page.get_by_role("heading", name=heading, level=1)).to_be_focused()

    page.reload()
    page.keyboard.press("Tab")
    skip = page.get_by_role("link", name="To the content")
    expect(skip).to_be_focused()
    page.keyboard.press("Enter")
    expect(page.locator("main")).to_be_focused()

    before = page.evaluate("getComputedStyle(document.documentElement).backgroundColor")
    page.keyboard.press("t")
    after = page.evaluate("getComputedStyle(document.documentElement).backgroundColor")
    assert before != after
