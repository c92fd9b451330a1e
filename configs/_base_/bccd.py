# Blood cells (BCCD) in COCO's format: 205 training, 87 validation and 72 test images of 640x480.
bccd = dict(
    # in the order of the annotation files
    metainfo=dict(classes=("RBC", "WBC", "Platelets")),
    data_root="data/bccd/",
    data_prefix=dict(img="images/"),
)
bccd_ann_file = dict(
    train="annotations/instances_train.json",
    val="annotations/instances_val.json",
    test="annotations/instances_test.json",
)
# RetinaNet sees half of each side
bccd_scale = (320, 240)
bccd_retinanet = dict(
    neck=dict(out_channels=128),  # half of the usual: cells are easy to see
    bbox_head=dict(
        num_classes=3,
        in_channels=128,
        feat_channels=128,
        # anchors from 16 pixels on, not 32: resized, a platelet has about 20
        anchor_generator=dict(octave_base_scale=2),
    ),
)
