"""A browser, and pages to look at with it."""

import json
import shutil
import subprocess
from pathlib import Path

import pytest

from pylbr.cli import main
from pylbr.files.elf import ElfImage
from pylbr.trace import Metadata, Writer
from tests import once
from tests.profile.walked import mapped, walk

SOURCE = Path(__file__).parents[1] / "profile" / "source" / "lines.c"
CHROMIUM = "/usr/bin/chromium"
BASE = 0x5555_5555_4000
#: What would run, load or turn the page around if text were taken as anything else.
HOSTILE = "</script><img src=x onerror=owned=1><b>\u202eevil\x1b[31m"


@pytest.fixture(scope="session")
def browser():
    once.needs(CHROMIUM)
    playwright = pytest.importorskip("playwright.sync_api")
    with playwright.sync_playwright() as driver:
        running = driver.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield running
        running.close()


class Shown:
    """A page in the browser, and whatever it complained of or asked for."""

    def __init__(self, browser, path, width=1280, height=800, scheme="light"):
        self.context = browser.new_context(
            viewport={"width": width, "height": height}, color_scheme=scheme)
        self.page = self.context.new_page()
        self.errors, self.requests = [], []
        self.page.on("console", lambda message: self.errors.append(message.text))
        self.page.on("pageerror", lambda error: self.errors.append(str(error)))
        self.page.on("request", lambda request: self.requests.append(request.url))
        self.page.on("dialog", lambda dialog: self.errors.append(f"dialog {dialog.message}"))
        self.url = path.as_uri()
        self.page.goto(self.url)

    def texts(self, selector):
        return self.page.locator(selector).all_text_contents()

    def count(self, selector):
        return self.page.locator(selector).count()


@pytest.fixture
def show(browser):
    """Opens pages; afterwards none of them may have complained or loaded anything."""
    opened = []

    def one(path, **kinds):
        opened.append(Shown(browser, path, **kinds))
        return opened[-1]

    yield one
    for shown in opened:
        assert shown.errors == []
        assert [url for url in shown.requests if not url.startswith("data:")] == [shown.url]
        shown.context.close()


@pytest.fixture(scope="session")
def pages(tmp_path_factory):
    """A page with all there is, of a program with a hostile name, symbol and source line."""
    once.needs("gcc", "objcopy")
    folder = tmp_path_factory.mktemp("pages")
    shutil.copy(SOURCE, folder / "lines.c")
    text = (folder / "lines.c").read_text()
    (folder / "lines.c").write_text(text.replace("uint32_t steps = 0;",
                                                 f"uint32_t steps = 0; // {HOSTILE}"))
    program = folder / "<b>lines"
    subprocess.run(["gcc", "-O1", "-g", "-w", "-c", "lines.c"], cwd=folder, check=True)
    subprocess.run(["objcopy", f"--redefine-sym=collatz=collatz{HOSTILE}", "lines.o"], cwd=folder,
                   check=True)
    subprocess.run(["gcc", "-o", program, "lines.o"], cwd=folder, check=True)
    image = ElfImage(program)
    hostile = next(name for name in image.functions() if name.startswith("collatz"))
    assert hostile == f"collatz{HOSTILE}"
    table, executed = walk(image, ["main", hostile], 20_000)
    table["from"] += BASE
    table["to"] += BASE
    for name, part in (("x.arrow", table), ("before.arrow", table[:1000])):
        with Writer(folder / name, Metadata(modules=mapped(image, program, BASE))) as writer:
            writer.write(part)
    timeline = folder / "x.trace.json"
    timeline.write_text(json.dumps({"traceEvents": [
        {"ph": "M", "name": "thread_name", "pid": 0, "tid": 1, "args": {"name": "owner"}},
        {"ph": "X", "name": "host", "pid": 0, "tid": 1, "ts": 0, "dur": 30},
        {"ph": "X", "name": HOSTILE, "pid": 0, "tid": 1, "ts": 30, "dur": 20},
        {"ph": "i", "name": f"broken: {HOSTILE}", "pid": 0, "tid": 1, "ts": 40}]}))
    out = folder / "x.html"
    assert main(["report", str(folder / "x.arrow"), "--diff", str(folder / "before.arrow"),
                 "--timeline", str(timeline), "--html", str(out)]) == 0
    plain = folder / "plain.html"
    assert main(["report", str(folder / "x.arrow"), "--html", str(plain)]) == 0
    return {"all": out, "plain": plain, "branches": len(table), "executed": executed}
