# Parameter adaptation of DeepLabv3 on CamVid (docs/new_dataset_segmentation.md): 367 training
# images of 480x360, 11 classes, sized for one CPU or GPU with 8 crops of 193x193.
_base_ = [
    "deeplabv3_param_adapt_cityscapes.py",
    "../_base_/data/camvid.py",
    "../_base_/short_run.py",
]

dataset, splits = _base_.dataset, _base_.splits
data_root = dataset.data_root
crop_size = (193, 193)
# height and width at which MAdds are counted
input_size = _base_.image_scale[::-1]

model = dict(_base_.deeplabv3, data_preprocessor=dict(size=crop_size))

crop = dict(_base_.crop, crop_size=crop_size)
train_pipeline = [*_base_.load, _base_.rescale, crop, _base_.flip, _base_.pack]
train_dataloader = dict(
    batch_size=8,
    num_workers=1,
    dataset=dict(dataset, **splits.train, pipeline=train_pipeline),
)
val_dataloader = dict(num_workers=1, dataset=dict(dataset, **splits.val))
test_dataloader = dict(num_workers=1, dataset=dict(dataset, **splits.test))

custom_hooks = [
    *_base_.cpu_hooks,
    dict(type="UpdateBNStatistics", iterations=20, interval=10),
]
# 400 iterations, 9 passes over the images
train_cfg = dict(max_iters=400, val_interval=200)
optim_wrapper = dict(optimizer=_base_.adamw)
param_scheduler = [
    dict(_base_.warm_up, start_factor=0.01, end=30),
    dict(type="PolyLR", power=0.9, eta_min=0, by_epoch=False, begin=30, end=400),
]
default_hooks = dict(logger=dict(interval=20), checkpoint=dict(interval=200))
auto_scale_lr = dict(base_batch_size=8)
