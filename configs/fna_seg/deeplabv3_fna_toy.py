# DeepLabv3 FNA on the embedded data set, sized for minutes on two CPU cores: small crops and
# windows, few iterations.
_base_ = ["deeplabv3_fna_param_adapt.py", "../_base_/toy_city_segmentation.py"]

data_root = _base_.toy_city.data_root
crop_size = _base_.toy_crop_size
input_size = (256, 512)

data_preprocessor = dict(size=crop_size)
model = dict(test_cfg=dict(crop_size=crop_size, stride=(129, 129)))

train_pipeline = _base_.train_pipeline
train_pipeline[3].crop_size = crop_size
train_dataloader = dict(num_workers=1, dataset=dict(**_base_.toy_city, pipeline=train_pipeline))
val_dataloader = dict(num_workers=1, dataset=dict(**_base_.toy_city))
test_dataloader = val_dataloader

custom_hooks = [
    dict(type="CheckModel"),
    dict(type="ChannelsLast"),
    dict(type="UpdateBNStatistics", iterations=20, interval=10),
]
# 160 images, 5 passes of 40 iterations. So few want an adaptive optimizer.
train_cfg = dict(max_iters=200, val_interval=1000)
optim_wrapper = dict(optimizer=dict(_delete_=True, type="AdamW", lr=1e-3, weight_decay=0.05))
param_scheduler = [
    dict(type="LinearLR", start_factor=0.01, by_epoch=False, begin=0, end=10),
    dict(type="PolyLR", power=0.9, eta_min=0, by_epoch=False, begin=10, end=200),
]
default_hooks = dict(logger=dict(interval=10), checkpoint=dict(interval=80))
auto_scale_lr = dict(base_batch_size=4)
randomness = dict(seed=0)
