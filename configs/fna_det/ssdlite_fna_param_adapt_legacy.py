# SSDLite under the box coding of mmdet 0.x, as in retinanet_fna_param_adapt_legacy.py and, as that,
# for evaluating the authors' file; train with ssdlite_fna_param_adapt.py.
_base_ = "ssdlite_fna_param_adapt.py"

model = dict(
    bbox_head=dict(
        anchor_generator=dict(type="LegacySSDAnchorGenerator"),
        bbox_coder=dict(type="LegacyDeltaXYWHBBoxCoder"),
    ),
    test_cfg=dict(nms=dict(offset=1)),
)
