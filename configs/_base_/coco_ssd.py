# COCO 2017 as SSD sees it: 320x320 whatever the shape, strongly augmented, the train set 5 times an
# epoch, 64 images per GPU.
_base_ = "coco_detection.py"

scale = (320, 320)

train_pipeline = [
    dict(type="LoadCheckedImage"),
    dict(type="LoadAnnotations", with_bbox=True),
    dict(type="PhotoMetricDistortion"),
    # a larger canvas of the mean colour around the image
    dict(type="Expand", mean=[123.675, 116.28, 103.53], to_rgb=True, ratio_range=(1, 4)),
    dict(type="MinIoURandomCrop", min_ious=(0.1, 0.3, 0.5, 0.7, 0.9), min_crop_size=0.3),
    dict(type="Resize", scale=scale, keep_ratio=False),
    dict(type="RandomFlip", prob=0.5),
    dict(type="PackDetInputs"),
]
sizes = dict(Resize=dict(scale=scale, keep_ratio=False))
test_pipeline = [dict(step, **sizes.get(step.type, {})) for step in _base_.test_pipeline]

train_dataloader = dict(
    batch_size=64,
    batch_sampler=None,  # all images have one shape
    drop_last=True,  # BN has nothing to normalize by where one image is left and the map is 1x1
    dataset=dict(
        _delete_=True,
        type="RepeatDataset",
        times=5,
        dataset=dict(_base_.train_dataloader.dataset, pipeline=train_pipeline),
    ),
)
val_dataloader = dict(dataset=dict(pipeline=test_pipeline))
test_dataloader = val_dataloader
