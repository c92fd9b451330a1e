"""Several processes in a test."""

import multiprocessing
from collections.abc import Callable

from torch.multiprocessing import start_processes

# what a process that serves all tests has imported once
PRELOAD = ["tests.search.tools", "tests.kills"]


def run_processes(function: Callable, *args: object, count: int = 2) -> None:
    """Call ``function(rank, *args)`` in so many processes, and wait for them.

    They are forks of one process that has imported, once for all tests, what they need.
    """
    multiprocessing.set_forkserver_preload(PRELOAD)
    start_processes(function, args, nprocs=count, start_method="forkserver")
