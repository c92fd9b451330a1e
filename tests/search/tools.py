"""A search small enough for tests: two searched stages, random 16-pixel images, a mean loss."""

import copy
from pathlib import Path

import pytest
import torch
from mmengine.dataset import BaseDataset
from mmengine.model import BaseModel
from mmengine.registry import DATASETS, MODELS
from mmengine.runner import BaseLoop, Runner
from torch import Tensor, nn
from torch.utils.data import DataLoader

import engine  # noqa: F401  (registers what the runs name)
from search import report

CANDIDATES = ["k3_e1", "k5_e2", "skip"]
SUPERNET = dict(
    type="FNASuperNet",
    fixed_stage="[[8, 8], ['k3_e1'], 1]",
    channels=[8, 12],
    layers=[2, 2],
    strides=[2, 1],
    ops=CANDIDATES,
    out_indices=(3,),
    output_stride=4,
)
LAYERS = 4
# the same search with shared weights, to a target, colder and colder
SHARED = dict(
    supernet=dict(ops=["k3_e2", "k5_e3", "skip"], share_weights=True),
    cost=dict(target=0.7),
    loop=dict(temperature=dict(start=2.0, end=0.5)),
)


@DATASETS.register_module()
class RandomImages(BaseDataset):
    """Images and targets that follow from their index; a pipeline may add noise to them."""

    def __init__(self, length: int, noise: float = 0.0, pipeline: list | None = None):
        self.length, self.noise = length, noise if pipeline is None else 0.0
        super().__init__(serialize_data=False)  # which would collect garbage each time

    def load_data_list(self) -> list[dict]:
        return [dict(index=index) for index in range(self.length)]

    def prepare_data(self, index: int) -> dict:
        number = self.get_data_info(index)["index"]
        generator = torch.Generator().manual_seed(number)
        image = torch.randn(3, 16, 16, generator=generator)
        if self.noise:
            image += self.noise * torch.randn(3, 16, 16)
        return dict(image=image, target=torch.tensor([number % 3 - 1.0]), number=number)


@MODELS.register_module()
class TinyTask(BaseModel):
    """A regression on pooled features; ``dropout`` makes its forward random."""

    def __init__(self, backbone: dict, dropout: float = 0.0):
        super().__init__()
        self.backbone = MODELS.build(backbone)
        self.dropout = nn.Dropout(dropout)
        self.head = nn.Linear(12, 1)
        self.seen: list[tuple[list[int], list[int | None]]] = []  # images, path

    def forward(
        self,
        image: Tensor | list[Tensor],
        target: list[Tensor] | None = None,
        number: list[int] = (),
        mode: str = "tensor",
    ) -> Tensor | dict[str, Tensor]:
        """N images of 3×H×W → N×1, or in mode 'loss' the mean squared error."""
        images = image if isinstance(image, Tensor) else torch.stack(list(image))
        (features,) = self.backbone(images)
        output = self.head(self.dropout(features.mean((2, 3))))
        if mode == "tensor":
            return output
        self.seen.append((list(number), [layer.path for layer in self.backbone.mixed_layers]))
        return {"loss": (output - torch.stack(list(target))).square().mean()}


def make_runner(
    work_dir: Path,
    *,
    images: int = 16,
    batch_size: int = 2,
    num_workers: int = 0,
    noise: float = 0.0,
    dropout: float = 0.0,
    loop: dict | None = None,
    cost: dict | None = None,
    supernet: dict | None = None,
    optim_wrapper: dict | None = None,
    seed: int | None = 5,
    checkpoint_interval: int = 1000,
    resume: bool = False,
    load_from: str | None = None,
    cfg: dict | None = None,
    **runner: object,
) -> Runner:
    """A runner of 3 epochs of 4 weight steps, with α learning from the second epoch on."""
    arguments = dict(
        model=dict(type="TinyTask", backbone=SUPERNET | (supernet or {}), dropout=dropout),
        work_dir=str(work_dir),
        train_dataloader=dict(
            batch_size=batch_size,
            num_workers=num_workers,
            persistent_workers=num_workers > 0,
            sampler=dict(type="DefaultSampler", shuffle=True),
            dataset=dict(type="RandomImages", length=images, noise=noise),
        ),
        train_cfg=dict(
            type="ArchAdaptLoop",
            max_epochs=3,
            arch_start_epoch=1,
            split=dict(ratio=0.5, seed=0),
            cost=dict(type="MAdds", weight=0.1, base=10, scale=2, unit=1e5, input_size=(16, 16))
            | (cost or {}),
            seed_net_config="configs/net_configs/mobilenetv2.txt",
        )
        | (loop or {}),
        optim_wrapper=optim_wrapper
        or dict(
            constructor="ArchAdaptOptimWrapperConstructor",
            weights=dict(
                optimizer=dict(type="SGD", lr=0.02, momentum=0.9, weight_decay=1e-2),
                clip_grad=dict(max_norm=5),
            ),
            arch=dict(
                optimizer=dict(type="Adam", lr=0.1, weight_decay=1e-3), clip_grad=dict(max_norm=5)
            ),
        ),
        param_scheduler=[
            dict(type="LinearLR", start_factor=0.1, by_epoch=False, begin=0, end=3),
            dict(type="MultiStepLR", by_epoch=True, milestones=[2], gamma=0.1),
        ],
        default_hooks=dict(
            logger=dict(type="LoggerHook", interval=2),
            checkpoint=dict(
                type="CheckpointHook", interval=checkpoint_interval, by_epoch=False, save_last=False
            ),
        ),
        randomness=dict(seed=seed),
        default_scope="mmengine",
        experiment_name=f"search_{id(object())}_{torch.randint(10**9, ()).item()}",
        custom_hooks=[dict(type="PlainHistory")],
        log_processor=dict(type="ArchLogProcessor"),
        resume=resume,
        load_from=load_from,
        cfg=dict(cfg or {}, resume=resume, load_from=load_from),
    )
    return Runner(**(arguments | runner))


def stop_workers(loop: BaseLoop) -> None:
    """End the loaders' processes, for which torch would wait long once the loop is collected."""
    for loader in vars(loop).values():
        if isinstance(loader, DataLoader) and loader._iterator is not None:
            loader._iterator._shutdown_workers()


def weights_of(runner: Runner) -> dict[str, torch.Tensor]:
    return {k: v for k, v in runner.model.state_dict().items() if not k.endswith("alpha")}


def alphas_of(runner: Runner) -> list[torch.Tensor]:
    return [alpha.detach() for alpha in runner.model.backbone.alphas()]


def snapshot(runner: Runner) -> dict[str, object]:
    """All that a step may change, copied."""
    return copy.deepcopy(
        dict(
            weights=weights_of(runner),
            alphas=alphas_of(runner),
            weight_optimizer=runner.optim_wrapper["weights"].state_dict()["state"],
            arch_optimizer=runner.optim_wrapper["arch"].state_dict()["state"],
        )
    )


def equal(one: object, other: object) -> bool:
    """Whether two nests of tensors are equal, bit for bit."""
    if isinstance(one, torch.Tensor):
        return torch.equal(one, other)
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(equal(one[key], other[key]) for key in one)
    if isinstance(one, list | tuple):
        return len(one) == len(other) and all(map(equal, one, other))
    return one == other


def steps_of(runner: Runner) -> str:
    """W and A of all steps made; an architecture step has no path."""
    return "".join("A" if path[0] is None else "W" for _, path in runner.model.seen)


def skip_pictures(monkeypatch: pytest.MonkeyPatch) -> None:
    """Drawing and counting take longer than searching here; test_report does both."""
    monkeypatch.setattr(report.ArchReport, "compare", lambda *args: "")
    monkeypatch.setattr(report, "to_png", lambda figure: b"")
    for name in ("draw_architectures", "draw_alpha", "draw_cost"):
        monkeypatch.setattr(report, name, lambda *args: None)
