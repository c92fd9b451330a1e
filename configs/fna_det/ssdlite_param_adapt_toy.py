# Parameter adaptation of SSDLite on the embedded data set, 4 images of 320x320 as in the real run,
# sized for minutes on two CPU cores: few images and iterations.
_base_ = [
    "ssdlite_param_adapt_coco.py",
    "../_base_/data/toy_city_detection.py",
    "../_base_/short_run.py",
]

dataset, splits = _base_.dataset, _base_.splits
data_root = dataset.data_root

model = _base_.ssdlite

# not on a larger canvas: so few iterations learn objects at the size at which they are tested
train_pipeline = [step for step in _base_.train_pipeline if step != _base_.expand]
train_dataloader = dict(
    batch_size=4,
    num_workers=1,
    dataset=dict(times=1, dataset=dict(dataset, **splits.train, pipeline=train_pipeline)),
)
val_dataloader = dict(num_workers=1, dataset=dict(dataset, **splits.val))
test_dataloader = val_dataloader

# 160 images, 3 epochs of 40 iterations. The head takes larger steps, because its last BN must learn
# the scale of scores and deltas, which starts at 1.
train_cfg = dict(max_epochs=3, val_interval=100)
optim_wrapper = dict(
    optimizer=dict(_base_.adamw, lr=2e-3),
    paramwise_cfg=dict(custom_keys={"bbox_head": dict(lr_mult=10)}),
)
param_scheduler = [
    _base_.warm_up,
    dict(type="MultiStepLR", by_epoch=False, begin=0, end=120, milestones=[90], gamma=0.1),
]
custom_hooks = _base_.cpu_hooks
default_hooks = dict(logger=_base_.log_often)
auto_scale_lr = dict(base_batch_size=4)
