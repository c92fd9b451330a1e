# Architecture adaptation on one's own data, the worked example of docs/new_dataset_detection.md:
# blood cells (BCCD), sized for one CPU or GPU.
_base_ = "retinanet_arch_adapt.py"

# in the order of the annotation files
metainfo = dict(classes=("RBC", "WBC", "Platelets"))
data_root = "data/bccd/"
scale = (320, 240)
input_size = (240, 320)
channels = 128

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

train_pipeline, arch_pipeline = _base_.train_pipeline, _base_.arch_pipeline
train_pipeline[2].scale = arch_pipeline[2].scale = scale
train_dataloader = dict(
    batch_size=2,
    num_workers=1,
    dataset=dict(
        metainfo=metainfo,
        data_root=data_root,
        ann_file="annotations/instances_train.json",
        data_prefix=dict(img="images/"),
        pipeline=train_pipeline,
    ),
)

# The paper's 14 epochs and its start of alpha after 8, over 52 weight steps an epoch: 312
# architecture steps, so few that alpha's learning rate is 100 times the paper's.
train_cfg = dict(arch_pipeline=arch_pipeline, cost=dict(input_size=input_size))
optim_wrapper = dict(
    weights=dict(optimizer=dict(_delete_=True, type="AdamW", lr=5e-4, weight_decay=0.05)),
    arch=dict(optimizer=dict(lr=3e-2)),
)
param_scheduler = [
    dict(type="LinearLR", start_factor=1 / 3, by_epoch=False, begin=0, end=50),
    dict(type="MultiStepLR", by_epoch=True, begin=0, end=14, milestones=[8, 11], gamma=0.1),
]
default_hooks = dict(logger=dict(interval=10))
auto_scale_lr = dict(base_batch_size=2)
randomness = dict(seed=0)
