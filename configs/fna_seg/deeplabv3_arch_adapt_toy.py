# Architecture adaptation of DeepLabv3 on the embedded data set, 4 crops of 129x129, sized for a
# minute or two on two CPU cores: it shows the procedure; finding something takes longer.
_base_ = [
    "deeplabv3_arch_adapt_cityscapes.py",
    "../_base_/data/toy_city_segmentation.py",
    "../_base_/short_run.py",
]

dataset = _base_.dataset
data_root = dataset.data_root
crop_size = (129, 129)
# height and width at which MAdds are counted
input_size = crop_size

model = dict(data_preprocessor=dict(size=crop_size))

resize = dict(_base_.resize, scale=_base_.image_scale)
crop = dict(_base_.crop, crop_size=crop_size)
train_pipeline = [*_base_.load, resize, crop, _base_.flip, _base_.pack]
arch_pipeline = [*_base_.load, resize, crop, _base_.pack]
train_dataloader = dict(
    batch_size=4,
    num_workers=1,
    dataset=dict(dataset, **_base_.splits.train, pipeline=train_pipeline),
)

custom_hooks = _base_.cpu_hooks
# 128 images for the weights, 32 for alpha: 2 epochs of 32 weight steps, 16 architecture steps in
# the second
train_cfg = dict(
    max_epochs=2,
    arch_start_epoch=1,
    weight_steps=2,
    arch_pipeline=arch_pipeline,
    cost=dict(input_size=input_size),
)
optim_wrapper = _base_.search_optimizers
param_scheduler = [_base_.warm_up]
default_hooks = dict(logger=_base_.log_often, checkpoint=dict(interval=1))
auto_scale_lr = dict(base_batch_size=4)
