"""The documentation site: its diagrams are drawn, and its pages load nothing."""

import hashlib
import importlib
import re
from pathlib import Path

import pytest

DOCS = Path(__file__).resolve().parents[2] / "docs"
PAGES = sorted(DOCS.glob("*.md"))
PICTURES = sorted((DOCS / "images").rglob("*.svg"))


def diagrams():
    """Every diagram of the pages."""
    return [text for page in (DOCS.parent / "README.md", *PAGES)
            for text in re.findall(r"^```mermaid\n(.*?)^```$", page.read_text(), re.M | re.S)]


def test_every_diagram_is_drawn_and_no_other():
    """Otherwise: tools/diagrams.py."""
    digests = {hashlib.sha256(text.strip().encode()).hexdigest()[:12] for text in diagrams()}
    assert len(digests) > 3
    assert {path.stem for path in (DOCS / "images" / "diagrams").glob("*.svg")} == digests


def test_the_picture_of_the_packages_has_their_names():
    (text,) = [text for text in diagrams() if "lbrcore --> arch" in text]
    digest = hashlib.sha256(text.strip().encode()).hexdigest()[:12]
    picture = (DOCS / "images" / "diagrams" / f"{digest}.svg").read_text()
    names = set(re.findall(r"\w+", text)) - {"graph", "LR"}
    assert len(names) > 15 and names <= set(re.findall(r">\s*(\w+)\s*<", picture))
    assert picture.count('marker-end="') == len(re.findall("-->", text))


@pytest.mark.parametrize("path", PICTURES, ids=lambda path: path.stem)
def test_a_picture_loads_nothing(path):
    text = path.read_text()
    found = re.findall(r"""(?:href|src)\s*=\s*["'](?!\#)([^"']*)|url\((?!["']?\#)([^)]*)\)""", text)
    assert found == [] and "<script" not in text and "@import" not in text


def test_pages_name_pictures_that_exist_and_load_none_from_elsewhere():
    count = 0
    for page in PAGES:
        for target in re.findall(r"!\[[^\]]*\]\(([^)\s]+)", page.read_text()):
            count += 1
            assert not target.startswith(("http:", "https:", "//")), f"{page.name}: {target}"
            assert (DOCS / target).exists(), f"{page.name}: {target}"
    assert count > 3


def test_the_first_page_links_to_pages():
    """It is a part of README, whose links of other folders would be dead on the site."""
    assert ":relative-docs: docs/" in (DOCS / "index.md").read_text()
    text = (DOCS.parent / "README.md").read_text().split("## Where to read on")[0]
    links = [name for name in re.findall(r"\]\(([^)#]+)", text) if "://" not in name]
    assert len(links) > 3
    assert [name for name in links if not name.startswith("docs/")] == []


def test_no_extension_loads_scripts():
    """Of the site's extensions none adds a script; the theme brings its own."""
    text = (DOCS / "conf.py").read_text()
    assert "mermaid" not in re.search(r"extensions = \[(.*?)\]", text, re.S)[1]
    assert "http" not in text


def test_the_page_of_compiled_modules_names_what_has_prose():
    names = re.findall(r"automodule:: (\S+)", (DOCS / "compiled.md").read_text())
    assert len(names) > 15
    for name in names:
        module = importlib.import_module(name)
        assert module.__file__.endswith(".so"), name
        members = [member for key, member in vars(module).items()
                   if not key.startswith("_") and getattr(member, "__module__", "") == name]
        assert module.__doc__ and all(member.__doc__ for member in members), name
