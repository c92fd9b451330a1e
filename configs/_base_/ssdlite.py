# SSDLite on an FNA backbone (paper, section 4.3), for images of 320x320. Its first map is the
# expanded activation of the layer that goes to stride 32 (Sandler et al., MobileNetV2, 6.2).
norm_cfg = dict(type="BN", eps=1e-3)
act_cfg = dict(type="ReLU6")
# of the six maps, 20x20 to 1x1; the neck makes the last four
map_channels = (576, 1280, 512, 256, 256, 128)

model = dict(
    type="SingleStageDetector",
    data_preprocessor=dict(
        type="DetDataPreprocessor",
        mean=[123.675, 116.28, 103.53],
        std=[1, 1, 1],
        bgr_to_rgb=True,
    ),
    backbone=dict(
        type="FNABackbone",
        net_config="configs/net_configs/ssdlite.txt",
        out_indices=("6.expand", 8),
        last_channels=1280,
        norm_cfg=norm_cfg,
        init_cfg=dict(type="Remap", seed="checkpoints/seed_mbv2.pth"),
    ),
    neck=dict(
        type="SSDNeck",
        in_channels=map_channels[:2],
        out_channels=map_channels,
        level_strides=(2, 2, 2, 2),
        level_paddings=(1, 1, 1, 1),
        l2_norm_scale=None,
        use_depthwise=True,
        norm_cfg=norm_cfg,
        act_cfg=act_cfg,
        init_cfg=dict(type="Normal", layer="Conv2d", std=0.03),
    ),
    bbox_head=dict(
        type="SSDLiteHead",
        num_classes=80,
        in_channels=map_channels,
        norm_cfg=norm_cfg,
        act_cfg=act_cfg,
        init_cfg=dict(type="Normal", layer="Conv2d", std=0.03),
        # The authors kept the sizes of SSD for images of 300 pixels, though theirs have 320: mmdet
        # makes them 30, 60, 114, 168, 222 and 276 pixels, each up to the next and the last to 330.
        anchor_generator=dict(
            type="SSDAnchorGenerator",
            scale_major=False,
            input_size=300,
            basesize_ratio_range=(0.2, 0.95),
            strides=[16, 32, 64, 107, 160, 320],
            ratios=[[2], [2, 3], [2, 3], [2, 3], [2], [2]],
        ),
        bbox_coder=dict(
            type="DeltaXYWHBBoxCoder",
            target_means=[0.0, 0.0, 0.0, 0.0],
            target_stds=[0.1, 0.1, 0.2, 0.2],
        ),
    ),
    train_cfg=dict(
        assigner=dict(
            type="MaxIoUAssigner",
            pos_iou_thr=0.5,
            neg_iou_thr=0.5,
            min_pos_iou=0.0,
            ignore_iof_thr=-1,
            gt_max_assign_all=False,
        ),
        sampler=dict(type="PseudoSampler"),  # the head picks the hard negatives itself
        smoothl1_beta=1.0,
        allowed_border=-1,
        pos_weight=-1,
        neg_pos_ratio=3,
        debug=False,
    ),
    test_cfg=dict(
        # more than the 1600 anchors x 80 classes of the largest map: only the score sorts out
        nms_pre=200_000,
        min_bbox_size=0,
        score_thr=0.02,
        nms=dict(type="nms", iou_threshold=0.6),
        max_per_img=200,
    ),
)
