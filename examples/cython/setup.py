"""Build: ``python setup.py build_ext --inplace``."""

from Cython.Build import cythonize
from setuptools import Extension, setup

import lbrcore

setup(
    name="lbr-example-emulator",
    ext_modules=cythonize([
        Extension(
            "emulator", ["emulator.pyx"], include_dirs=[lbrcore.get_include()],
            extra_compile_args=["-O3"],
        ),
    ]),
)
