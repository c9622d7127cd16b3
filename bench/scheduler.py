"""What one scheduler costs with 1 000, 10 000 and 100 000 tokens: CPU and memory for each, and lateness.

The ladder of cases shows where the cost is: bare timers in a heap, the scheduler with tokens
that do nothing, with real machines, and with a fetch from a source in memory at each wake-up.
"""

from __future__ import annotations

import asyncio
import gc
import heapq
import random
import time
import tracemalloc
from collections.abc import Callable
from functools import partial
from itertools import count
from typing import Any

from report import Figures, heading, medians, note, quantile, run, table

from token_keeper import Issued, RefreshPolicy, Secret
from token_keeper._clock import SystemClock
from token_keeper._kept import KeptToken
from token_keeper._scheduler import Charge, Scheduler
from token_keeper._state import NEVER, Announce, Fetched, Started, Tick, Token
