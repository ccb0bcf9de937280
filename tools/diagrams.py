"""Draw the mermaid diagrams of README and docs/*.md as SVG, docs/images; needs npm and Chromium.

A picture is named by the digest of its text: docs/conf.py finds it, and the pages load no script.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
from pathlib import Path

from playwright.sync_api import sync_playwright

DOCS = Path(__file__).resolve().parent.parent / "docs"
sys.path.insert(0, str(DOCS))
VERSION = "11.17.2"
#: Mermaid lets the labels of two ways between the same states overlap: the later one moves down.
#: It measures labels before they are set, so the picture is cut to what it shows.
DRAW = """async ([text, id]) => {
    mermaid.initialize({startOnLoad: false, theme: "neutral", htmlLabels: false,
                        flowchart: {htmlLabels: false},
                        state: {nodeSpacing: 110, rankSpacing: 110}, fontFamily: "sans-serif",
                        themeVariables: {fontSize: "12px"}});
    document.body.innerHTML = (await mermaid.render(id, text)).svg;
    const labels = [...document.querySelectorAll("g.edgeLabel")];
    const placed = [];
    for (const label of labels) {
        const box = () => label.getBoundingClientRect();
        const hit = () => placed.find((other) =>
            box().left < other.right && box().right > other.left
            && box().top < other.bottom && box().bottom > other.top);
        for (let down = 4, tries = 0; hit() && tries < 9; tries++) {
            const shift = label.transform.baseVal.consolidate().matrix;
            down = hit().bottom - box().top + 4;
            label.setAttribute("transform", `translate(${shift.e}, ${shift.f + down})`);
        }
        placed.push(box());
    }
    const svg = document.querySelector("svg");
    const {x, y, width, height} = svg.getBBox();
    svg.setAttribute("viewBox", `${x - 8} ${y - 8} ${width + 16} ${height + 16}`);
    svg.style.maxWidth = `${width + 16}px`;
    return document.body.innerHTML;
}"""


def main(script: str = "") -> None:
    from diagrams import PICTURES, blocks, pages, picture_of

    with tempfile.TemporaryDirectory() as name, sync_playwright() as driver:
        if not script:
            subprocess.run(["npm", "install", "--ignore-scripts", "--no-audit", "--no-fund",
                            f"mermaid@{VERSION}"], cwd=name, check=True)
            script = f"{name}/node_modules/mermaid/dist/mermaid.min.js"
        browser = driver.chromium.launch(executable_path="/usr/bin/chromium", args=["--no-sandbox"])
        page = browser.new_page()
        page.set_content("<!DOCTYPE html><body></body>")
        page.add_script_tag(path=script)
        PICTURES.mkdir(exist_ok=True)
        wanted = {picture_of(text): text for page_ in pages()
                  for text in blocks(page_.read_text())}
        for old in set(PICTURES.glob("*.svg")) - set(wanted):
            old.unlink()
        for path, text in wanted.items():
            path.write_text(page.evaluate(DRAW, [text, f"d{path.stem}"]) + "\n")
        browser.close()


if __name__ == "__main__":
    main(*sys.argv[1:])
