# The ablation's architecture adaptation on CamVid (docs/ablation.md): minutes on one CPU core.
_base_ = "../deeplabv3_camvid_arch_adapt.py"

crop_size = (129, 129)
input_size = crop_size

data_preprocessor = dict(size=crop_size)
train_pipeline, arch_pipeline = _base_.train_pipeline, _base_.arch_pipeline
train_pipeline[3].crop_size = arch_pipeline[3].crop_size = crop_size
train_dataloader = dict(dataset=dict(pipeline=train_pipeline))

# 4 epochs of 36 weight steps, from the 3rd on an architecture step for each two
train_cfg = dict(
    max_epochs=4,
    arch_start_epoch=2,
    weight_steps=2,
    arch_pipeline=arch_pipeline,
    cost=dict(input_size=input_size),
)
param_scheduler = [
    dict(type="LinearLR", start_factor=0.01, by_epoch=False, begin=0, end=20),
    dict(type="CosineAnnealingLR", by_epoch=False, begin=20, end=144, eta_min=5e-5),
]
