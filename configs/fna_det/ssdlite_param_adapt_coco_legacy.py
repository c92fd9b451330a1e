# SSDLite under the box coding of mmdet 0.x, as in retinanet_param_adapt_coco_legacy.py and like it
# for evaluating the authors' file; train with ssdlite_param_adapt_coco.py.
_base_ = "ssdlite_param_adapt_coco.py"

model = dict(
    bbox_head=dict(
        anchor_generator=dict(type="LegacySSDAnchorGenerator"),
        bbox_coder=dict(type="LegacyDeltaXYWHBBoxCoder"),
    ),
    test_cfg=dict(nms=dict(offset=1)),
)
