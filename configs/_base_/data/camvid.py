# CamVid with the 11 classes of the SegNet tutorial, 480x360 pixels: images/SPLIT/NAME.jpg and
# labels/SPLIT/NAME.png, whose pixels hold a class's place in the list below, or 255 for none.
dataset = dict(
    type="CheckedSegDataset",
    data_root="data/camvid/",
    metainfo=dict(
        classes=(
            "sky",
            "building",
            "pole",
            "road",
            "pavement",
            "tree",
            "sign",
            "fence",
            "car",
            "pedestrian",
            "bicyclist",
        ),
        # of the pictures, red-green-blue; left out, mmseg draws colours by lot
        palette=[
            [128, 128, 128],
            [128, 0, 0],
            [192, 192, 128],
            [128, 64, 128],
            [60, 40, 222],
            [128, 128, 0],
            [192, 128, 128],
            [64, 64, 128],
            [64, 0, 128],
            [64, 64, 0],
            [0, 128, 192],
        ],
    ),
)
splits = dict(
    train=dict(data_prefix=dict(img_path="images/train", seg_map_path="labels/train")),
    val=dict(data_prefix=dict(img_path="images/val", seg_map_path="labels/val")),
    test=dict(data_prefix=dict(img_path="images/test", seg_map_path="labels/test")),
)

# of the images (width, height); a search resizes to it
image_scale = (480, 360)
deeplabv3 = dict(decode_head=dict(num_classes=len(dataset["metainfo"]["classes"])))
