# Architecture adaptation of SSDLite on COCO, 8 GPUs with 16 images each (paper, section 4.3): a
# super network that starts from the remapped seed, and what it prefers in WORK_DIR/net_config.txt.
# By count a GPU needs 12.6 GiB (7.1 with --amp), so one of 16; 5.0 with
# model.backbone.with_cp=True, so that one of 8 will do (docs/usage.md).
_base_ = [
    "../_base_/ssdlite.py",
    "../_base_/coco_ssd.py",
    "../_base_/default_runtime.py",
    "../_base_/search_space_ssdlite.py",
    "../_base_/arch_adapt_detection.py",
]

# all images have one size, for which cuDNN may look for the fastest way
env_cfg = dict(cudnn_benchmark=True)
# height and width at which MAdds are counted
input_size = (320, 320)

model = dict(
    backbone=dict(
        _delete_=True,
        type="FNASuperNet",
        **_base_.search_space,
        out_indices=("6.expand", 8),
        last_channels=1280,
        norm_cfg=_base_.norm_cfg,
        init_cfg=dict(type="Remap", seed="checkpoints/seed_mbv2.pth"),
    )
)

train_dataloader = dict(batch_size=16)
# the held-out half, from which alpha learns, is not augmented
arch_pipeline = [_base_.load_image, _base_.load_boxes, _base_.resize, _base_.pack]
train_cfg = dict(
    max_epochs=30,
    arch_start_epoch=15,
    weight_steps=5,
    arch_pipeline=arch_pipeline,
    cost=dict(weight=0.15, input_size=input_size),
)
log_processor = dict(type="ArchLogProcessor")
# No evaluation: with BN by batch statistics a super network has no accuracy of its own to measure.
# What it derives is judged after parameter adaptation.
val_cfg = val_dataloader = val_evaluator = None
test_cfg = test_dataloader = test_evaluator = None

optim_wrapper = dict(
    weights=dict(
        type="OptimWrapper",
        optimizer=dict(type="RMSprop", lr=0.05, eps=1.0, momentum=0.9, weight_decay=4e-5),
    ),
)
# of the weights; alpha's learning rate stays
param_scheduler = [
    dict(type="LinearLR", start_factor=1 / 3, by_epoch=False, begin=0, end=500),
    dict(type="MultiStepLR", by_epoch=True, begin=0, end=30, milestones=[18, 25, 28], gamma=0.1),
]
# for --auto-scale-lr, which scales both optimizers' rates: 8 GPUs with 16 images each
auto_scale_lr = dict(enable=False, base_batch_size=128)
