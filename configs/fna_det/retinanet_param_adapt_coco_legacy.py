# RetinaNet under the box coding of mmdet 0.x, for evaluating the authors' file; train with
# retinanet_param_adapt_coco.py. There, a box from pixel x1 to pixel x2 has the width x2 - x1 + 1,
# in NMS too, anchors of stride s are centred at (s - 1) / 2 (today's at 0), and their corners are
# rounded to whole pixels.
# Training here would not be the authors': mmdet 0.x read an annotated box of x, y, w, h as one that
# ends at x + w - 1, today's mmdet ends it at x + w, so targets would be one pixel wider and higher.
# mmdet 0.x took half a pixel off each side of a decoded box, and added 1 to its width when it wrote
# results. Today's mmdet does neither, so boxes have nearly the same size, but lie half a pixel (of
# the resized image) further left and up.
_base_ = "retinanet_param_adapt_coco.py"

model = dict(
    bbox_head=dict(
        anchor_generator=dict(type="LegacyAnchorGenerator", center_offset=0.5),
        bbox_coder=dict(type="LegacyDeltaXYWHBBoxCoder"),
    ),
    test_cfg=dict(nms=dict(offset=1)),
)
