"""A policy in one file of Cython: compiled when a command line names it."""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
import sysconfig
import tempfile
from functools import cache
from importlib.machinery import ExtensionFileLoader
from importlib.util import find_spec, module_from_spec, spec_from_loader
from os import environ
from pathlib import Path
from types import ModuleType
from typing import Final

import lbrcore
from pylbr.errors import ConfigurationError, UnsupportedFeature

__all__ = ["load"]

#: Directory of the packages whose declarations such a file imports.
_PACKAGES: Final = Path(__file__).resolve().parents[2]
#: As the policies of the package are compiled.
_DIRECTIVES: Final = "language_level=3,boundscheck=False,wraparound=False,cdivision=True"


def load(path: str) -> ModuleType:
    """The module that a ``.pyx`` file compiles to; nothing is left beside the file.

    Raises
    ------
    ConfigurationError
        It cannot be read or does not compile; with the line that the compiler names.
    UnsupportedFeature
        Cython or a C compiler is missing.
    """
    try:
        text = Path(path).read_text()
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigurationError(
            f"{path}: {getattr(error, 'strerror', None) or error}") from None
    if not re.fullmatch(r"[A-Za-z]\w*", Path(path).stem):
        raise ConfigurationError(f"{path}: name it as a module: letters, digits and underscores")
    return _module(path, text)


@cache
def _module(path: str, _text: str) -> ModuleType:
    """Compile and load; once for each text, since a process loads a module only once."""
    if find_spec("Cython") is None:
        raise UnsupportedFeature(
            f"{path}: a policy in Cython needs Cython: pip install 'cython>=3.3,<3.4'")
    source = Path(path).resolve()
    name = source.stem
    with tempfile.TemporaryDirectory(prefix="pylbr-policy-") as directory:
        made = Path(directory, f"{name}.c")
        built = Path(directory, name + (sysconfig.get_config_var("EXT_SUFFIX") or ".so"))
        _call([sys.executable, "-m", "cython", "-X", _DIRECTIVES, "-I", str(_PACKAGES),
               "--module-name", name, "-o", str(made), source.name], path, source.parent)
        compiler = shlex.split(environ.get("CC") or sysconfig.get_config_var("CC") or "cc")
        _call([*compiler, "-shared", "-fPIC", "-O2", "-g0", "-w",
               f"-I{sysconfig.get_path('include')}", f"-I{lbrcore.get_include()}", str(made),
               "-o", str(built)], path, source.parent)
        spec = spec_from_loader(name, ExtensionFileLoader(name, str(built)))
        assert spec is not None and spec.loader is not None
        try:
            module = module_from_spec(spec)
            spec.loader.exec_module(module)
        except Exception as error:
            raise ConfigurationError(f"{path}: {type(error).__name__}: {error}") from error
    return module


def _call(words: list[str], path: str, where: Path) -> None:
    """Run a compiler; its first message becomes the error."""
    try:
        ended = subprocess.run(words, cwd=where, capture_output=True, text=True, errors="replace",
                               check=False)
    except OSError as error:
        raise UnsupportedFeature(
            f"{path}: a policy in Cython needs a C compiler: {words[0]}: {error.strerror}"
        ) from None
    if ended.returncode:
        said = ended.stderr.strip() or f"{words[0]} ended with status {ended.returncode}"
        found = re.search(r"^\S+?:(\d+:\d+: .+)$", said, re.M)
        raise ConfigurationError(f"{path}:{found[1]}" if found else
                                 f"{path}: {said.splitlines()[-1]}")
