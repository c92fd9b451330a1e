# The embedded street scenes with boxes: 240 training and 60 validation images of 384x192.
dataset = dict(
    # what datasets/toy_city.py draws, in the order of its annotation files, which is COCO's
    metainfo=dict(
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
    ),
    data_root="data/toy_city/",
)
splits = dict(
    train=dict(ann_file="annotations/instances_train2017.json", data_prefix=dict(img="train2017/")),
    val=dict(ann_file="annotations/instances_val2017.json", data_prefix=dict(img="val2017/")),
)
num_classes = len(dataset["metainfo"]["classes"])

# in sizes for two CPU cores: small images (width, height), a narrow neck and head
image_scale = (256, 128)
# BN would take long to learn the statistics of a head that starts from random weights
group_norm = dict(type="GN", num_groups=16)
retinanet = dict(
    # Objects are 20 to 130 pixels high or long: maps of stride 16, 32 and 64 will do, and without
    # the one of stride 8 the head costs a fifth.
    neck=dict(out_channels=64, start_level=2, num_outs=3, norm_cfg=group_norm),
    bbox_head=dict(
        num_classes=num_classes,
        in_channels=64,
        feat_channels=64,
        stacked_convs=2,
        norm_cfg=group_norm,
        anchor_generator=dict(octave_base_scale=2, strides=[16, 32, 64]),
    ),
)
# Maps of 16x8 (two), 8x4 and 4x2, each with two sizes and three shapes of anchors: SSD's own boxes
# on its six maps cover half of the objects.
_map_channels = (96, 576, 1280, 256)
ssdlite = dict(
    backbone=dict(out_indices=(5, "6.expand", 8)),
    neck=dict(
        in_channels=_map_channels[:3],
        out_channels=_map_channels,
        level_strides=(2,),
        level_paddings=(1,),
    ),
    bbox_head=dict(
        num_classes=num_classes,
        in_channels=_map_channels,
        anchor_generator=dict(
            _delete_=True,
            type="AnchorGenerator",
            strides=[16, 16, 32, 64],
            base_sizes=[22, 44, 80, 120],
            scales=[1.0, 1.41],
            ratios=[0.5, 1.0, 2.2],
            center_offset=0.5,
        ),
    ),
)
# An image is decoded once; a process for loading would take time on a core that the network needs.
load_kept = dict(type="LoadImageFromFile", cache=True)
in_process = dict(num_workers=0)
