# COCO 2017 at 1333x800, 4 images per GPU.
_base_ = "data/coco.py"

data_root = _base_.coco.data_root

# the steps by name: a config that changes one writes its pipelines anew, of these and its own
load_image = dict(type="LoadImageFromFile")
load_boxes = dict(type="LoadAnnotations", with_bbox=True)
resize = dict(type="Resize", scale=_base_.coco_scale, keep_ratio=True)
flip = dict(type="RandomFlip", prob=0.5)
pack = dict(type="PackDetInputs")
pack_tested = dict(
    type="PackDetInputs",
    meta_keys=("img_id", "img_path", "ori_shape", "img_shape", "scale_factor"),
)
train_pipeline = [load_image, load_boxes, resize, flip, pack]
test_pipeline = [load_image, resize, load_boxes, pack_tested]
train_dataloader = dict(
    batch_size=4,
    num_workers=4,
    persistent_workers=True,
    sampler=dict(type="DefaultSampler", shuffle=True),
    batch_sampler=dict(type="AspectRatioBatchSampler"),
    dataset=dict(
        **_base_.coco,
        **_base_.coco_splits.train,
        filter_cfg=dict(filter_empty_gt=True, min_size=32),
        pipeline=train_pipeline,
    ),
)
val_dataloader = dict(
    batch_size=1,
    num_workers=4,
    persistent_workers=True,
    drop_last=False,
    sampler=dict(type="DefaultSampler", shuffle=False),
    dataset=dict(
        **_base_.coco,
        **_base_.coco_splits.val,
        test_mode=True,
        pipeline=test_pipeline,
    ),
)
test_dataloader = val_dataloader

# on the annotations that the loader reads
val_evaluator = dict(
    type="CheckedCocoMetric",
    metric="bbox",
    format_only=False,
    # COCO's own limits of detections per image; mmdet's would take AP50 to APl at 1000
    proposal_nums=(1, 10, 100),
)
test_evaluator = val_evaluator
# what a table of tested networks shows, and under which heading
headline = {"coco/bbox_mAP": "AP", "coco/bbox_mAP_50": "AP50"}

custom_hooks = [dict(type="CheckModel")]
