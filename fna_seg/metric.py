"""Mean and per-class intersection over union."""

from mmengine.logging import MMLogger
from mmseg.evaluation import IoUMetric
from mmseg.registry import METRICS
from torch import Tensor


@METRICS.register_module()
class ClassIoUMetric(IoUMetric):
    """``IoUMetric`` that returns the IoU of every class, ``IoU.NAME``, next to the means.

    All in percent. Pixels labelled 255 do not count. A class that is neither in the labels nor in
    the predictions has no IoU: it is left out, of the mean too, and named in the log.
    """

    default_prefix = ""  # none; without this line mmengine warns of none

    def compute_metrics(self, results: list[tuple[Tensor, ...]]) -> dict[str, float]:
        """Areas of intersection, union, prediction and label by class, a tuple for each image.

        With ``format_only`` there are none, and no metrics.
        """
        if self.format_only:
            return super().compute_metrics(results)
        # float32, which mmseg would add them up in, holds no counts beyond 2**24 pixels
        results = [tuple(area.double() for area in areas) for areas in results]
        metrics = super().compute_metrics(results)
        intersection, union = (sum(areas) for areas in list(zip(*results, strict=True))[:2])
        absent = []
        for name, i, u in zip(
            self.dataset_meta["classes"], intersection.tolist(), union.tolist(), strict=True
        ):
            if u:
                metrics[f"IoU.{name}"] = round(100 * i / u, 2)
            else:
                absent.append(name)
        if absent:
            MMLogger.get_current_instance().info(
                f"mIoU leaves out what is neither labelled nor predicted: {', '.join(absent)}"
            )
        return {name: float(value) for name, value in metrics.items()}
