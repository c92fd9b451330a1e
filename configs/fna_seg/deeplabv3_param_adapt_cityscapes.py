# Parameter adaptation of the published FNA architecture under DeepLabv3 on Cityscapes, 4 GPUs with
# 4 images each (paper, section 4.2).
_base_ = [
    "../_base_/deeplabv3.py",
    "../_base_/cityscapes_segmentation.py",
    "../_base_/seg_runtime.py",
]

# height and width at which MAdds are counted
input_size = (1024, 2048)
sync_bn = "torch"

custom_hooks = [dict(type="CheckModel"), dict(type="UpdateBNStatistics", iterations=2000)]

train_cfg = dict(type="SeededIterLoop", max_iters=100_000, val_interval=10_000)
val_cfg = dict(type="ValLoop")
test_cfg = dict(type="TestLoop")

optim_wrapper = dict(
    type="OptimWrapper",
    optimizer=dict(type="SGD", lr=0.01, momentum=0.9, weight_decay=5e-4),
)
param_scheduler = [
    # from 1e-4
    dict(type="LinearLR", start_factor=0.01, by_epoch=False, begin=0, end=5000),
    dict(type="PolyLR", power=0.9, eta_min=0, by_epoch=False, begin=5000, end=100_000),
]
auto_scale_lr = dict(base_batch_size=16)

# the best so far too, beside the last ones
default_hooks = dict(checkpoint=dict(by_epoch=False, interval=5000, save_best="mIoU"))
log_processor = dict(by_epoch=False)
