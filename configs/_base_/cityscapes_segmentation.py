# Cityscapes in crops of 769x769, 4 per GPU.
_base_ = "data/cityscapes.py"

data_root = _base_.cityscapes.data_root
crop_size = (769, 769)

# the steps by name: a config that changes one writes its pipelines anew, of these and its own
load = [dict(type="LoadImageFromFile"), dict(type="LoadCheckedAnnotations")]
rescale = dict(
    type="RandomChoice",
    transforms=[
        [dict(type="Resize", scale_factor=factor, keep_ratio=True)]
        for factor in (0.75, 1.0, 1.25, 1.5, 1.75, 2.0)
    ],
)
crop = dict(type="RandomCrop", crop_size=crop_size)
flip = dict(type="RandomFlip", prob=0.5)
pack = dict(type="PackSegInputs")
train_pipeline = [*load, rescale, crop, flip, pack]
test_pipeline = [*load, pack]
train_dataloader = dict(
    batch_size=4,
    num_workers=4,
    persistent_workers=True,
    sampler=dict(type="DefaultSampler", shuffle=True),
    drop_last=True,  # BN has nothing to normalize by where one image is left and pooled to 1x1
    dataset=dict(
        **_base_.cityscapes,
        **_base_.cityscapes_splits.train,
        pipeline=train_pipeline,
    ),
)
val_dataloader = dict(
    batch_size=1,
    num_workers=4,
    persistent_workers=True,
    sampler=dict(type="DefaultSampler", shuffle=False),
    dataset=dict(
        **_base_.cityscapes,
        **_base_.cityscapes_splits.val,
        test_mode=True,
        pipeline=test_pipeline,
    ),
)
test_dataloader = val_dataloader

val_evaluator = dict(type="ClassIoUMetric")
test_evaluator = val_evaluator
# what a table of tested networks shows, and under which heading
headline = {"mIoU": "mIoU"}

custom_hooks = [dict(type="CheckModel")]
