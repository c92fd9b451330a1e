# Architecture adaptation of DeepLabv3 on Cityscapes, one GPU with 16 images (paper, section 4.2): a
# super network that starts from the remapped seed, and what it prefers in WORK_DIR/net_config.txt.
# By count it needs 17.5 GiB (9.7 with --amp), so a GPU of 24; 6.3 with
# model.backbone.with_cp=True, so that one of 8 will do (docs/usage.md).
_base_ = [
    "../_base_/deeplabv3.py",
    "../_base_/cityscapes_segmentation.py",
    "../_base_/seg_runtime.py",
    "../_base_/search_space_segmentation.py",
]

crop_size = (321, 321)
# height and width at which MAdds are counted: what the network sees here
input_size = crop_size
# BN is not synchronized, as in the authors' search; sync_bn = "torch" would.
# Every process computes the same path: only its gradients are averaged.
model_wrapper_cfg = dict(type="SampledPathParallel")

model = dict(
    data_preprocessor=dict(size=crop_size),
    backbone=dict(
        _delete_=True,
        type="FNASuperNet",
        **_base_.search_space,
        out_indices=(7,),
        output_stride=16,
        init_cfg=dict(type="Remap", seed="checkpoints/seed_mbv2.pth"),
    ),
)

resize = dict(type="Resize", scale=(1024, 512), keep_ratio=True)
crop = dict(_base_.crop, crop_size=crop_size)
train_pipeline = [*_base_.load, resize, crop, _base_.flip, _base_.pack]
# the held-out fifth, from which alpha learns, is cropped alike but not flipped
arch_pipeline = [*_base_.load, resize, crop, _base_.pack]
train_dataloader = dict(batch_size=16, dataset=dict(pipeline=train_pipeline))
train_cfg = dict(
    type="ArchAdaptLoop",
    max_epochs=80,
    arch_start_epoch=30,
    arch_steps=1,
    weight_steps=1,
    split=dict(ratio=0.2, seed=0),
    arch_pipeline=arch_pipeline,
    # added to the loss of an architecture step: lambda * log_tau(gamma * cost / unit), with
    # weight lambda, base tau, scale gamma
    cost=dict(type="MAdds", weight=9e-3, base=45, scale=10, input_size=input_size),
)
log_processor = dict(type="ArchLogProcessor")
# No evaluation: with BN by batch statistics a super network has no accuracy of its own to measure.
# What it derives is judged after parameter adaptation.
val_cfg = val_dataloader = val_evaluator = None
test_cfg = test_dataloader = test_evaluator = None

optim_wrapper = dict(
    constructor="ArchAdaptOptimWrapperConstructor",
    weights=dict(
        type="OptimWrapper",
        optimizer=dict(type="SGD", lr=0.02, momentum=0.9, weight_decay=5e-4),
    ),
    arch=dict(
        type="OptimWrapper",
        optimizer=dict(type="Adam", lr=1e-3, weight_decay=4e-5),
    ),
)
# of the weights, by iterations; alpha's learning rate stays
param_scheduler = [
    # from 1e-4
    dict(type="LinearLR", start_factor=0.005, begin=0, end=5, convert_to_iter_based=True),
    dict(type="CosineAnnealingLR", begin=5, end=80, eta_min=1e-3, convert_to_iter_based=True),
]
default_hooks = dict(checkpoint=dict(interval=5))
auto_scale_lr = dict(base_batch_size=16)
