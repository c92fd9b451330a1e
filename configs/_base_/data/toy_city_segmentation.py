# The embedded street scenes with labels, in Cityscapes' layout and with its 19 classes: 160
# training and 40 validation images of 512x256.
dataset = dict(type="CheckedCityscapesDataset", data_root="data/toy_city/")
splits = dict(
    train=dict(data_prefix=dict(img_path="leftImg8bit/train", seg_map_path="gtFine/train")),
    val=dict(data_prefix=dict(img_path="leftImg8bit/val", seg_map_path="gtFine/val")),
)
# width, height
image_scale = (512, 256)
