# Cityscapes, 19 classes, which mmseg knows: 2975 training and 500 validation images of 2048x1024.
# Labels are gtFine/SPLIT/CITY/*_gtFine_labelTrainIds.png. --data-root replaces data_root.
cityscapes = dict(type="CheckedCityscapesDataset", data_root="data/cityscapes/")
cityscapes_splits = dict(
    train=dict(data_prefix=dict(img_path="leftImg8bit/train", seg_map_path="gtFine/train")),
    val=dict(data_prefix=dict(img_path="leftImg8bit/val", seg_map_path="gtFine/val")),
)
