# COCO 2017: 118,287 training and 5,000 validation images with boxes of 80 classes, which mmdet
# knows. --data-root replaces data_root.
coco = dict(type="CheckedCocoDataset", data_root="data/coco/")
coco_splits = dict(
    train=dict(ann_file="annotations/instances_train2017.json", data_prefix=dict(img="train2017/")),
    val=dict(ann_file="annotations/instances_val2017.json", data_prefix=dict(img="val2017/")),
)
# to which RetinaNet's images are resized, ratio kept: the long side, the short side
coco_scale = (1333, 800)
