# Parameter adaptation of DeepLabv3 on the embedded data set, 4 crops of 193x193, sized for minutes
# on two CPU cores: small crops and windows, few iterations.
_base_ = [
    "deeplabv3_param_adapt_cityscapes.py",
    "../_base_/data/toy_city_segmentation.py",
    "../_base_/short_run.py",
]

dataset, splits = _base_.dataset, _base_.splits
data_root = dataset.data_root
crop_size = (193, 193)
# height and width at which MAdds are counted
input_size = _base_.image_scale[::-1]

model = dict(
    data_preprocessor=dict(size=crop_size),
    test_cfg=dict(crop_size=crop_size, stride=(129, 129)),
)

crop = dict(_base_.crop, crop_size=crop_size)
train_pipeline = [*_base_.load, _base_.rescale, crop, _base_.flip, _base_.pack]
train_dataloader = dict(
    num_workers=1, dataset=dict(dataset, **splits.train, pipeline=train_pipeline)
)
val_dataloader = dict(num_workers=1, dataset=dict(dataset, **splits.val))
test_dataloader = val_dataloader

custom_hooks = [
    *_base_.cpu_hooks,
    dict(type="UpdateBNStatistics", iterations=20, interval=10),
]
# 160 images, 5 passes of 40 iterations
train_cfg = dict(max_iters=200, val_interval=1000)
optim_wrapper = dict(optimizer=_base_.adamw)
param_scheduler = [
    dict(_base_.warm_up, start_factor=0.01, end=10),
    dict(type="PolyLR", power=0.9, eta_min=0, by_epoch=False, begin=10, end=200),
]
default_hooks = dict(logger=_base_.log_often, checkpoint=dict(interval=80))
auto_scale_lr = dict(base_batch_size=4)
