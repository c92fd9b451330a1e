"""What the pages' commands import, for a process whose forks run them."""

from engine.config import import_scope
from tests import conftest  # noqa: F401

for scope in ("mmdet", "mmseg"):
    import_scope(scope)
