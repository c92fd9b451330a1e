"""Architecture adaptation (paper, section 3.3); importing it registers what its configs name."""

from .halves import split_subset
from .loop import ArchAdaptLoop
from .optimizers import ArchAdaptOptimWrapperConstructor
from .parallel import SampledPathParallel
from .report import ArchLogProcessor

__all__ = [
    "ArchAdaptLoop",
    "ArchAdaptOptimWrapperConstructor",
    "ArchLogProcessor",
    "SampledPathParallel",
    "split_subset",
]
