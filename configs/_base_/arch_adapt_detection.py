# What the searches of both detectors share (paper, section 4.3).

# BN is not synchronized, as in the authors' searches; sync_bn = "torch" would.
# Every process computes the same path: only its gradients are averaged.
model_wrapper_cfg = dict(type="SampledPathParallel")

train_cfg = dict(
    type="ArchAdaptLoop",
    arch_steps=1,
    split=dict(ratio=0.5, seed=0),
    # added to the loss of an architecture step: lambda * log_tau(gamma * cost / unit), with
    # weight lambda, base tau, scale gamma
    cost=dict(type="MAdds", base=10, scale=1),
)
optim_wrapper = dict(
    constructor="ArchAdaptOptimWrapperConstructor",
    arch=dict(
        type="OptimWrapper",
        optimizer=dict(type="Adam", lr=3e-4, betas=(0.5, 0.999), weight_decay=1e-3),
        clip_grad=dict(max_norm=35, norm_type=2),
    ),
)
