# The ablation's parameter adaptation of DeepLabv3 on CamVid (paper, table 6; docs/ablation.md), 8
# crops of 129x129: it takes minutes on one CPU core.
_base_ = "deeplabv3_param_adapt_camvid.py"

crop_size = (129, 129)

model = dict(data_preprocessor=dict(size=crop_size))
crop = dict(_base_.crop, crop_size=crop_size)
train_pipeline = [*_base_.load, _base_.rescale, crop, _base_.flip, _base_.pack]
train_dataloader = dict(dataset=dict(pipeline=train_pipeline))
# every figure is of the validation images
test_dataloader = _base_.val_dataloader

train_cfg = dict(max_iters=100, val_interval=1000)
param_scheduler = [
    dict(_base_.warm_up, start_factor=0.01, end=10),
    dict(type="PolyLR", power=0.9, eta_min=0, by_epoch=False, begin=10, end=100),
]
default_hooks = dict(checkpoint=dict(interval=100))
