# The embedded street scenes with labels, in Cityscapes' layout and with its 19 classes: 240
# training and 60 validation images of 384x192.
dataset = dict(type="CheckedCityscapesDataset", data_root="data/toy_city/")
splits = dict(
    train=dict(data_prefix=dict(img_path="leftImg8bit/train", seg_map_path="gtFine/train")),
    val=dict(data_prefix=dict(img_path="leftImg8bit/val", seg_map_path="gtFine/val")),
)
# of road, sidewalk, building, wall, fence, pole, traffic light, traffic sign, vegetation, terrain,
# sky, person, rider, car, truck, bus, train, motorcycle, bicycle
class_weight = [
    *(0.3, 0.4, 0.3, 1.1, 1.0, 1.3, 1.6, 1.2, 0.5, 0.6),
    *(0.4, 1.3, 1.5, 1.1, 0.7, 0.7, 0.6, 1.4, 1.8),
]
# half the size (width, height), for two CPU cores
image_scale = (257, 129)
decode_head = dict(
    channels=64,
    dilations=(1, 1, 2, 4),  # the map is 17x9
    dropout_ratio=0,
    # BN would take long to learn the statistics of a head that starts from random weights
    norm_cfg=dict(type="GN", num_groups=16),
    # about the inverse square root of how many pixels a class has, or the small ones come too late
    loss_decode=dict(class_weight=class_weight, avg_non_ignore=False),
)
# An image is decoded once; a process for loading would take time on a core that the network needs.
load_kept = dict(type="LoadImageFromFile", cache=True)
in_process = dict(num_workers=0)
