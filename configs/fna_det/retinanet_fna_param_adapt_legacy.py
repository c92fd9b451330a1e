# RetinaNet under the box coding of mmdet 0.x, under which the paper's checkpoints were trained:
# boxes have widths x2 - x1 + 1, and anchors are centred half a pixel further.
_base_ = "retinanet_fna_param_adapt.py"

model = dict(
    bbox_head=dict(
        anchor_generator=dict(type="LegacyAnchorGenerator", center_offset=0.5),
        bbox_coder=dict(type="LegacyDeltaXYWHBBoxCoder"),
    )
)
