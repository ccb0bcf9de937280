"""What package indexes and citations show of the project is valid, and of one version."""

import re
import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from setuptools.config.pyprojecttoml import validate

import pylbr

ROOT = Path(__file__).resolve().parents[2]
FILE = tomllib.loads((ROOT / "pyproject.toml").read_text())
PROJECT = FILE["project"]


def test_the_metadata_is_valid():
    assert validate({"project": dict(PROJECT)}, ROOT / "pyproject.toml")
    assert all(Requirement(line).name for line in PROJECT["dependencies"])


def test_classifiers_exist_and_fit():
    classifiers = pytest.importorskip("trove_classifiers").classifiers
    given = PROJECT["classifiers"]
    assert given == sorted(given) and not set(given) - classifiers
    minors = [line.rpartition(" ")[2] for line in given
              if re.fullmatch(r"Programming Language :: Python :: 3\.\d+", line)]
    assert minors and all(minor in SpecifierSet(PROJECT["requires-python"]) for minor in minors)
    assert "Operating System :: POSIX :: Linux" in given and len(PROJECT["keywords"]) > 5


def test_the_citation_is_of_this_version_and_licence():
    text = (ROOT / "CITATION.cff").read_text()
    fields = dict(re.findall(r"^([\w-]+): \"?([^\"\n]+)", text, re.M))
    assert fields["version"] == PROJECT["version"] == pylbr.__version__
    assert fields["license"] == PROJECT["license"] and fields["cff-version"] == "1.2.0"
    assert {"message", "title"} <= set(fields) and "authors:\n  - name:" in text
