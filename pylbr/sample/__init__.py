"""Traces in, branch-stack samples out.

>>> from pylbr import trace
>>> from pylbr.sample import SampleSetup, sample
>>> setup = SampleSetup.of("branches:u", 10007, branches="any,u", model="sapphire-rapids")
>>> with trace.open("program.arrow") as source:  # doctest: +SKIP
...     batches = list(sample(source, setup))
"""

from pylbr.sample.lookup import LbrIndex, lbr_at
from pylbr.sample.parallel import run_parallel
from pylbr.sample.sample_setup import SampleSetup
from pylbr.sample.sampler import Sampler, sample

__all__ = ["LbrIndex", "SampleSetup", "Sampler", "lbr_at", "run_parallel", "sample"]
