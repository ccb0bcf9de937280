"""Branch streams for tests, benchmarks and predictors: recorded ones, and endless ones like them.

>>> from pylbr import workloads
>>> workloads.NAMES
('cpp', 'gzip', 'perl', 'python3', 'sqlite3', 'xz')
>>> with workloads.recorded("gzip") as trace:
...     trace.count
1048576
>>> rows = next(workloads.stream("gzip", seed=1))
>>> rows.dtype.names[:3]
('from', 'to', 'class')
"""

from pylbr.workloads.samples import NAMES, recorded
from pylbr.workloads.statistics import Statistics, statistics_of
from pylbr.workloads.synthetic import Model, stream

__all__ = ["NAMES", "Model", "Statistics", "recorded", "statistics_of", "stream"]
