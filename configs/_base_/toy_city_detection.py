# What the toy variants of detection share: the embedded data set, in sizes for two CPU cores.
toy_city = dict(
    data_root="data/toy_city/",
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
)
toy_scale = (384, 192)
toy_retinanet = dict(
    neck=dict(out_channels=64),
    bbox_head=dict(num_classes=9, in_channels=64, feat_channels=64, stacked_convs=2),
)
