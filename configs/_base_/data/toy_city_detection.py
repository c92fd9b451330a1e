# The embedded street scenes with boxes: 160 training and 40 validation images of 512x256.
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
image_scale = (384, 192)
retinanet = dict(
    neck=dict(out_channels=64),
    bbox_head=dict(num_classes=num_classes, in_channels=64, feat_channels=64, stacked_convs=2),
)
ssdlite = dict(bbox_head=dict(num_classes=num_classes))
