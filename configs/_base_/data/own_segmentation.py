# A template for your own labels: copy it, then fill in what is marked by <-. The configs of
# training and search name the copy in _base_ and take everything from here
# (docs/new_dataset_segmentation.md).
dataset = dict(
    type="CheckedSegDataset",
    # <- the folder of the data; the paths below are relative to it, and --data-root replaces it
    data_root="data/own/",
    metainfo=dict(
        # <- in the order of the ids in the labels, from 0; 255 is "none" and no class. One class
        # needs its comma: ("road",); what is not road is then a class, too, or 255.
        classes=("background", "road"),
        # <- the colour of each class in pictures, red-green-blue; may be left out
        palette=[[0, 0, 0], [128, 64, 128]],
    ),
    # <- the folders of images and labels, and how the files' names end; what comes before is the
    # same for an image and its label
    data_prefix=dict(img_path="images/", seg_map_path="labels/"),
    img_suffix=".jpg",
    seg_map_suffix=".png",
    # <- True where 0 is "none" and classes count from 1
    reduce_zero_label=False,
)
# <- lists of images: one per line, without ending, relative to the folder of images. Without lists,
# with a folder for each split, write
# train=dict(data_prefix=dict(img_path="images/train", seg_map_path="labels/train"))
splits = dict(
    train=dict(ann_file="train.txt"),
    val=dict(ann_file="val.txt"),
    # without a test split, write the line of val
    test=dict(ann_file="test.txt"),
)

# <- (width, height) of the images, of most if they differ: training takes crops of any size. A
# search resizes to it, ratio kept: where portraits and landscapes are mixed, (long, short side).
image_scale = (640, 480)
deeplabv3 = dict(decode_head=dict(num_classes=len(dataset["metainfo"]["classes"])))
