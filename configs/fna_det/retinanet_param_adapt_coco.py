# Parameter adaptation of the published RetinaNet architecture on COCO, 8 GPUs with 4 images each
# (paper, section 4.3: 33.9 AP).
_base_ = [
    "../_base_/retinanet.py",
    "../_base_/coco_detection.py",
    "../_base_/default_runtime.py",
]

sync_bn = "torch"
# height and width at which MAdds are counted
input_size = (800, 1088)

# the 1x schedule
train_cfg = dict(type="SeededEpochLoop", max_epochs=12, val_interval=1)
val_cfg = dict(type="ValLoop")
test_cfg = dict(type="TestLoop")

optim_wrapper = dict(
    type="OptimWrapper",
    optimizer=dict(type="SGD", lr=0.05, momentum=0.9, weight_decay=5e-5),
    clip_grad=dict(max_norm=35, norm_type=2),
)
param_scheduler = [
    dict(type="LinearLR", start_factor=1 / 3, by_epoch=False, begin=0, end=500),
    dict(type="MultiStepLR", by_epoch=True, begin=0, end=12, milestones=[8, 11], gamma=0.1),
]
# for --auto-scale-lr: 8 GPUs with 4 images each
auto_scale_lr = dict(enable=False, base_batch_size=32)
# the best so far, beside the last ones
default_hooks = dict(checkpoint=dict(save_best="coco/bbox_mAP"))
