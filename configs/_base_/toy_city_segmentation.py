# What the toy variants of segmentation share: the embedded data set, 160 + 40 images of 512x256
# in Cityscapes' layout and with its 19 classes, in sizes for two CPU cores.
toy_city = dict(data_root="data/toy_city/")
toy_crop_size = (193, 193)
