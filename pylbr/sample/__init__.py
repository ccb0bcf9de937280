"""Traces in, branch-stack samples out.

>>> from pylbr import trace
>>> from pylbr.sample import SampleSetup, sample
>>> setup = SampleSetup.of("branches:u", 10007, branches="any,u", model="sapphire-rapids")
>>> with trace.open("program.arrow") as source:  # doctest: +SKIP
...     batches = list(sample(source, setup))
"""

from pylbr.sample.batch import SampleBatch
from pylbr.sample.branch_filter import parse_filter, program
from pylbr.sample.events import EVERY_BRANCH, SampledEvent, parse_event
from pylbr.sample.lookup import LbrIndex, lbr_at
from pylbr.sample.parallel import run_parallel
from pylbr.sample.sampler import Sampler, sample
from pylbr.sample.setup import SampleSetup

__all__ = [
    "EVERY_BRANCH", "LbrIndex", "SampleBatch", "SampleSetup", "SampledEvent", "Sampler", "lbr_at",
    "parse_event", "parse_filter", "program", "run_parallel", "sample",
]
