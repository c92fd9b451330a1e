# RetinaNet FNA on the embedded data set, sized for minutes on two CPU cores: small images, a narrow
# neck and head, few iterations.
_base_ = "retinanet_fna_param_adapt.py"

# what datasets/toy_city.py draws, in the order of its annotation files, which is COCO's
metainfo = dict(
    classes=(
        "person",
        "bicycle",
        "car",
        "motorcycle",
        "bus",
        "train",
        "truck",
        "traffic light",
        "stop sign",
    )
)
data_root = "data/toy_city/"
scale = (384, 192)
input_size = (192, 384)
channels = 64

model = dict(
    neck=dict(out_channels=channels),
    bbox_head=dict(num_classes=9, in_channels=channels, feat_channels=channels, stacked_convs=2),
)

train_pipeline, test_pipeline = _base_.train_pipeline, _base_.test_pipeline
train_pipeline[2].scale = test_pipeline[1].scale = scale
train_dataloader = dict(
    num_workers=1,
    dataset=dict(metainfo=metainfo, data_root=data_root, pipeline=train_pipeline),
)
val_dataloader = dict(
    num_workers=1,
    dataset=dict(metainfo=metainfo, data_root=data_root, pipeline=test_pipeline),
)
test_dataloader = val_dataloader
val_evaluator = dict(ann_file=data_root + "annotations/instances_val2017.json")
test_evaluator = val_evaluator

# 160 images, 4 epochs of 40 iterations. So few want an adaptive optimizer: SGD had half its AP50.
train_cfg = dict(max_epochs=4, val_interval=100)
optim_wrapper = dict(optimizer=dict(_delete_=True, type="AdamW", lr=1e-3, weight_decay=0.05))
param_scheduler = [
    dict(type="LinearLR", start_factor=1 / 3, by_epoch=False, begin=0, end=20),
    dict(type="MultiStepLR", by_epoch=True, begin=0, end=4, milestones=[3], gamma=0.1),
]
default_hooks = dict(logger=dict(interval=10))
auto_scale_lr = dict(base_batch_size=4)
