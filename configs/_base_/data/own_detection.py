# A template for your own boxes: copy it, then fill in what is marked by <-. The configs of training
# and search name the copy in _base_ and take everything from here (docs/new_dataset_detection.md).
dataset = dict(
    # <- the names in "categories" of the annotation files; one class needs its comma: ("cat",)
    metainfo=dict(classes=("cat", "dog")),
    # <- the folder of the data; the paths below are relative to it, and --data-root replaces it
    data_root="data/own/",
    # <- the folder of the images, to which file_name in the annotation files is relative
    data_prefix=dict(img="images/"),
)
# <- a split whose images are in another folder has a data_prefix of its own:
# train=dict(ann_file="...", data_prefix=dict(img="train/"))
splits = dict(
    train=dict(ann_file="annotations/instances_train.json"),
    val=dict(ann_file="annotations/instances_val.json"),
    # without a test split, write the line of val
    test=dict(ann_file="annotations/instances_test.json"),
)
num_classes = len(dataset["metainfo"]["classes"])

# RetinaNet only (SSDLite sees every image at 320x320)
# <- to which images are resized, ratio kept: the long side and the short side, whichever of the two
# is the width. An image fits into both, so portraits and landscapes may be mixed.
image_scale = (640, 480)
retinanet = dict(
    bbox_head=dict(
        num_classes=num_classes,
        # <- the smallest anchors are 8 x this many pixels wide: at most the width of small objects
        # after resizing. 4 means from 32 pixels on; scripts/check_data.sh says what that covers.
        anchor_generator=dict(octave_base_scale=4),
    )
)
# SSDLite only: its anchors are 30 to 276 of 320 pixels wide
ssdlite = dict(bbox_head=dict(num_classes=num_classes))
