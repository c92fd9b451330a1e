# Architecture adaptation on CamVid (docs/new_dataset_segmentation.md), sized for one CPU or GPU.
_base_ = ["deeplabv3_arch_adapt.py", "../_base_/camvid.py"]

camvid = _base_.camvid
data_root = camvid.data_root
crop_size = (161, 161)
# height and width at which MAdds are counted
input_size = crop_size

data_preprocessor = dict(size=crop_size)
model = dict(decode_head=dict(num_classes=11))

train_pipeline, arch_pipeline = _base_.train_pipeline, _base_.arch_pipeline
train_pipeline[2].scale = arch_pipeline[2].scale = (480, 360)
train_pipeline[3].crop_size = arch_pipeline[3].crop_size = crop_size
train_dataloader = dict(
    batch_size=8,
    num_workers=1,
    dataset=dict(**camvid, data_prefix=_base_.camvid_prefix.train, pipeline=train_pipeline),
)

custom_hooks = [dict(type="CheckModel"), dict(type="ChannelsLast")]
# 294 images for the weights, 73 for alpha: 10 epochs of 36 weight steps, from the 5th on an
# architecture step for each
train_cfg = dict(
    max_epochs=10,
    arch_start_epoch=4,
    arch_pipeline=arch_pipeline,
    cost=dict(input_size=input_size),
)
# few steps need large ones
optim_wrapper = dict(
    weights=dict(optimizer=dict(_delete_=True, type="AdamW", lr=1e-3, weight_decay=0.05)),
    arch=dict(optimizer=dict(lr=3e-2)),
)
param_scheduler = [
    dict(type="LinearLR", start_factor=0.01, by_epoch=False, begin=0, end=20),
    dict(type="CosineAnnealingLR", by_epoch=False, begin=20, end=360, eta_min=5e-5),
]
default_hooks = dict(logger=dict(interval=10), checkpoint=dict(interval=1))
auto_scale_lr = dict(base_batch_size=8)
randomness = dict(seed=0)
