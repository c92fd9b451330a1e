# Parameter adaptation of DeepLabv3 on the embedded data set, 4 whole images of 257x129, sized for
# a bit more than a minute on one CPU core: small images, few iterations.
_base_ = [
    "deeplabv3_param_adapt_cityscapes.py",
    "../_base_/data/toy_city_segmentation.py",
    "../_base_/short_run.py",
]

dataset, splits = _base_.dataset, _base_.splits
data_root = dataset.data_root
# a row and a column more than half the images': maps of stride 16 begin and end at a border
crop_size = (129, 257)
# height and width at which MAdds are counted
input_size = crop_size

model = dict(
    data_preprocessor=dict(size=crop_size),
    decode_head=_base_.decode_head,
    test_cfg=dict(crop_size=crop_size, stride=crop_size, windows_per_batch=1),
)

resize = dict(type="Resize", scale=_base_.image_scale)
train_pipeline = [_base_.load_kept, _base_.load[1], resize, _base_.flip, _base_.pack]
test_pipeline = [_base_.load[0], resize, _base_.load[1], _base_.pack]
train_dataloader = dict(
    batch_size=4,
    **_base_.in_process,
    dataset=dict(dataset, **splits.train, pipeline=train_pipeline),
)
val_dataloader = dict(
    **_base_.in_process, dataset=dict(dataset, **splits.val, pipeline=test_pipeline)
)
test_dataloader = val_dataloader

custom_hooks = [
    *_base_.cpu_hooks,
    dict(type="UpdateBNStatistics", iterations=10, interval=10),
]
# 240 images, about 3 passes of 60 iterations; not evaluated before the end, and then by test.sh
train_cfg = dict(max_iters=190, val_begin=10_000)
optim_wrapper = dict(
    # so few steps would end before the usual average of squares, over 1,000 of them, has begun
    optimizer=dict(_base_.adamw, lr=2e-3, betas=(0.9, 0.99), fused=True),
    paramwise_cfg=dict(custom_keys={"decode_head": dict(lr_mult=4)}),
)
param_scheduler = [
    dict(_base_.warm_up, start_factor=0.01, end=10),
    dict(type="PolyLR", power=0.9, eta_min=0, by_epoch=False, begin=10, end=190),
]
default_hooks = dict(logger=_base_.log_often, checkpoint=dict(interval=95))
auto_scale_lr = dict(base_batch_size=4)
