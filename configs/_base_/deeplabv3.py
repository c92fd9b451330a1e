# DeepLabv3 on an FNA backbone (paper, section 4.2).
model = dict(
    type="SlidingEncoderDecoder",
    # An image smaller than the training's crop, of this size, is padded: with the mean, which is 0
    # once it is subtracted, and with labels that are ignored.
    data_preprocessor=dict(
        type="SegDataPreProcessor",
        mean=[123.675, 116.28, 103.53],
        std=[58.395, 57.12, 57.375],
        bgr_to_rgb=True,
        size=(769, 769),
        pad_val=0,
        seg_pad_val=255,
    ),
    backbone=dict(
        type="FNABackbone",
        net_config="configs/net_configs/deeplabv3.txt",
        out_indices=(7,),
        output_stride=16,
        init_cfg=dict(type="Remap", seed="checkpoints/seed_mbv2.pth"),
    ),
    decode_head=dict(
        type="SeparableASPPHead",
        in_channels=320,
        channels=256,
        dilations=(1, 6, 12, 18),  # 3x3 branches at output stride 16; the first is 1x1
        num_classes=19,
        dropout_ratio=0.1,
        norm_cfg=dict(type="BN"),
        align_corners=True,
        loss_decode=dict(type="CrossEntropyLoss", avg_non_ignore=True),
    ),
    test_cfg=dict(
        mode="slide",
        crop_size=(769, 769),
        stride=(513, 513),  # 2/3 of the window
        windows_per_batch=8,  # those of one Cityscapes image
    ),
)
