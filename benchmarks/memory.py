"""What memory a training step of each of the paper's runs needs on a GPU; none is needed to count.

``python -m benchmarks.memory [CONFIG ...] [--batch N]``

A step runs on fake tensors, which have shapes but no numbers, and all that it allocates is added up
and taken off again when it is freed: forward, backward, and nothing of the optimizer. Printed is
the peak beyond the weights, in GiB. A GPU needs about 1 to 1.5 GiB more: weights and the
optimizer's state, the CUDA context, workspaces of cuDNN and buffers of NCCL, and what the allocator
loses between blocks. The loss of a detector is that of its head's outputs; the targets that mmdet
assigns, some tens of MiB, are left out.
"""

import argparse
import math
import weakref
from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F
from mmengine.config import Config
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from engine.compat import mmcv_ops
from engine.config import OneLineParser
from engine.model import build_model
from engine.run import run
from models import FNASuperNet, InputError, count_params

CONFIGS = [
    "configs/fna_det/retinanet_arch_adapt_coco.py",
    "configs/fna_det/ssdlite_arch_adapt_coco.py",
    "configs/fna_seg/deeplabv3_arch_adapt_cityscapes.py",
    "configs/fna_det/retinanet_param_adapt_coco.py",
    "configs/fna_det/ssdlite_param_adapt_coco.py",
    "configs/fna_seg/deeplabv3_param_adapt_cityscapes.py",
    "configs/fna_seg/deeplabv3plus_os16_param_adapt_cityscapes.py",
    "configs/fna_seg/deeplabv3plus_os8_param_adapt_cityscapes.py",
]
GIB = 2**30


class LiveBytes(TorchDispatchMode):
    """Adds up the storages of all tensors that operations return, until they are freed."""

    def __init__(self):
        super().__init__()
        self.now = self.peak = 0
        self.known: set[int] = set()

    def __torch_dispatch__(self, op, types, args=(), kwargs=None):
        result = op(*args, **(kwargs or {}))
        for tensor in tree_leaves(result):
            if isinstance(tensor, Tensor):
                self.count(tensor.untyped_storage())
        return result

    def count(self, storage: torch.UntypedStorage) -> None:
        key, size = id(storage), storage.nbytes()
        if key in self.known:
            return
        self.known.add(key)
        self.now += size
        self.peak = max(self.peak, self.now)
        weakref.finalize(storage, self.free, key, size)

    def free(self, key: int, size: int) -> None:
        self.known.discard(key)
        self.now -= size


def image_size(cfg: Config) -> tuple[int, int]:
    """Height and width of a training batch, in pixels."""
    if "crop_size" in cfg:
        return tuple(cfg.crop_size)
    if "resize" not in cfg:
        raise InputError(f"config {cfg.filename}: has neither crop_size nor resize")
    width, height = cfg.resize.scale
    divisor = cfg.model.data_preprocessor.get("pad_size_divisor", 1)
    return tuple(math.ceil(side / divisor) * divisor for side in (height, width))


def task_loss(model: nn.Module, images: Tensor) -> Tensor:
    """A scalar that computes and keeps what the model's own loss does, up to the targets."""
    features = model.extract_feat(images)
    if hasattr(model, "decode_head"):
        return segmentation_loss(model.decode_head, features, images)
    scores, deltas = model.bbox_head(features)
    losses = [F.smooth_l1_loss(d, torch.zeros_like(d)) for d in map(rows_of_4, deltas)]
    classes = model.bbox_head.cls_out_channels
    rows = [score.permute(0, 2, 3, 1).reshape(-1, classes) for score in scores]
    if model.bbox_head.use_sigmoid_cls:
        for score in rows:
            targets = score.new_zeros(len(score), dtype=torch.long)
            loss = mmcv_ops.sigmoid_focal_loss(score, targets, reduction="none")
            losses.append((loss * torch.ones_like(targets)[:, None]).sum())
    else:
        joined = torch.cat(rows)
        targets = joined.new_zeros(len(joined), dtype=torch.long)
        losses.append(F.cross_entropy(joined.float(), targets, reduction="none").sum())
    return torch.stack([loss.float() for loss in losses]).sum()


def rows_of_4(deltas: Tensor) -> Tensor:
    return deltas.permute(0, 2, 3, 1).reshape(-1, 4)


def segmentation_loss(head: nn.Module, features: Sequence[Tensor], images: Tensor) -> Tensor:
    logits = head(features)
    logits = F.interpolate(
        logits, images.shape[2:], mode="bilinear", align_corners=head.align_corners
    )
    labels = torch.zeros_like(logits[:, 0], dtype=torch.long)
    return F.cross_entropy(logits.float(), labels)


def architecture_step(backbone: FNASuperNet) -> None:
    """All candidates compute, and α learns alone."""
    backbone.set_path(None)


def weight_step(backbone: FNASuperNet) -> None:
    """The largest path computes."""
    sizes = [
        [count_params(op) for _, op in layer.describe_candidates()]
        for layer in backbone.mixed_layers
    ]
    backbone.set_path([size.index(max(size)) for size in sizes])


def count(path: str, batch: int | None, amp: bool, **backbone: object) -> dict[str, int]:
    """The peak of each kind of step of a config, in bytes beyond the weights."""
    with FakeTensorMode():
        options = {f"model.backbone.{key}": value for key, value in backbone.items()}
        model, cfg = build_model(path, "cpu", options)
        model.train()
        batch = batch or cfg.train_dataloader.batch_size
        images = torch.empty(batch, 3, *image_size(cfg))
        if not isinstance(model.backbone, FNASuperNet):
            return {"step": peak(model, images, amp, lambda _: None)}
        steps = {"architecture step": architecture_step}
        if not backbone.get("with_cp"):
            steps["weight step"] = weight_step
        return {name: peak(model, images, amp, step) for name, step in steps.items()}


def peak(model: nn.Module, images: Tensor, amp: bool, choose: Callable[[FNASuperNet], None]) -> int:
    choose(model.backbone)
    only_alpha = choose is architecture_step
    for name, parameter in model.named_parameters():
        parameter.requires_grad = name.endswith("alpha") == only_alpha
    with LiveBytes() as live:
        with torch.autocast("cpu", torch.float16, enabled=amp):
            loss = task_loss(model, images)
        loss.backward()
    model.zero_grad()
    return live.peak


def parse_args() -> argparse.Namespace:
    parser = OneLineParser(prog="benchmarks.memory", description=__doc__.partition("\n")[0])
    parser.add_argument("configs", nargs="*", default=CONFIGS, metavar="CONFIG")
    parser.add_argument("--batch", type=int, help="images per GPU (default: as the config says)")
    return parser.parse_args()


def main() -> None:
    args = parse_args()
    mmcv_ops.install()
    print("| config | step | fp32 | --amp | with_cp | with_cp --amp |\n|---|---|---|---|---|---|")
    for path in args.configs:
        plain = [count(path, args.batch, amp) for amp in (False, True)]
        sparing = [{}, {}]
        if "architecture step" in plain[0]:
            sparing = [count(path, args.batch, amp, with_cp=True) for amp in (False, True)]
        for step in plain[0]:
            columns = [result.get(step) for result in (*plain, *sparing)]
            shown = ["" if number is None else f"{number / GIB:.1f}" for number in columns]
            print(f"| {path} | {step} | {' | '.join(shown)} |", flush=True)


if __name__ == "__main__":
    run(main)
