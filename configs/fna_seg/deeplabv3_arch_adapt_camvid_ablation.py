# The ablation's architecture adaptation of DeepLabv3 on CamVid (paper, table 6; docs/ablation.md),
# 8 crops of 129x129: it takes minutes on one CPU core.
_base_ = "deeplabv3_arch_adapt_camvid.py"

crop_size = (129, 129)
input_size = crop_size

model = dict(data_preprocessor=dict(size=crop_size))
crop = dict(_base_.crop, crop_size=crop_size)
train_pipeline = [*_base_.load, _base_.resize, crop, _base_.flip, _base_.pack]
arch_pipeline = [*_base_.load, _base_.resize, crop, _base_.pack]
train_dataloader = dict(dataset=dict(pipeline=train_pipeline))

# 4 epochs of 36 weight steps, from the 3rd on an architecture step for every two
train_cfg = dict(
    max_epochs=4,
    arch_start_epoch=2,
    weight_steps=2,
    arch_pipeline=arch_pipeline,
    cost=dict(input_size=input_size),
)
param_scheduler = [
    dict(_base_.warm_up, start_factor=0.01),
    dict(type="CosineAnnealingLR", by_epoch=False, begin=20, end=144, eta_min=5e-5),
]
