"""The dashboard in a real Chromium: live runs, alarms, keyboard, sweeps, proxies, exports."""

from __future__ import annotations

import contextlib
import json
import os
import re
import signal
import subprocess
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Browser, Page, Route, expect

from modtrain.dashboard.access import Access
from modtrain.dashboard.delta import delta
from modtrain.dashboard.routes import STATIC
from modtrain.dashboard.static_export import export
from modtrain.scheduling.config import Config
from modtrain.storage.run import Run
from modtrain.sweeps.sweep import Sweep, new_sweep
from modtrain.training.evaluation import evaluate, final_evaluation
from tests.support import SUPPORT
from tests.support.browsing import Tab, chromium, file_origin, tab
from tests.support.proxy import proxy
from tests.support.runs import finish, make_run, start_worker
from tests.support.serving import Served, copied, eventually, served, trained

TRIO = SUPPORT / "trio.py"
MODULES = ("encoder", "translator", "critic")
HOSTILE = "<img src=x onerror=alert(1)>\"'&lt;\u202eabc"

expect.set_options(timeout=60_000)


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with chromium() as started:
        yield started


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("all runs")


@pytest.fixture(scope="module")
def live(root: Path) -> Iterator[Run]:
    """Three real workers that go on training until the tests are over."""
    run = make_run(root / "trio", TRIO, [[module] for module in MODULES], epochs=5000, params={"pause_s": 0.2})
    workers = [start_worker(run, module) for module in MODULES]
    try:
        yield run
    finally:
        for worker in workers:
            end(worker)


@pytest.fixture(scope="module")
def doomed(root: Path) -> Iterator[tuple[Run, subprocess.Popen[str]]]:
    """A worker that is not restarted, and its run."""
    place = [["encoder"], ["translator", "critic"]]
    run = make_run(root / "doomed", TRIO, place, epochs=5000, params={"pause_s": 0.2})
    worker = start_worker(run, "encoder")
    try:
        yield run, worker
    finally:
        end(worker)


def end(worker: subprocess.Popen[str]) -> None:
    with contextlib.suppress(ProcessLookupError):
        worker.kill()
    worker.communicate(timeout=60)


@pytest.fixture(scope="module")
def one(root: Path, live: Run, doomed: object, tiny_recipe: Path) -> Iterator[Served]:
    """A dashboard of a live run, a finished one, a sweep, one with a hostile name and one that is broken."""
    done = trained(root, "done", tiny_recipe)
    copied(done, root / HOSTILE.replace("/", ""))
    (root / "torn").mkdir()
    (root / "torn" / "run.json").write_text('{"recipe": "tin')
    spec = new_sweep(Config(recipe=str(tiny_recipe), epochs=2), {"lr": [0.001, 0.01, 0.05]}, metric="mean")
    sweep = Sweep.create(root / "rates", spec)
    for number in range(3):
        finish(sweep.begin(number))
        final_evaluation(sweep.begin(number))
    with served(root, refresh_s=0.5) as server:
        yield server


@pytest.fixture
def pictured(live: Run) -> Run:
    """The live run, which has been evaluated at least once."""
    if not live.evaluations_path.exists():
        published(live, 1)
        evaluate(live)
    return live


@pytest.fixture
def seen(browser: Browser, one: Served) -> Iterator[Tab]:
    with tab(browser, one.url + "/") as opened:
        yield opened


def test_the_scripts_make_no_markup_of_text_and_know_no_other_host() -> None:
    scripts = sorted(STATIC.glob("*.js"))
    assert len(scripts) > 10
    for script in scripts:
        text = script.read_text()
        for word in ("innerHTML", "outerHTML", "insertAdjacentHTML", "document.write", "eval(", "DOMParser"):
            assert word not in text, f"{script.name} uses {word}"
        assert "//" not in text.replace("http://www.w3.org/2000/svg", ""), f"{script.name} names a host"
        assert len(text.splitlines()) <= 300


def versions(page: Page) -> int:
    return int(page.locator("svg.lanes").get_attribute("data-versions") or 0)


def published(run: Run, least: int) -> None:
    def ready() -> bool | None:
        newest = [run.store(module).latest() for module in run.modules]
        return all(c is not None and c.full and c.version >= least for c in newest) or None

    eventually(ready, timeout_s=120)


def test_a_live_run_of_three_workers_grows_without_a_reload(seen: Tab, live: Run) -> None:
    published(live, 0)  # the processes have started
    page = seen.open()
    page.get_by_role("link", name="trio", exact=True).click()
    expect(page.locator("svg.lanes [data-module]")).to_have_count(3)
    page.evaluate("window.stayed = true")
    eventually(lambda: (page.wait_for_timeout(100), versions(page))[1] >= 6 or None)
    before = versions(page)
    eventually(lambda: (page.wait_for_timeout(100), versions(page))[1] > before or None)
    assert page.evaluate("window.stayed"), "the lanes grew without a reload"
    expect(page.locator("svg.lanes .link").first).to_be_attached()
    expect(page.locator("svg.lanes .life")).to_have_count(3)
    page.locator(".chart").first.scroll_into_view_if_needed()
    expect(page.locator(".chart .main-svg").first).to_be_visible()
    seen.is_clean()


def test_an_update_keeps_focus_choices_and_scroll_position(seen: Tab, live: Run) -> None:
    page = seen.open("run/trio/")
    view = page.locator(".laneview")
    view.focus()
    published(live, 1)
    eventually(lambda: (page.wait_for_timeout(100), versions(page))[1] >= 6 or None)
    page.keyboard.press("ArrowUp")
    page.keyboard.press("ArrowLeft")
    expect(page.locator(".pickedname")).not_to_contain_text("newest")
    picked = page.locator(".pickedname").inner_text()
    page.get_by_label("log scale").check()
    page.evaluate("scrollTo(0, 300)")
    before = versions(page)
    eventually(lambda: (page.wait_for_timeout(100), versions(page))[1] > before or None)
    assert page.locator(".pickedname").inner_text() == picked
    assert page.evaluate("document.activeElement.classList.contains('laneview') || document.activeElement.type") in (
        True,
        "checkbox",
    )
    assert page.get_by_label("log scale").is_checked()
    assert page.evaluate("scrollY") == 300
    seen.is_clean()


def test_the_slider_changes_the_picture_and_follows_the_newest(seen: Tab, live: Run) -> None:
    published(live, 1)
    evaluate(live)
    page = seen.open("run/trio/")
    picture = page.locator("img.grid")
    expect(picture).to_be_visible()
    first = picture.get_attribute("src")
    published(live, max(c.version for m in live.modules if (c := live.store(m).latest())) + 1)
    evaluate(live)
    expect(picture).not_to_have_attribute("src", str(first))
    slider = page.get_by_label("Version of the sample grid")
    slider.focus()
    page.keyboard.press("ArrowLeft")
    expect(picture).to_have_attribute("src", str(first))
    assert picture.evaluate("(img) => img.decode().then(() => img.naturalWidth)") == 48
    expect(slider).to_have_attribute("aria-valuetext", re.compile("1 of 2"))
    seen.is_clean()


def test_a_worker_that_is_killed_becomes_an_alarm(seen: Tab, doomed: tuple[Run, subprocess.Popen[str]]) -> None:
    run, worker = doomed
    eventually(lambda: run.read_report("encoder").state == "running" or None, timeout_s=120)
    page = seen.open()
    row = page.get_by_role("row").filter(has=page.get_by_role("link", name="doomed", exact=True))
    expect(row).to_contain_text("running")
    seen.open("run/doomed/")
    expect(page.locator(".alarm-bad")).to_have_count(0)
    os.kill(worker.pid, signal.SIGKILL)
    worker.wait(timeout=60)
    alarm = page.locator(".alarm-bad")
    expect(alarm).to_contain_text("encoder")
    expect(alarm.locator("code").first).to_contain_text("modtrain launch")
    expect(page.locator(".alarms")).to_have_attribute("aria-live", "polite")
    seen.open()
    expect(row.locator(".alarmlist")).to_contain_text("encoder")
    expect(row).to_have_class("odd")
    seen.is_clean()


def test_a_server_that_goes_and_comes_back_is_reported_and_nothing_reloads(
    browser: Browser, root: Path, one: Served
) -> None:
    folder = root / "done"
    with contextlib.ExitStack() as stack:
        with served(folder, refresh_s=0.5) as first:
            seen = stack.enter_context(tab(browser, first.url + "/"))
            seen.page.clock.install()
            page = seen.open("run/")
            page.evaluate("window.stayed = true")
            word = page.locator(".live .word")
            eventually(lambda: first.pages.viewed or None)
            expect(word).to_have_text("live")
        page.clock.fast_forward(3_000)
        expect(word).to_have_text(re.compile(r"^no answer since \d\d:\d\d$"))
        expect(page).to_have_title("no answer · finished · done")
        assert "fetch" in (page.locator(".live").get_attribute("title") or "")
        again = stack.enter_context(served(folder, refresh_s=0.5, port=first.port))
        page.clock.fast_forward(16_000)
        expect(word).to_have_text("live")
        expect(page).to_have_title("finished · done")
        assert again.pages.viewed
        assert page.evaluate("window.stayed")


def wait_for_one_more(page: Page, items: list[Any]) -> None:
    count = len(items)
    eventually(lambda: (page.wait_for_timeout(50), len(items) > count)[1] or None, timeout_s=30)


def test_an_error_of_the_server_is_reported_and_the_page_asks_again_less_often(seen: Tab) -> None:
    seen.page.clock.install()
    requests: list[str] = []

    def refuse(route: Route) -> None:
        requests.append(route.request.url)
        route.fulfill(status=503, body="not now")

    seen.page.route("**/data/run/done*", refuse)
    page = seen.open("run/done/")
    word = page.locator(".live .word")
    expect(word).to_contain_text("no answer since")
    for _ in range(4):
        page.clock.fast_forward(16_000)
        wait_for_one_more(page, requests)
    count = len(requests)
    page.clock.fast_forward(10_000)
    page.wait_for_timeout(200)
    assert len(requests) == count, "every 15 s by now"
    page.unroute("**/data/run/done*")
    page.clock.fast_forward(16_000)
    expect(word).to_have_text("live")


def test_a_page_without_news_gets_empty_answers(seen: Tab) -> None:
    seen.page.clock.install()
    statuses: list[int] = []
    seen.page.on("response", lambda answer: statuses.append(answer.status) if "/data/" in answer.url else None)
    page = seen.open("run/done/")
    expect(page.locator(".live .word")).to_have_text("live")
    for _ in range(3):
        page.clock.fast_forward(2_500)
        wait_for_one_more(page, statuses)
    assert statuses[0] == 200
    assert set(statuses[1:]) == {304}
    seen.is_clean()


CHANGES: list[tuple[Any, Any]] = [
    ({"a": 1, "b": [1, 2], "c": {"d": None}}, {"a": 1, "b": [1, 2, 3], "c": {"d": 2.5, "e": "x"}}),
    ({"gone": 1, "lines": ["a", "b", "c"]}, {"lines": ["b", "c", "d"]}),
    ([{"name": "x", "step": 1}, {"name": "y", "at": [1, 2]}], [{"name": "x", "step": 2}, {"name": "y", "at": [1, 5]}]),
    ([{"n": 1}, {"n": 2}, {"n": 3}], [{"n": 2}, {"n": 3}, {"n": 4, "to": None}]),
    ([1, 2, 3], []),
    ({"to": None}, {"to": [None]}),
]


def test_the_browser_applies_an_update_as_the_server_means_it(seen: Tab) -> None:
    page = seen.open()
    for old, new in CHANGES:
        assert page.evaluate("([old, change]) => modtrain.applyDelta(old, change)", [old, delta(old, new)]) == new


def test_data_that_cannot_be_drawn_is_reported_and_the_page_goes_on(seen: Tab, live: Run) -> None:
    broken = True

    def page_of(route: Route) -> None:
        text = route.fetch().text()
        route.fulfill(body=text.replace('"lanes":[', '"lanes":null,"real":['), content_type="text/html")

    def data_of(route: Route) -> None:
        answer = route.fetch()
        route.fulfill(json={**answer.json(), **({"lanes": None} if broken else {})})

    seen.page.route("**/run/trio/", page_of)
    seen.page.route("**/data/run/trio", data_of)
    page = seen.page
    with page.expect_response("**/data/run/trio"):
        page.goto(f"{seen.origin}run/trio/")
    alert = page.get_by_role("alert")
    expect(alert).to_contain_text("This page could not be drawn")
    expect(page.locator(".live .word")).to_have_text("live")
    broken = False
    expect(alert).to_be_empty()
    assert versions(page) > 0
    broken = True
    expect(alert).to_contain_text("could not be drawn")
    expect(page.locator(".live .word")).to_have_text("live")
    assert versions(page) > 0, "what was drawn before still stands"
    assert seen.complaints, "and a developer sees where"


def test_a_hidden_page_asks_for_nothing(seen: Tab, live: Run) -> None:
    page = seen.open("run/trio/")
    hide = """(hidden) => {
      Object.defineProperty(document, "hidden", { value: hidden, configurable: true });
      document.dispatchEvent(new Event("visibilitychange"));
    }"""
    expect(page.locator(".live")).to_have_attribute("data-state", "live")
    page.evaluate(hide, True)
    expect(page.locator(".live")).to_have_attribute("data-state", "paused")
    asked: list[str] = []
    page.on("request", lambda request: asked.append(request.url) if "/data/" in request.url else None)
    before = versions(page)  # an answer that is under way may still come
    published(live, max(c.version for m in live.modules if (c := live.store(m).latest())) + 2)
    page.wait_for_timeout(100)
    assert asked == []
    expect(page.locator(".live")).to_have_attribute("data-state", "paused")
    page.evaluate(hide, False)
    eventually(lambda: (page.wait_for_timeout(100), versions(page))[1] > before or None)
    assert asked
    expect(page.locator(".live")).to_have_attribute("data-state", "live")
    seen.is_clean()


def test_a_sweep_sorts_by_its_headers(seen: Tab) -> None:
    page = seen.open("sweep/rates/")
    rates = page.locator("td.varied")
    expect(rates).to_have_count(3)
    header = page.get_by_role("columnheader", name="lr")
    header.get_by_role("button").focus()
    page.keyboard.press("Enter")
    assert rates.all_inner_texts() == ["0.001", "0.01", "0.05"]
    expect(header).to_have_attribute("aria-sort", "ascending")
    page.keyboard.press("Enter")
    assert rates.all_inner_texts() == ["0.05", "0.01", "0.001"]
    expect(header).to_have_attribute("aria-sort", "descending")
    expect(page.locator("svg.parallel .trial")).to_have_count(3)
    page.keyboard.press("Tab")
    seen.is_clean()


def test_the_filter_works_by_keyboard_alone(seen: Tab) -> None:
    page = seen.open()
    expect(page.get_by_role("link", name="done", exact=True)).to_be_visible()
    page.keyboard.press("/")
    page.keyboard.type("tiny finished done")
    links = page.locator(".rowname")
    expect(links).to_have_text(["done"])
    page.keyboard.press("ArrowDown")
    expect(links.first).to_be_focused()
    page.keyboard.press("/")
    page.keyboard.press("Escape")
    eventually(lambda: links.count() > 3 or None)
    page.keyboard.press("ArrowDown")
    page.keyboard.press("ArrowDown")
    expect(links.nth(1)).to_be_focused()
    page.keyboard.press("Enter")
    page.wait_for_selector(".runhead, .alarm")
    seen.is_clean()


def test_a_name_is_text_and_a_broken_run_breaks_nothing(seen: Tab) -> None:
    page = seen.open()
    link = page.get_by_role("link", name=HOSTILE, exact=True)
    expect(link).to_be_visible()
    torn = page.get_by_role("row").filter(has=page.get_by_role("link", name="torn", exact=True))
    expect(torn).to_contain_text("broken")
    expect(torn.locator(".alarmlist")).not_to_be_empty()
    link.click()
    expect(page.get_by_role("heading", level=1)).to_have_text(HOSTILE)
    expect(page.locator("svg.lanes [data-module]")).to_have_count(2)
    page.locator(".pickedname a").first.click()
    page.wait_for_url("**/checkpoint/**")
    expect(page.get_by_role("heading", name="Lineage")).to_be_visible()
    assert page.locator("img[src='x']").count() == 0
    seen.is_clean()


def test_a_foreign_heartbeat_leaves_the_rest_of_the_page(seen: Tab, root: Path, one: Served) -> None:
    odd = Run.open(copied(Run.open(root / "done"), root / "odd")).module_path("generator")
    (odd / "heartbeat.json").write_text(json.dumps({"state": "running", "steps_per_s": "fast", "left_s": "long"}))
    with (odd / "workers.jsonl").open("a") as file:
        file.write(json.dumps({"what": "began", "at": 1e12}) + "\n")
    eventually(lambda: one.get("/data/run/odd").status_code == 200 or None)
    page = seen.open("run/odd/")
    expect(page.get_by_role("heading", name="Logs")).to_be_visible()
    expect(page.locator(".scroll[aria-label='Modules and their workers']")).to_contain_text("discriminator")
    assert page.locator("svg.lanes .tick").count() < 100
    seen.is_clean()


def page_with(seen: Tab, one: Served, address: str, **changes: Any) -> Page:
    """A page with these data."""
    data = {**one.data(address), **changes}
    seen.page.route(f"**/data/{address}", lambda route: route.fulfill(json=data))
    return seen.open("" if address == "runs" else f"{address}/")


def test_a_foreign_row_does_not_keep_the_page_from_updating(seen: Tab, one: Served) -> None:
    rows = one.data("runs")["runs"]
    foreign = {**rows[0], "path": "foreign", "name": "foreign", "recipe": 5}
    silent = "qstat does not answer: what waits for it is shown as of its last answer."
    page = page_with(seen, one, "runs", runs=[*rows, foreign], unsearched=True, silent=silent)
    expect(page.get_by_role("row").filter(has_text="foreign")).to_contain_text("5")
    expect(page.get_by_text("not all were searched")).to_be_visible()
    expect(page.get_by_text(silent)).to_be_visible()
    seen.is_clean()


def test_a_lost_worker_has_no_rate_and_one_that_waits_is_drawn(seen: Tab, one: Served) -> None:
    data = one.data("run/done")
    lost, waits = (dict(module) for module in data["modules"])
    lost["state"] = "lost"
    workers = [
        {**worker, "state": "lost", "steps_per_s": 3.5, "left_s": 77.0, "last_report_at": 1e9}
        for worker in data["workers"]
    ]
    first, second = (dict(lane) for lane in data["lanes"])
    second["waits"] = [{"from": data["at"] - 65, "to": None, "for": "generator"}]
    page = page_with(seen, one, "run/done", modules=[lost, waits], workers=workers, lanes=[first, second])
    row = page.locator("tbody tr").filter(has_text=lost["name"]).first
    expect(row).to_contain_text(re.compile("last report 9 Sept? 2001"))
    expect(row).not_to_contain_text("/s")
    expect(row).not_to_contain_text("left")
    expect(page.locator("svg.lanes .wait.open title")).to_have_text("has waited 1 min 5 s for generator")
    seen.is_clean()


def test_a_log_of_two_modules_is_shown_once_and_defaults_are_named(seen: Tab, one: Served) -> None:
    lines = ["12:00 epoch 1", "12:01 epoch 2", "12:02 epoch 3"]
    logs = [
        {"module": "generator", "lines": lines[:2], "size": 28},
        {"module": "discriminator", "lines": lines[1:], "size": 42},
    ]
    config = [
        {"name": "epochs", "value": 7, "default": 5, "differs": True},
        {"name": "exchange_every", "value": 3, "default": None, "differs": True},
        {"name": "max_staleness", "value": None, "default": None, "differs": False},
        {"name": "lr", "value": 0.5, "default": 0.5, "differs": False},
        {"name": "dataroot", "value": "fruits", "default": None, "differs": False},
    ]
    page = page_with(seen, one, "run/done", config=config, logs=logs)
    expect(page.get_by_text("2 settings differ from the default.")).to_be_visible()
    expect(page.locator(".logs pre")).to_have_count(1)
    expect(page.locator(".logs summary .module")).to_have_text(["generator", "discriminator"])
    page.get_by_text("All 3 other settings").click()
    table = page.get_by_label("Settings that differ from the defaults")
    expect(table.locator("tbody tr")).to_have_text(["epochs75", "exchange_every3none"])
    rest = page.get_by_label("All other settings").locator("tbody tr")
    expect(rest).to_have_text(["max_stalenessnonesame", "lr0.5same", "datarootfruits"])
    seen.is_clean()


def test_trials_beyond_the_table_are_counted(seen: Tab, one: Served) -> None:
    page = page_with(seen, one, "sweep/rates", more_pending=812)
    expect(page.get_by_text("and 812 more trials that have not begun")).to_be_visible()
    seen.is_clean()


def test_scrolling_by_touch_leaves_the_lanes_growing(seen: Tab, live: Run) -> None:
    page = seen.open("run/trio/")
    expect(page.locator("svg.lanes [data-module]")).to_have_count(3)
    page.locator(".laneview").dispatch_event("pointerdown", {"clientX": 100})
    page.locator(".laneview").dispatch_event("pointercancel")
    before = versions(page)
    eventually(lambda: (page.wait_for_timeout(100), versions(page))[1] > before or None)
    seen.is_clean()


def test_a_checkpoint_has_its_lineage_and_verifies(seen: Tab, root: Path) -> None:
    page = seen.open("checkpoint/done/discriminator/1/")
    expect(page.locator(".lineage")).to_contain_text("no frozen peer")
    page.get_by_role("button", name="Verify").click()
    expect(page.get_by_text("Every file is intact.")).to_be_visible()
    with page.expect_download() as saved:
        page.get_by_role("link", name="weights.safetensors").click()
    stored = root / "done" / "modules" / "discriminator" / "checkpoints" / "00000001" / "weights.safetensors"
    assert Path(saved.value.path()).read_bytes() == stored.read_bytes()
    page.get_by_role("link", name="version 2 ›").click()
    expect(page.get_by_role("heading", level=1)).to_contain_text("version 2")
    seen.is_clean()


@pytest.mark.parametrize("keeps", [True, False], ids=["the proxy keeps its prefix", "the proxy strips its prefix"])
def test_behind_a_proxy_every_link_leads_somewhere(
    browser: Browser, one: Served, pictured: Run, root: Path, *, keeps: bool
) -> None:
    prefix = "/rnode/node1/8787"
    access = Access(prefix=prefix, token="a token that is long")
    with contextlib.ExitStack() as stack:
        hidden = stack.enter_context(served(root, access, refresh_s=0.5))
        url = stack.enter_context(proxy(prefix, hidden.port, keeps=keeps))
        seen = stack.enter_context(tab(browser, url))
        page = seen.page
        page.goto(url + "?token=a%20token%20that%20is%20long")
        page.get_by_role("link", name="trio", exact=True).click()
        expect(page.locator("svg.lanes [data-module]")).to_have_count(3)
        before = eventually(lambda: (page.wait_for_timeout(100), versions(page))[1] or None)
        eventually(lambda: (page.wait_for_timeout(100), versions(page))[1] > before or None)
        expect(page.locator(".live")).to_have_attribute("data-state", "live")
        expect(page.locator("img.grid")).to_be_visible()
        page.locator(".pickedname a").first.click()
        expect(page.get_by_role("heading", name="Lineage")).to_be_visible()
        page.get_by_role("link", name="runs", exact=True).click()
        expect(page.get_by_role("link", name="done", exact=True)).to_be_visible()
        assert page.url == url
        seen.is_clean()


def test_an_export_opens_from_disk(browser: Browser, one: Served, pictured: Run, root: Path, tmp_path: Path) -> None:
    target = tmp_path / "as files"
    export(root, target)
    with tab(browser, file_origin(target)) as seen:
        scripts = requested(seen.page, "plotly.min.js")
        page = seen.open("index.html")
        expect(page.locator(".live")).to_contain_text("as of")
        page.get_by_role("link", name="trio", exact=True).click()
        expect(page.locator("svg.lanes [data-module]")).to_have_count(3)
        assert scripts == []
        page.locator(".chart").first.scroll_into_view_if_needed()
        expect(page.locator(".chart .main-svg").first).to_be_visible()
        assert len(scripts) == 1
        assert page.locator("img.grid").evaluate("(img) => img.decode().then(() => img.naturalWidth)") == 48
        page.locator(".pickedname a").first.click()
        expect(page.get_by_role("heading", name="Lineage")).to_be_visible()
        assert page.get_by_role("button", name="Verify").count() == 0
        page.get_by_role("link", name="runs", exact=True).click()
        page.get_by_role("link", name=HOSTILE, exact=True).click()
        expect(page.get_by_role("heading", level=1)).to_have_text(HOSTILE)
        seen.is_clean()


def requested(page: Page, name: str) -> list[str]:
    """The requests from now on for a file of this name."""
    urls: list[str] = []
    page.on("request", lambda request: urls.append(request.url) if request.url.endswith(f"/{name}") else None)
    return urls


def test_plotly_is_loaded_when_a_chart_comes_near_or_the_page_is_printed(seen: Tab) -> None:
    scripts = requested(seen.page, "plotly.min.js")
    seen.page.set_viewport_size({"width": 1280, "height": 400})
    seen.page.route("**/plotly.min.js", lambda route: route.abort())
    page = seen.open("run/done/")
    charts = page.locator(".chart:visible")
    places = charts.evaluate_all(PLACES)
    expect(page.locator(".live .word")).to_have_text("live")
    assert scripts == []
    charts.first.scroll_into_view_if_needed()
    expect(charts.first).to_have_text("The charts need static/plotly.min.js, which did not load.")
    assert len(scripts) == 1
    page.unroute("**/plotly.min.js")
    page.evaluate("window.print = () => (window.printed = document.querySelectorAll('.chart .main-svg').length > 0)")
    page.keyboard.press("Control+p")
    eventually(lambda: page.evaluate("window.printed") or None)
    assert len(scripts) == 2
    expect(charts.first.locator(".note")).to_have_count(0)
    assert charts.evaluate_all(PLACES) == places
    page.reload()
    shown = "() => (dispatchEvent(new Event('beforeprint')), document.querySelector('.chart').textContent)"
    assert page.evaluate(shown) == "This chart had not been loaded; print the page again."
    expect(charts.first.locator(".note")).to_have_count(0)


PLACES = """(boxes) => boxes.map((box) => box.getBoundingClientRect()).map((box) => [box.top + scrollY, box.height])"""
DRAWN = """(boxes) => boxes.map((box) =>
  [box, box.querySelector(".main-svg")].map((node) => Math.round(node?.getBoundingClientRect().width)))"""
OVERPRINTED = """(texts) => {
  const boxes = texts.map((node) => node.getBoundingClientRect());
  return boxes.flatMap((a, i) => boxes.slice(i + 1)
    .filter((b) => a.left < b.right && b.left < a.right && a.top + 1 < b.bottom && b.top + 1 < a.bottom)).length;
}"""


def trial(number: int, result: float | None, **values: Any) -> dict[str, Any]:
    metrics = {} if result is None else {"mean": result}
    settled = {"number": number, "path": f"rates/trial-{number}", "state": "finished", "epoch": 2, "why": ""}
    return {**settled, "values": values, "result": result, "metrics": metrics}


def test_the_metric_of_a_sweep_is_named_before_any_trial_has_it(seen: Tab, one: Served) -> None:
    sweep = {**one.data("sweep/rates")["sweep"], "metric": None}
    page = page_with(seen, one, "sweep/rates", sweep=sweep, trials=[trial(0, None, lr=0.1)], curves=[])
    expect(page.locator(".facts")).to_contain_text("the highest mean")
    expect(page.get_by_role("columnheader", name="mean")).to_have_attribute("aria-sort", "descending")
    expect(page.get_by_role("columnheader", name="Why")).to_have_count(0)
    expect(page.locator(".axisname")).to_have_text(["lr", "mean"])
    seen.is_clean()


def test_the_ticks_of_parallel_coordinates_are_readable(seen: Tab, one: Served) -> None:
    results = [0.9075, 0.9038, 0.1, 0.904, 0.2, 0.3, 0.4, 0.5]
    trials = [trial(n, result, seed=30 + n, lr=5e-4 * (1 + n % 2)) for n, result in enumerate(results)]
    sweep = {**one.data("sweep/rates")["sweep"], "metric": {"name": "mean", "value": 0.9075, "trial": 0}}
    page = page_with(seen, one, "sweep/rates", varies=["seed", "lr"], trials=trials, sweep=sweep)
    expect(page.locator(".tickname.best")).to_have_text("0.9075")
    ticks = page.locator(".tickname").all_text_contents()
    assert {"30", "32", "34", "36", "0.0005", "0.001"} <= set(ticks), ticks
    assert page.locator(".tickname").evaluate_all(OVERPRINTED) == 0
    expect(page.locator("svg.parallel")).to_have_attribute("aria-label", re.compile("the table above says the same"))
    page.set_viewport_size({"width": 360, "height": 740})
    eventually(lambda: page.locator("svg.parallel").evaluate("(svg) => svg.clientWidth") < 600 or None)
    eventually(lambda: page.locator(".tickname, .axisname").evaluate_all(OVERPRINTED) == 0 or None)
    seen.is_clean()


def test_reasons_make_no_row_tall_on_a_phone_and_headers_stand_in_one_line(seen: Tab, one: Served) -> None:
    why = "halving at epoch 4 keeps the best 1 of 4 trials; this one has 0.2837, the best 0.6819"
    trials = [trial(0, 0.5, lr=0.1), {**trial(1, 0.2, lr=0.2), "state": "pruned", "why": why}]
    page = page_with(seen, one, "sweep/rates", trials=trials)
    tops = page.locator("thead th").evaluate_all(
        """(heads) => heads.map((th) => {
          const range = document.createRange();
          range.selectNodeContents(th.querySelector("button") ?? th);
          return Math.round(range.getClientRects()[0].top);
        })"""
    )
    assert len(set(tops)) == 1, tops
    page.set_viewport_size({"width": 390, "height": 740})
    heights = "(rows) => rows.map((tr) => tr.clientHeight)"
    eventually(lambda: max(page.locator("tbody tr").evaluate_all(heights)) < 45 or None)
    seen.is_clean()


def test_a_trial_leads_to_its_sweep_and_one_measurement_is_no_curve(seen: Tab) -> None:
    page = seen.open("sweep/rates/")
    expect(page.get_by_text("mean was measured once in each trial")).to_be_visible()
    page.get_by_role("link", name="trial 0", exact=True).click()
    expect(page.locator(".crumbs li")).to_have_text(["runs", "rates", re.compile("trial-0+")])
    expect(page.get_by_text("Evaluated once so far, so no curve yet: mean")).to_be_visible()
    expect(page.get_by_text("This recipe draws no grid.")).to_be_visible()
    page.locator(".crumbs").get_by_role("link", name="rates").click()
    expect(page.get_by_role("heading", level=1)).to_have_text("rates")
    seen.is_clean()


def test_a_sweep_shows_the_training_losses_of_its_trials_too(seen: Tab) -> None:
    page = seen.open("sweep/rates/")
    choice = page.get_by_label("Metric", exact=True)
    expect(choice).to_have_value("mean")
    choice.select_option("discriminator.loss")
    chart = page.get_by_label("Metric curves of all trials")
    chart.scroll_into_view_if_needed()
    eventually(lambda: chart.evaluate("(box) => box.data?.length") == 3 or None)
    assert chart.evaluate("(box) => box.data.map((trace) => trace.x)") == [[1, 2]] * 3
    expect(chart.locator(".ytitle")).to_have_text("discriminator.loss")
    expect(page.get_by_text("was measured once")).to_be_hidden()
    seen.is_clean()


def test_a_broken_run_is_its_problem_and_nothing_else(seen: Tab) -> None:
    page = seen.open("run/torn/")
    expect(page.locator(".runhead .state")).to_have_text("broken")
    expect(page.locator(".alarm .do")).to_contain_text("updates by itself")
    expect(page.locator(".card, .facts, .runbar").filter(visible=True)).to_have_count(0)
    seen.is_clean()


def test_a_run_that_is_deleted_is_reported_as_gone(seen: Tab, root: Path, one: Served) -> None:
    folder = copied(Run.open(root / "done"), root / "short-lived")
    eventually(lambda: one.get("/data/run/short-lived").status_code == 200 or None)
    page = seen.open("run/short-lived/")
    expect(page.locator(".live .word")).to_have_text("live")
    folder.rename(root.parent / "away")
    expect(page.locator(".live .word")).to_have_text("no longer exists")
    expect(page.get_by_role("alert")).to_contain_text("This run no longer exists")
    (root.parent / "away").rename(folder)
    expect(page.locator(".live .word")).to_have_text(re.compile("^live"))
    expect(page.get_by_role("alert")).to_be_empty()


def test_paper_has_every_chart_and_no_switch(browser: Browser, one: Served) -> None:
    with tab(browser, one.url + "/", color_scheme="dark", viewport={"width": 1280, "height": 300}) as seen:
        page = seen.open("run/done/")
        charts = page.locator(".chart:visible")
        page.emulate_media(media="print")
        expect(page.locator(".chart:visible:not(:has(.main-svg))")).to_have_count(0)
        assert charts.count() >= 2
        expect(page.get_by_label("Smoothing")).to_be_hidden()
        expect(page.locator("html")).to_have_attribute("data-theme", "light")
        page.emulate_media(media="screen")
        expect(page.locator("html")).to_have_attribute("data-theme", "dark")
        seen.is_clean()


def test_a_square_grid_leaves_no_empty_box(seen: Tab, one: Served) -> None:
    square = "<svg xmlns='http://www.w3.org/2000/svg' width='64' height='64'><rect width='64' height='64'/></svg>"
    seen.page.route("**/grid/**", lambda route: route.fulfill(body=square, content_type="image/svg+xml"))
    grid = {"file": "grid.svg", "at": 1.0, "versions": {}, "epochs": {}, "metrics": {}}
    page = page_with(seen, one, "run/done", grids=[grid])
    expect(page.locator("img.grid")).to_have_css("aspect-ratio", "64 / 64")
    box = page.locator("img.grid").bounding_box()
    assert box
    assert 200 < box["width"] <= 460
    assert abs(box["width"] - box["height"]) < 1
    seen.is_clean()


def long_curves(count: int = 40) -> list[dict[str, Any]]:
    place = {"step": [*range(count)], "epoch": [*range(count)], "at": [1e9 + n for n in range(count)]}
    value = [0.02 * 0.92**n for n in range(count)]
    loss = {"name": "loss", "value": value, "low": [v / 2 for v in value], "high": [v * 9 for v in value], **place}
    return [{**loss, "module": "generator"}, {"module": "evaluation", "name": "mean", "value": value, **place}]


def test_an_evaluation_has_its_own_colour_a_long_curve_a_band_and_a_stage_a_line(seen: Tab, one: Served) -> None:
    stages = [{"name": "<b>recognise", "epochs": 4, "epoch": 0, "step": 0, "at": 1e9}]
    stages += [{"name": "translate", "epochs": 30, "epoch": 4, "step": 8, "at": 1e9 + 4}]
    stages += [{"name": "refine", "epochs": 30, "epoch": 34, "step": None, "at": None}]
    lanes = one.data("run/done")["lanes"]
    begun, ends = lanes[0]["versions"][0]["at"], lanes[0]["versions"][-1]["at"]
    for lane in lanes:
        lane["stages"] = [{"name": "<b>recognise", "at": begun}, {"name": "translate", "at": (begun + ends) / 2}]
    lanes[1]["stages"] = lanes[1]["stages"][:1]
    page = page_with(seen, one, "run/done", curves=long_curves(), stages=stages, lanes=lanes)
    expect(page.locator(".lanes .stagename")).to_have_text(["<b>recognise", "translate", "<b>recognise"])
    expect(page.locator(".lanes .stageline")).to_have_count(3)
    chips = page.locator(".legend .chip .glyph")
    expect(chips).to_have_count(2)
    assert len(set(chips.evaluate_all("(all) => all.map((one) => getComputedStyle(one.firstChild).fill)"))) == 2
    page.get_by_label("log scale").check()
    chart = page.locator(".chart[aria-label=loss]")
    chart.scroll_into_view_if_needed()
    expect(chart.locator(".ytick").first).to_be_attached()
    assert chart.evaluate("(box) => box.data.map((trace) => trace.fill ?? '')") == ["", "tonexty", ""]
    ticks = chart.locator(".ytick text")
    assert ticks.evaluate_all(OVERPRINTED) == 0
    assert all(0 < float(text) < 1 for text in ticks.all_text_contents()), "whole numbers, not digits between powers"
    expect(chart.locator(".shape-label")).to_have_text(["<b>recognise", "translate"])
    places = "(box) => box.layout.shapes.map((shape) => shape.x0)"
    assert chart.evaluate(places) == [0, 8]
    page.get_by_label("along").first.select_option("epoch")
    eventually(lambda: chart.evaluate(places) == [0, 4] or None)
    seen.is_clean()


def test_staleness_is_a_small_chart_for_each_pair(seen: Tab, one: Served) -> None:
    pair = {"module": "generator", "peer": "discriminator", "step": [5, 10], "at": [1e9, 1e9 + 9], "bound": 20}
    rows = [
        {**pair, "behind": [5, 2], "low": [1, 0], "high": [12, 9]},
        {**pair, "module": "discriminator", "peer": "generator", "behind": [3, 3]},
    ]
    page = page_with(seen, one, "run/done", staleness=rows)
    charts = page.locator(".chart[aria-label^=Staleness]")
    expect(charts).to_have_count(2)
    first = page.get_by_label("Staleness of discriminator in generator")
    first.scroll_into_view_if_needed()
    eventually(lambda: first.evaluate("(box) => box.data?.length") or None)
    assert first.evaluate("(box) => box.data.map((trace) => trace.fill ?? '')") == ["", "tonexty", "", ""]
    assert first.evaluate("(box) => box.data[2].y") == [20, 20], "the bound"
    assert first.evaluate("(box) => box.data[3].y") == [5, 2], "the median"
    ranges = charts.evaluate_all("(boxes) => boxes.map((box) => box.layout?.yaxis.range)")
    assert ranges[0] == ranges[1]
    assert ranges[0][1] > 20
    expect(page.locator(".aboutline .about")).to_contain_text("what max_staleness allows")
    page.locator(".aboutline").get_by_label("along").select_option("at")
    eventually(lambda: first.evaluate("(box) => box.layout?.xaxis.type") == "date" or None)
    panel = page.locator(".card", has=charts)
    for width in (1240, 420):  # of the panel alone: as where a scrollbar comes, the window says nothing
        panel.evaluate("(panel, width) => (panel.style.width = `${width}px`)", width)
        eventually(lambda: ((widths := charts.evaluate_all(DRAWN)) and all(a == b for a, b in widths)) or None)
        right = panel.locator(".charts").evaluate("(charts) => charts.getBoundingClientRect().right")
        assert charts.last.evaluate("(box) => box.getBoundingClientRect().right") == pytest.approx(right, abs=1)
    seen.is_clean()


def test_the_tab_says_the_state_and_a_module_that_rests_says_so(seen: Tab, one: Served) -> None:
    data = one.data("run/done")
    modules = [{**module, "state": "running", "rests": n == 0} for n, module in enumerate(data["modules"])]
    workers = [{**worker, "restarts": 3} for worker in data["workers"]]
    page = page_with(seen, one, "run/done", modules=modules, workers=workers, run={**data["run"], "state": "running"})
    expect(page).to_have_title("running · done")
    expect(page.locator("td.c-state").first).to_contain_text("learning rate 0")
    expect(page.locator("td.c-state").nth(1)).not_to_contain_text("learning rate")
    expect(page.locator("td", has_text="3 restarts")).to_have_count(2)
    seen.open("run/torn/")
    expect(page).to_have_title("broken · torn")
    seen.open("sweep/rates/")
    expect(page).to_have_title(re.compile("^[a-z]+ · rates$"))
    seen.open()
    expect(page).to_have_title(re.compile(r"^1 broken, .*\d running · "))
    seen.is_clean()


@pytest.mark.parametrize("width", [1280, 768, 390])
def test_state_metric_and_alarms_come_first(browser: Browser, one: Served, width: int) -> None:
    rows = one.data("runs")["runs"]
    alarm = {"module": None, "level": "bad", "says": "It is odd.", "do": "Look."}
    shown = [{**row, "alarms": [alarm], "problem": None} for row in rows if row["name"] == "done"]
    with tab(browser, one.url + "/", viewport={"width": width, "height": 840}) as seen:
        page = page_with(seen, one, "runs", runs=shown)
        expect(page.locator(".alarmlist")).to_contain_text("It is odd.")
        cells = page.locator("tbody tr > *")
        places = cells.evaluate_all(
            """(cells) => cells.map((cell) => [cell.className.split(" ")[0], cell.getBoundingClientRect()])
              .map(([name, box]) => [Math.round(box.top), Math.round(box.left), Math.round(box.right), name])"""
        )
        order = [name for *_, name in sorted(places) if name != "c-when"]
        if width < 900:
            order = sorted(order[:3]) + order[3:]
            assert order == ["c-metric", "c-name", "c-state", "c-alarms", "c-progress", "c-mods"]
        else:
            assert order == ["c-name", "c-state", "c-metric", "c-alarms", "c-progress", "c-mods"]
        assert max(right for _, _, right, _ in places) <= width
        expect(page.locator(".sideways")).to_be_hidden()


def test_a_table_that_is_wider_than_the_page_says_so(browser: Browser, one: Served) -> None:
    trials = [trial(n, 0.5, **{f"a_parameter_{k}": k for k in range(5)}) for n in range(2)]
    with tab(browser, one.url + "/", viewport={"width": 390, "height": 840}) as seen:
        page = page_with(seen, one, "sweep/rates", trials=trials, varies=[f"a_parameter_{k}" for k in range(5)])
        hint = page.locator(".card", has_text="Trials").locator(".sideways").first
        expect(hint).to_have_text("More to the right: scroll sideways.")
        heads = page.locator("thead th")
        expect(heads.nth(2)).to_contain_text("mean")
        assert page.evaluate("document.documentElement.scrollWidth") <= 390
        page.set_viewport_size({"width": 3000, "height": 840})
        expect(hint).to_be_hidden()


def test_nothing_jumps_on_a_phone_as_a_worker_begins_to_wait(browser: Browser, one: Served) -> None:
    data = one.data("run/done")
    tops = []
    for state in ("running", "waiting"):
        modules = [{**module, "state": state} for module in data["modules"]]
        workers = [
            {
                **worker,
                "heartbeat_at": data["at"] - 1,
                "waiting_for": "generator" if state == "waiting" else None,
                "left_s": None,
            }
            for worker in data["workers"]
        ]
        with tab(browser, one.url + "/", viewport={"width": 390, "height": 840}) as seen:
            page = page_with(seen, one, "run/done", modules=modules, workers=workers)
            expect(page.locator("td.c-state").first).to_contain_text(state)
            tops.append(page.get_by_role("heading", name="Samples").evaluate("(h) => h.getBoundingClientRect().top"))
    assert abs(tops[0] - tops[1]) < 3, tops


def test_many_versions_leave_their_lanes_readable(seen: Tab, one: Served) -> None:
    data = one.data("run/done")
    whole = {"full": True, "final": False, "loss": 1.0, "epoch": 1}
    lanes = [
        {
            **lane,
            "versions": [
                {**whole, "version": n, "step": n, "at": 1e9 + n, "peers": {peer: [max(0, n - 1)]}} for n in range(300)
            ],
            "present": [*range(300)],
            "workers": [],
            "waits": [],
        }
        for lane, peer in zip(data["lanes"], ("generator", "discriminator"), strict=True)
    ]
    page = page_with(seen, one, "run/done", lanes=lanes, at=1e9 + 300)
    view = page.locator(".laneview")
    expect(page.locator("svg.lanes .link").first).to_have_css("stroke-opacity", re.compile(r"0\.[01]"))
    view.focus()
    page.keyboard.press("ArrowRight")
    page.keyboard.press("ArrowLeft")
    strong = page.locator("svg.lanes .link.strong")
    expect(strong).to_have_count(2)
    expect(strong.first).to_have_css("stroke-opacity", "1")
    seen.is_clean()


def test_lanes_of_many_versions_say_what_they_hide_and_a_zoom_loads_it(seen: Tab, root: Path, one: Served) -> None:
    done = Run.open(copied(Run.open(root / "done"), root.parent / "long"))
    for module in done.modules:
        first = done.store(module).meta(1)
        lines = [replace(first, version=n, step=n, full=n % 100 == 0, published_at=1e9 + n) for n in range(5000)]
        done.published_path(module).write_bytes(b"".join(line.seal() + b"\n" for line in lines))
        done.workers_path(module).unlink()  # its times are of today
    done.path.rename(root / "long")  # the server reads it once
    eventually(lambda: one.get("/data/run/long").status_code == 200 or None)
    page = seen.open("run/long/")
    hiding = page.locator(".hiding")
    expect(hiding).to_contain_text("of 5,000 versions of generator")
    before = versions(page)
    assert 2000 < before < 5000
    page.locator(".laneview").focus()
    for _ in range(8):
        page.keyboard.press("+")
    eventually(lambda: (page.wait_for_timeout(100), versions(page))[1] > before or None)
    expect(hiding).to_be_hidden()
    seen.is_clean()


def test_what_differs_from_its_default_is_marked(one: Served, root: Path) -> None:
    config = {row["name"]: row for row in one.data("run/trio")["config"]}
    assert config["epochs"]["value"] == 5000
    assert config["epochs"]["differs"] == (Run.open(root / "trio").spec.usual is not None)
    assert [config[name]["differs"] for name in ("recipe", "seed", "device", "peer_timeout_s")] == [False] * 4
    assert config["seed"]["default"] == 0


NAMELESS = """() => [...document.querySelectorAll("a[href], button, input, select, [role=img], img, [tabindex='0']")]
  .filter((node) => node.checkVisibility() && !(node.getAttribute("aria-label") || node.labels?.length || node.alt ||
    node.textContent.trim() || node.title)).map((node) => node.outerHTML.slice(0, 120))"""
TWICE = """() => [...document.querySelectorAll("[id]")].map((node) => node.id)
  .filter((id, at, all) => id && all.indexOf(id) !== at)"""


PAGES = ("", "run/done/", "run/trio/", "run/torn/", "sweep/rates/", "checkpoint/done/generator/1/")
AXE = {"resultTypes": ["violations"], "rules": {"target-size": {"enabled": True}}}


def findings(page: Page) -> list[tuple[str, str, list[str]]]:
    """What axe finds on a page: impact, rule, and where."""
    found = Axe().run(page, options=AXE).response["violations"]
    return [(each["impact"], each["id"], [node["html"][:120] for node in each["nodes"]]) for each in found]


@pytest.mark.parametrize("address", PAGES)
def test_axe_finds_nothing(browser: Browser, one: Served, address: str) -> None:
    with tab(browser, one.url + "/") as seen:
        page = seen.open(address)
        assert findings(page) == []
        seen.is_clean()


def test_axe_finds_nothing_on_a_page_of_an_error(browser: Browser, one: Served) -> None:
    with tab(browser, one.url + "/") as seen:
        seen.page.goto(f"{seen.origin}run/none/")
        expect(seen.page.get_by_role("heading", level=1)).to_have_text("Not found")
        assert findings(seen.page) == []


@pytest.mark.parametrize("address", PAGES)
def test_everything_has_a_name_and_fits_on_a_phone(browser: Browser, one: Served, address: str) -> None:
    options: dict[str, Any] = {"viewport": {"width": 360, "height": 740}, "color_scheme": "dark"}
    with tab(browser, one.url + "/", **options) as seen:
        page = seen.open(address)
        assert page.evaluate(NAMELESS) == []
        assert page.evaluate(TWICE) == []
        assert findings(page) == []
        assert page.evaluate("document.documentElement.scrollWidth") <= 360
        assert page.evaluate("document.documentElement.dataset.theme") == "dark"
        page.get_by_role("button", name="Show it light").click()
        page.reload()
        page.wait_for_selector("main h1")
        assert page.evaluate("document.documentElement.dataset.theme") == "light", "the choice is kept"
        seen.is_clean()


def test_a_thousand_runs_are_filtered_in_a_blink(browser: Browser, one: Served) -> None:
    row = one.data("runs")["runs"][0]
    rows = [{**row, "path": f"run-{n}", "name": f"run-{n}", "created_at": n} for n in range(1000)]
    with tab(browser, one.url + "/") as seen:
        body = {"at": 1.0, "root": "many", "runs": rows}
        seen.page.route("**/data/runs", lambda route: route.fulfill(json=body))
        page = seen.open()
        expect(page.get_by_text("1,000 runs and sweeps")).to_be_visible()
        page.locator("#filter").fill("run-77")
        expect(page.locator(".rowname")).to_have_count(11)
        took = page.evaluate("""() => {
          const field = document.getElementById("filter");
          const times = ["run-1", "run-99", "", "9", "run"].map((words) => {
            const begin = performance.now();
            field.value = words;
            field.dispatchEvent(new Event("input"));
            return performance.now() - begin;
          });
          return times.sort((a, b) => a - b)[2];
        }""")
        assert took < 150, "it is under 50 ms where the machine has nothing else to do"
