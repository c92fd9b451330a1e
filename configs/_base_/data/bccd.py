# Blood cells (BCCD) in COCO's format: 205 training, 87 validation and 72 test images of 640x480.
dataset = dict(
    # the names in the annotation files
    metainfo=dict(classes=("RBC", "WBC", "Platelets")),
    data_root="data/bccd/",
    data_prefix=dict(img="images/"),
)
splits = dict(
    train=dict(ann_file="annotations/instances_train.json"),
    val=dict(ann_file="annotations/instances_val.json"),
    test=dict(ann_file="annotations/instances_test.json"),
)
num_classes = len(dataset["metainfo"]["classes"])

# RetinaNet sees half of each side (width, height)
image_scale = (320, 240)
retinanet = dict(
    neck=dict(out_channels=128),  # half of the usual: cells are easy to see
    bbox_head=dict(
        num_classes=num_classes,
        in_channels=128,
        feat_channels=128,
        # anchors from 16 pixels on, not 32: resized, a platelet has about 20
        anchor_generator=dict(octave_base_scale=2),
    ),
)
# COCO's anchors fit: 90 % of the training boxes overlap one by half (IoU 0.5)
ssdlite = dict(bbox_head=dict(num_classes=num_classes))
