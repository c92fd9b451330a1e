# Architecture adaptation of DeepLabv3 on CamVid (docs/new_dataset_segmentation.md), sized for one
# CPU or GPU with 8 crops of 161x161.
_base_ = [
    "deeplabv3_arch_adapt_cityscapes.py",
    "../_base_/data/camvid.py",
    "../_base_/short_run.py",
]

dataset = _base_.dataset
data_root = dataset.data_root
crop_size = (161, 161)
# height and width at which MAdds are counted
input_size = crop_size

model = dict(_base_.deeplabv3, data_preprocessor=dict(size=crop_size))

resize = dict(_base_.resize, scale=_base_.image_scale)
crop = dict(_base_.crop, crop_size=crop_size)
train_pipeline = [*_base_.load, resize, crop, _base_.flip, _base_.pack]
arch_pipeline = [*_base_.load, resize, crop, _base_.pack]
train_dataloader = dict(
    batch_size=8,
    num_workers=1,
    dataset=dict(dataset, **_base_.splits.train, pipeline=train_pipeline),
)

custom_hooks = _base_.cpu_hooks
# 294 images for the weights, 73 for alpha: 10 epochs of 36 weight steps, from the 5th on an
# architecture step for each
train_cfg = dict(
    max_epochs=10,
    arch_start_epoch=4,
    arch_pipeline=arch_pipeline,
    cost=dict(input_size=input_size),
)
optim_wrapper = _base_.search_optimizers
param_scheduler = [
    dict(_base_.warm_up, start_factor=0.01),
    dict(type="CosineAnnealingLR", by_epoch=False, begin=20, end=360, eta_min=5e-5),
]
default_hooks = dict(logger=_base_.log_often, checkpoint=dict(interval=1))
auto_scale_lr = dict(base_batch_size=8)
