# RetinaNet under the box coding of mmdet 0.x, as the paper's checkpoints were trained. There, a
# box from pixel x1 to pixel x2 has the width x2 - x1 + 1, anchors of stride s are centred at
# (s - 1) / 2 (today's at 0), and their corners are rounded to whole pixels.
# mmdet 0.x took half a pixel off each side of a decoded box, and added 1 to its width when it wrote
# results. Today's mmdet does neither, so boxes have nearly the same size, but lie half a pixel (of
# the resized image) further left and up.
_base_ = "retinanet_fna_param_adapt.py"

model = dict(
    bbox_head=dict(
        anchor_generator=dict(type="LegacyAnchorGenerator", center_offset=0.5),
        bbox_coder=dict(type="LegacyDeltaXYWHBBoxCoder"),
    )
)
