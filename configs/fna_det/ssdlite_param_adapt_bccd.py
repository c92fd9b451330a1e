# Parameter adaptation of SSDLite on blood cells (BCCD; docs/new_dataset_detection.md), sized for
# one CPU or GPU with 8 images, seen at 320x320.
_base_ = ["ssdlite_param_adapt_coco.py", "../_base_/data/bccd.py", "../_base_/short_run.py"]

dataset, splits = _base_.dataset, _base_.splits
data_root = dataset.data_root

model = _base_.ssdlite

# not on a larger canvas: so few iterations learn cells at the size at which they are tested
train_pipeline = [step for step in _base_.train_pipeline if step != _base_.expand]
train_dataloader = dict(
    batch_size=8,
    num_workers=1,
    dataset=dict(times=1, dataset=dict(dataset, **splits.train, pipeline=train_pipeline)),
)
val_dataloader = dict(num_workers=1, dataset=dict(dataset, **splits.val))
test_dataloader = dict(num_workers=1, dataset=dict(dataset, **splits.test))

# 14 epochs of 25 iterations. The head takes larger steps, because its last BN must learn the scale
# of scores and deltas, which starts at 1.
train_cfg = dict(max_epochs=14, val_interval=7)
optim_wrapper = dict(
    optimizer=_base_.adamw,
    paramwise_cfg=dict(custom_keys={"bbox_head": dict(lr_mult=10)}),
)
param_scheduler = [
    dict(_base_.warm_up, end=50),
    dict(type="MultiStepLR", by_epoch=True, begin=0, end=14, milestones=[9, 12], gamma=0.1),
]
default_hooks = dict(logger=_base_.log_often)
auto_scale_lr = dict(base_batch_size=8)
