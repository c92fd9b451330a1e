# Architecture adaptation of RetinaNet on COCO, 8 GPUs with 1 image each (paper, section 4.3): a
# super network that starts from the remapped seed, and what it prefers in WORK_DIR/net_config.txt.
_base_ = [
    "../_base_/retinanet.py",
    "../_base_/coco_detection.py",
    "../_base_/default_runtime.py",
    "../_base_/search_space_detection.py",
]

# height and width at which MAdds are counted
input_size = (800, 1088)
sync_bn = "torch"
# every process computes the same path: only its gradients are averaged
model_wrapper_cfg = dict(type="SampledPathParallel")

model = dict(
    backbone=dict(
        _delete_=True,
        type="FNASuperNet",
        **_base_.search_space,
        out_indices=(2, 3, 5, 7),
        init_cfg=dict(type="Remap", seed="checkpoints/seed_mbv2.pth"),
    )
)

train_dataloader = dict(batch_size=1)
# the held-out half, from which alpha learns, is not augmented
arch_pipeline = [
    dict(type="LoadImageFromFile"),
    dict(type="LoadAnnotations", with_bbox=True),
    dict(type="Resize", scale=(1333, 800), keep_ratio=True),
    dict(type="PackDetInputs"),
]
train_cfg = dict(
    type="ArchAdaptLoop",
    max_epochs=14,
    arch_start_epoch=8,
    arch_steps=1,
    weight_steps=1,
    split=dict(ratio=0.5, seed=0),
    arch_pipeline=arch_pipeline,
    # added to the loss of an architecture step: lambda * log_tau(gamma * cost / unit), with
    # weight lambda, base tau, scale gamma
    cost=dict(weight=0.02, base=10, scale=1, unit=1e9, input_size=input_size),
)
# No evaluation: with BN by batch statistics a super network has no accuracy of its own to measure.
# What it derives is judged after parameter adaptation.
val_cfg = val_dataloader = val_evaluator = None
test_cfg = test_dataloader = test_evaluator = None

optim_wrapper = dict(
    constructor="ArchAdaptOptimWrapperConstructor",
    weights=dict(
        type="OptimWrapper",
        optimizer=dict(type="SGD", lr=0.02, momentum=0.9, weight_decay=1e-4),
        clip_grad=dict(max_norm=35, norm_type=2),
    ),
    arch=dict(
        type="OptimWrapper",
        optimizer=dict(type="Adam", lr=3e-4, betas=(0.5, 0.999), weight_decay=1e-3),
        clip_grad=dict(max_norm=35, norm_type=2),
    ),
)
# of the weights; alpha's learning rate stays
param_scheduler = [
    dict(type="LinearLR", start_factor=1 / 3, by_epoch=False, begin=0, end=500),
    dict(type="MultiStepLR", by_epoch=True, begin=0, end=14, milestones=[8, 11], gamma=0.1),
]
# for --auto-scale-lr, which scales both optimizers' rates: 8 GPUs with 1 image each
auto_scale_lr = dict(enable=False, base_batch_size=8)
