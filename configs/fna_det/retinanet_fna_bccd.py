# Parameter adaptation on one's own data, the worked example of docs/new_dataset_detection.md: blood
# cells (BCCD), 205 training images of 640x480, sized for one CPU or GPU.
_base_ = "retinanet_fna_param_adapt.py"

# in the order of the annotation files
metainfo = dict(classes=("RBC", "WBC", "Platelets"))
data_root = "data/bccd/"
scale = (320, 240)
input_size = (240, 320)

channels = 128  # of neck and head, half of the usual: cells are easy to see

model = dict(
    neck=dict(out_channels=channels),
    bbox_head=dict(
        num_classes=3,
        in_channels=channels,
        feat_channels=channels,
        # anchors from 16 pixels on, not 32: resized, a platelet has about 20
        anchor_generator=dict(octave_base_scale=2),
    ),
)

train_pipeline, test_pipeline = _base_.train_pipeline, _base_.test_pipeline
train_pipeline[2].scale = test_pipeline[1].scale = scale
train_dataloader = dict(
    batch_size=4,
    num_workers=1,
    dataset=dict(
        metainfo=metainfo,
        data_root=data_root,
        ann_file="annotations/instances_train.json",
        data_prefix=dict(img="images/"),
        pipeline=train_pipeline,
    ),
)
val_dataloader = dict(
    num_workers=1,
    dataset=dict(
        metainfo=metainfo,
        data_root=data_root,
        ann_file="annotations/instances_val.json",
        data_prefix=dict(img="images/"),
        pipeline=test_pipeline,
    ),
)
test_dataloader = dict(
    num_workers=1,
    dataset=dict(
        metainfo=metainfo,
        data_root=data_root,
        ann_file="annotations/instances_test.json",
        data_prefix=dict(img="images/"),
        pipeline=test_pipeline,
    ),
)
val_evaluator = dict(ann_file=data_root + "annotations/instances_val.json")
test_evaluator = dict(ann_file=data_root + "annotations/instances_test.json")

# 52 iterations an epoch: so few want an adaptive optimizer
train_cfg = dict(max_epochs=9, val_interval=3)
optim_wrapper = dict(optimizer=dict(_delete_=True, type="AdamW", lr=5e-4, weight_decay=0.05))
param_scheduler = [
    dict(type="LinearLR", start_factor=1 / 3, by_epoch=False, begin=0, end=50),
    dict(type="MultiStepLR", by_epoch=True, begin=0, end=9, milestones=[6, 8], gamma=0.1),
]
default_hooks = dict(logger=dict(interval=10))
auto_scale_lr = dict(base_batch_size=4)
randomness = dict(seed=0)
