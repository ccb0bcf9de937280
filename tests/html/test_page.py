"""The page in headless Chromium: it is drawn, it answers, and it runs and loads nothing else."""

import re

import pytest

from tests.html.test_content import data_of

pytestmark = pytest.mark.peer

VIEWS = ["functions", "code", "flow", "flame", "tables", "timeline", "compare"]


def until(shown, condition):
    """Wait for what the page draws later; the page's policy refuses playwright's own way."""
    for _ in range(400):
        if shown.page.evaluate(condition):
            return
        shown.page.wait_for_timeout(50)
    raise AssertionError(condition)


def test_every_view_is_drawn(pages, show):
    shown = show(pages["all"])
    drawn = {"functions": "tbody tr[tabindex]", "code": ".listing .row[data-row]",
             "flow": "svg .node", "flame": "svg g.frame", "tables": "main table",
             "timeline": "section svg rect[rx]", "compare": "svg circle"}
    for number, name in enumerate(VIEWS, 1):
        shown.page.keyboard.press(str(number))
        shown.page.wait_for_selector(f"nav [data-view={name}][aria-selected=true]")
        assert shown.count(drawn[name]) > (name != "tables"), name


def test_functions_are_searched_sorted_and_opened_by_keyboard(pages, show):
    shown = show(pages["all"])
    rows = shown.texts("tbody tr")
    assert len(rows) == 2 and rows[0].startswith("72.") and "collatz" in rows[0]
    shown.page.keyboard.press("/")
    shown.page.keyboard.type("main")
    assert [("main" in row) for row in shown.texts("tbody tr")] == [True]
    assert shown.texts(".tools [role=status]") == ["1 of 2 rows"]
    shown.page.keyboard.type("zzz")
    assert shown.texts("tbody tr") == ["None."]
    shown.page.locator("input[type=search]").fill("")
    shown.page.locator("th button", has_text="function").click()
    assert ["main" in row for row in shown.texts("tbody tr")] == [False, True]
    shown.page.locator("th button", has_text="function").click()
    assert ["main" in row for row in shown.texts("tbody tr")] == [True, False]
    assert shown.page.locator("th[aria-sort=descending]").text_content() == "function"
    shown.page.keyboard.press("/")
    shown.page.keyboard.press("ArrowDown")
    shown.page.keyboard.press("ArrowDown")
    assert "collatz" in shown.page.evaluate("document.activeElement.textContent")
    shown.page.keyboard.press("Enter")
    shown.page.wait_for_selector(".listing")
    assert "collatz" in shown.page.locator("h2").text_content()


def test_code_has_its_counts_arrows_and_source(pages, show):
    shown = show(pages["all"])
    shown.page.keyboard.press("2")
    code = next(code for code in data_of(pages["all"])["codes"] if "collatz" in code["name"])
    shown.page.wait_for_selector(".listing svg path")
    arrows = shown.page.locator(".listing svg path[data-from]")
    assert arrows.count() == len(code["ways"]) >= 4
    titles = [text.replace(",", "") for text in shown.texts(".listing svg path title")]
    assert sorted(int(text.split()[0]) for text in titles) == sorted(w[2] for w in code["ways"])
    assert shown.count(".listing svg .way-backward") and shown.count(".listing svg .way-forward")
    labels = shown.texts(".listing svg text")
    assert len(labels) == len(code["ways"]) and all(re.fullmatch(r"[\d.]+k?", t) for t in labels)
    passes = [text.replace(",", "") for text in shown.texts(".listing .row[data-row] .count")]
    assert [int(text) for text in passes] == [row[2] for row in code["rows"] if len(row) > 1]
    shown.page.locator(".listing .row[data-line]", has_text="n /= 2").click()
    chosen = shown.texts(".listing .row[data-row].chosen .text")
    assert chosen and any("shr" in text for text in chosen)
    shown.page.locator(".listing button", has_text="\u2192").first.click()
    assert shown.count(".listing .row.found") == 1
    shown.page.locator(".listing button", has_text="main").first.click()
    assert shown.page.locator("h2").text_content() == "main"


def test_control_flow_has_each_block_and_can_be_enlarged(pages, show):
    shown = show(pages["all"])
    shown.page.goto(f"{pages['all'].as_uri()}#flow/0")
    code = data_of(pages["all"])["codes"][0]
    assert shown.count("svg .node") == len(code["blocks"]) == code["allBlocks"]
    assert shown.count("svg text.halo") == len(code["flow"])
    before = shown.page.locator("svg.canvas > g").get_attribute("transform")
    shown.page.locator("svg.canvas").focus()
    for key in ("+", "ArrowDown", "-", "0"):
        shown.page.keyboard.press(key)
        after = shown.page.locator("svg.canvas > g").get_attribute("transform")
        assert after != before
        before = after
    shown.page.locator("select").select_option(index=1)
    until(shown, "document.querySelector('h2').textContent === 'main'")


def test_the_flame_graph_is_searched_and_walked(pages, show):
    shown = show(pages["all"])
    shown.page.keyboard.press("4")
    shown.page.wait_for_selector("g.frame")
    names = set(shown.page.evaluate(
        "[...document.querySelectorAll('g.frame')].map((f) => f.__data__.data.name)"))
    assert {"all", "main"} < names and any(name.startswith("collatz") for name in names)
    shown.page.keyboard.press("/")
    shown.page.keyboard.type("COLLATZ")
    assert shown.page.locator("#details").text_content().startswith("found: 64.")
    shown.page.locator("input[type=search]").fill("")
    shown.page.locator("g.frame[tabindex='0']").first.focus()
    shown.page.keyboard.press("ArrowUp")
    assert shown.page.locator("#details").text_content().startswith("main ")
    shown.page.keyboard.press("ArrowUp")
    assert shown.page.locator("#details").text_content().startswith("collatz")
    shown.page.keyboard.press("Enter")
    width = "document.querySelector('g.frame:focus rect').getBoundingClientRect().width"
    until(shown, f"{width} > 1000")
    shown.page.keyboard.press("Escape")


def test_columns_of_which_nothing_was_measured_are_named_below_the_table(pages, show):
    shown = show(pages["all"])
    texts = shown.page.evaluate("""[[[1, null, ""], [0.5, null, "f"]], [[1, 0, "f"]]].map((rows) =>
      { const table = plainTable(rows, ["share", "mispredicted", "function"], "x", 1);
        return [...table.querySelectorAll("th, td, p")].map((one) => one.textContent)})""")
    assert texts[0] == ["share", "function", "100.00 %", "[no symbol]", "50.00 %", "f",
                        "Not measured: mispredicted."]
    assert texts[1] == ["share", "mispredicted", "function", "100.00 %", "0", "f"]


def test_tables_compare_and_timeline_have_the_numbers(pages, show):
    shown, data = show(pages["all"]), data_of(pages["all"])
    for name, table in data["tables"].items():
        shown.page.goto(f"{pages['all'].as_uri()}#tables/{name}")
        assert shown.count("tbody tr") == max(1, len(table["rows"])), name
    assert {"edges", "callers", "lines", "mispredicts", "runs"} == set(data["tables"])
    shown.page.keyboard.press("7")
    assert shown.count("svg circle") == 2 * len(data["compared"]["rows"]) + 2
    assert f"{pages['branches']:,}" in shown.page.locator(".figures").text_content()
    shown.page.keyboard.press("6")
    assert shown.count("section svg rect[rx]") == 2
    before = shown.texts("section svg .axis text")
    shown.page.locator("section svg[tabindex]").focus()
    shown.page.keyboard.press("+")
    assert shown.texts("section svg .axis text") != before


def test_what_is_missing_is_explained(pages, show):
    shown = show(pages["plain"])
    for key, words in (("6", "No timeline was given"), ("7", "One profile alone")):
        shown.page.keyboard.press(key)
        assert words in shown.page.locator("main").text_content()


@pytest.mark.parametrize("view", VIEWS)
def test_it_fits_a_phone_in_both_themes(pages, show, view):
    shown = show(pages["all"], width=360, height=740, scheme="dark")
    shown.page.goto(f"{pages['all'].as_uri()}#{view}")
    assert shown.page.evaluate("document.documentElement.scrollWidth") <= 360
    colour = "getComputedStyle(document.body).backgroundColor"
    dark = shown.page.evaluate(colour)
    shown.page.keyboard.press("t")
    assert (dark, shown.page.evaluate(colour)) == ("rgb(20, 24, 28)", "rgb(255, 255, 255)")


def test_hostile_text_is_text(pages, show):
    shown = show(pages["all"])
    for view in VIEWS:
        shown.page.goto(f"{pages['all'].as_uri()}#{view}")
        assert shown.page.evaluate("typeof owned") == "undefined"
        assert shown.count("img, b, iframe") == 0 and shown.count("script") == 3
        assert not re.search("[\u202e\x1b]", shown.page.content())
    shown.page.goto(f"{pages['all'].as_uri()}#code/0")
    assert r"</script><img src=x onerror=owned=1><b>\u202eevil\x1b[31m" in (
        shown.page.locator("h2").text_content())
    assert "<b>lines" in shown.page.locator("h2 + p").text_content()


def test_the_policy_lets_nothing_in(pages, browser):
    """Even a script that did run could load nothing, and no other is run."""
    context = browser.new_context()
    page = context.new_page()
    page.goto(pages["all"].as_uri())
    assert page.evaluate("fetch('data:,x').then(() => 'loaded', () => 'refused')") == "refused"
    page.evaluate("document.head.append(Object.assign(document.createElement('script'), "
                  "{textContent: 'window.owned = 1'}))")
    page.evaluate("document.body.insertAdjacentHTML('beforeend', '<img src=x onerror=owned=1>')")
    page.wait_for_timeout(100)
    assert page.evaluate("typeof owned") == "undefined"
    context.close()


def test_keys_and_licences_are_listed(pages, show):
    shown = show(pages["all"])
    shown.page.keyboard.press("?")
    text = shown.page.locator("dialog").text_content()
    assert "search" in text and "d3-flame-graph 5" in text and "Apache License" in text
    shown.page.keyboard.press("Escape")
    assert not shown.page.evaluate("document.getElementById('help').open")
