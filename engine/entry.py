"""How an entry point ends: a user's mistake is one line, never a traceback."""

import os
import sys
from collections.abc import Callable

from models import InputError

from . import mmcv_ops
from .checkpoint import install_safe_loading
from .distributed import shut_down


def run(main: Callable[[], None]) -> None:
    """Run ``main``; exit 2 after a user's mistake, 130 when interrupted."""
    mmcv_ops.install()  # before a config imports mmdet
    install_safe_loading()
    speaks = os.environ.get("RANK", "0") == "0"  # every rank finds the same mistake
    try:
        main()
    except InputError as error:
        if speaks:
            print(f"error: {error}", file=sys.stderr)
        sys.exit(2)
    except KeyboardInterrupt:
        if speaks:
            print("\nInterrupted. The same command with --resume goes on.", file=sys.stderr)
        sys.exit(130)
    finally:
        shut_down()
