# Architecture adaptation on the embedded data set, sized for a minute or two on two CPU cores: it
# shows the procedure; a search that finds something takes longer.
_base_ = ["deeplabv3_arch_adapt.py", "../_base_/toy_city_segmentation.py"]

data_root = _base_.toy_city.data_root
crop_size = (129, 129)
input_size = crop_size

data_preprocessor = dict(size=crop_size)

train_pipeline, arch_pipeline = _base_.train_pipeline, _base_.arch_pipeline
train_pipeline[2].scale = arch_pipeline[2].scale = (512, 256)
train_pipeline[3].crop_size = arch_pipeline[3].crop_size = crop_size
train_dataloader = dict(
    batch_size=4, num_workers=1, dataset=dict(**_base_.toy_city, pipeline=train_pipeline)
)

custom_hooks = [dict(type="CheckModel"), dict(type="ChannelsLast")]
# 128 images for the weights, 32 for alpha: 2 epochs of 32 weight steps, 16 architecture steps in
# the second
train_cfg = dict(
    max_epochs=2,
    arch_start_epoch=1,
    weight_steps=2,
    arch_pipeline=arch_pipeline,
    cost=dict(input_size=input_size),
)
# few steps need large ones
optim_wrapper = dict(
    weights=dict(optimizer=dict(_delete_=True, type="AdamW", lr=1e-3, weight_decay=0.05)),
    arch=dict(optimizer=dict(lr=3e-2)),
)
param_scheduler = [
    dict(type="LinearLR", start_factor=1 / 3, by_epoch=False, begin=0, end=20),
]
default_hooks = dict(logger=dict(interval=10), checkpoint=dict(interval=1))
auto_scale_lr = dict(base_batch_size=4)
randomness = dict(seed=0)
