# Parameter adaptation on CamVid (docs/new_dataset_segmentation.md): 367 training images of 480x360,
# 11 classes, sized for one CPU or GPU.
_base_ = ["deeplabv3_fna_param_adapt.py", "../_base_/camvid.py"]

camvid, prefix = _base_.camvid, _base_.camvid_prefix
data_root = camvid.data_root
crop_size = (193, 193)
# height and width at which MAdds are counted
input_size = (360, 480)

data_preprocessor = dict(size=crop_size)
model = dict(decode_head=dict(num_classes=11))

train_pipeline = _base_.train_pipeline
train_pipeline[3].crop_size = crop_size
train_dataloader = dict(
    batch_size=8,
    num_workers=1,
    dataset=dict(**camvid, data_prefix=prefix.train, pipeline=train_pipeline),
)
val_dataloader = dict(num_workers=1, dataset=dict(**camvid, data_prefix=prefix.val))
test_dataloader = dict(num_workers=1, dataset=dict(**camvid, data_prefix=prefix.test))

custom_hooks = [
    dict(type="CheckModel"),
    dict(type="ChannelsLast"),
    dict(type="UpdateBNStatistics", iterations=20, interval=10),
]
# 400 iterations, 9 passes over the images: so few want an adaptive optimizer
train_cfg = dict(max_iters=400, val_interval=200)
optim_wrapper = dict(optimizer=dict(_delete_=True, type="AdamW", lr=1e-3, weight_decay=0.05))
param_scheduler = [
    dict(type="LinearLR", start_factor=0.01, by_epoch=False, begin=0, end=30),
    dict(type="PolyLR", power=0.9, eta_min=0, by_epoch=False, begin=30, end=400),
]
default_hooks = dict(logger=dict(interval=20), checkpoint=dict(interval=200))
auto_scale_lr = dict(base_batch_size=8)
randomness = dict(seed=0)
