# Parameter adaptation of SSDLite on blood cells (BCCD; docs/new_dataset_detection.md): 205 training
# images of 640x480, seen at 320x320, sized for one CPU or GPU.
_base_ = "ssdlite_fna_param_adapt.py"

# in the order of the annotation files
metainfo = dict(classes=("RBC", "WBC", "Platelets"))
data_root = "data/bccd/"
files = dict(metainfo=metainfo, data_root=data_root, data_prefix=dict(img="images/"))

# COCO's anchors fit: 90 % of the training boxes overlap one by half (IoU 0.5)
model = dict(bbox_head=dict(num_classes=3))

# not on a larger canvas: so few iterations learn cells at the size at which they are tested
train_pipeline = [step for step in _base_.train_pipeline if step.type != "Expand"]
train_dataloader = dict(
    batch_size=8,
    num_workers=1,
    dataset=dict(
        times=1,
        dataset=dict(**files, ann_file="annotations/instances_train.json", pipeline=train_pipeline),
    ),
)
val_dataloader = dict(
    num_workers=1, dataset=dict(**files, ann_file="annotations/instances_val.json")
)
test_dataloader = dict(
    num_workers=1, dataset=dict(**files, ann_file="annotations/instances_test.json")
)
val_evaluator = dict(ann_file=data_root + "annotations/instances_val.json")
test_evaluator = dict(ann_file=data_root + "annotations/instances_test.json")

# 14 epochs of 25 iterations: so few want an adaptive optimizer, and larger steps in the head, where
# the last BN must learn the scale of scores and deltas, which starts at 1
train_cfg = dict(max_epochs=14, val_interval=7)
optim_wrapper = dict(
    optimizer=dict(_delete_=True, type="AdamW", lr=1e-3, weight_decay=0.05),
    paramwise_cfg=dict(custom_keys={"bbox_head": dict(lr_mult=10)}),
)
param_scheduler = [
    dict(type="LinearLR", start_factor=1 / 3, by_epoch=False, begin=0, end=50),
    dict(type="MultiStepLR", by_epoch=True, begin=0, end=14, milestones=[9, 12], gamma=0.1),
]
default_hooks = dict(logger=dict(interval=10))
auto_scale_lr = dict(base_batch_size=8)
randomness = dict(seed=0)
