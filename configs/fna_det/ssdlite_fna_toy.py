# SSDLite FNA on the embedded data set, sized for minutes on two CPU cores: few images and
# iterations, each image as large as in the real run.
_base_ = ["ssdlite_fna_param_adapt.py", "../_base_/toy_city_detection.py"]

data_root = _base_.toy_city.data_root

model = dict(bbox_head=dict(num_classes=9))

# not on a larger canvas: so few iterations learn objects at the size at which they are tested
train_pipeline = [step for step in _base_.train_pipeline if step.type != "Expand"]
train_dataloader = dict(
    batch_size=4,
    num_workers=1,
    dataset=dict(times=1, dataset=dict(**_base_.toy_city, pipeline=train_pipeline)),
)
val_dataloader = dict(num_workers=1, dataset=dict(**_base_.toy_city))
test_dataloader = val_dataloader
val_evaluator = dict(ann_file=data_root + "annotations/instances_val2017.json")
test_evaluator = val_evaluator

# 160 images, 3 epochs of 40 iterations. So few want an adaptive optimizer, and larger steps in the
# head, where the last BN must learn the scale of scores and deltas, which starts at 1.
train_cfg = dict(max_epochs=3, val_interval=100)
optim_wrapper = dict(
    optimizer=dict(_delete_=True, type="AdamW", lr=2e-3, weight_decay=0.05),
    paramwise_cfg=dict(custom_keys={"bbox_head": dict(lr_mult=10)}),
)
param_scheduler = [
    dict(type="LinearLR", start_factor=1 / 3, by_epoch=False, begin=0, end=20),
    dict(type="MultiStepLR", by_epoch=False, begin=0, end=120, milestones=[90], gamma=0.1),
]
custom_hooks = [dict(type="CheckModel"), dict(type="ChannelsLast")]
default_hooks = dict(logger=dict(interval=10))
auto_scale_lr = dict(base_batch_size=4)
randomness = dict(seed=0)
