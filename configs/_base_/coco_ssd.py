# COCO 2017 as SSD sees it: 320x320 whatever the shape, strongly augmented, the train set 5 times an
# epoch, 64 images per GPU.
_base_ = "coco_detection.py"

distort = dict(type="PhotoMetricDistortion")
# a larger canvas of the mean colour around the image
expand = dict(type="Expand", mean=[123.675, 116.28, 103.53], to_rgb=True, ratio_range=(1, 4))
crop = dict(type="MinIoURandomCrop", min_ious=(0.1, 0.3, 0.5, 0.7, 0.9), min_crop_size=0.3)
resize = dict(_base_.resize, scale=(320, 320), keep_ratio=False)

load = [_base_.load_image, _base_.load_boxes]
train_pipeline = [*load, distort, expand, crop, resize, _base_.flip, _base_.pack]
test_pipeline = [_base_.load_image, resize, _base_.load_boxes, _base_.pack_tested]

train_dataloader = dict(
    batch_size=64,
    # such an image takes a core 26 ms: with fewer workers a GPU waits for them
    num_workers=12,
    pin_memory=True,
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
