# SSDLite under the box coding of mmdet 0.x, as in retinanet_fna_param_adapt_legacy.py.
_base_ = "ssdlite_fna_param_adapt.py"

model = dict(
    bbox_head=dict(
        anchor_generator=dict(type="LegacySSDLiteAnchorGenerator"),
        bbox_coder=dict(type="LegacyDeltaXYWHBBoxCoder"),
    )
)
