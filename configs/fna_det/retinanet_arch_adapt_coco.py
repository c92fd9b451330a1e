# Architecture adaptation of RetinaNet on COCO, 8 GPUs with 1 image each (paper, section 4.3): a
# super network that starts from the remapped seed, and what it prefers in WORK_DIR/net_config.txt.
# By count a GPU needs 9.3 GiB (5.7 with --amp), so one of 12 will do; 4.3 with
# model.backbone.with_cp=True (docs/usage.md).
_base_ = [
    "../_base_/retinanet.py",
    "../_base_/coco_detection.py",
    "../_base_/default_runtime.py",
    "../_base_/search_space_detection.py",
    "../_base_/arch_adapt_detection.py",
]

# height and width at which MAdds are counted
input_size = (800, 1088)

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
arch_pipeline = [_base_.load_image, _base_.load_boxes, _base_.resize, _base_.pack]
train_cfg = dict(
    max_epochs=14,
    arch_start_epoch=8,
    weight_steps=1,
    arch_pipeline=arch_pipeline,
    cost=dict(weight=0.02, input_size=input_size),
)
log_processor = dict(type="ArchLogProcessor")
# No evaluation: with BN by batch statistics a super network has no accuracy of its own to measure.
# What it derives is judged after parameter adaptation.
val_cfg = val_dataloader = val_evaluator = None
test_cfg = test_dataloader = test_evaluator = None

optim_wrapper = dict(
    weights=dict(
        type="OptimWrapper",
        optimizer=dict(type="SGD", lr=0.02, momentum=0.9, weight_decay=1e-4),
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
