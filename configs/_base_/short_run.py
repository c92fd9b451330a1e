# What short runs share, on the embedded scenes, on blood cells and on CamVid. They make few steps,
# so they take an adaptive optimizer, larger steps of alpha, and a line of the log more often.
adamw = dict(_delete_=True, type="AdamW", lr=1e-3, weight_decay=0.05)
warm_up = dict(type="LinearLR", start_factor=1 / 3, by_epoch=False, begin=0, end=20)
# Of toy searches, which learn alpha in a hundred steps. Candidates keep the seed's expansion: a
# network that takes half of its channels needs longer to recover than toy trainings last.
toy_ops = ["k3_e6", "k5_e6", "k7_e6", "skip"]
arch_adam = dict(lr=0.2, betas=(0.7, 0.95), weight_decay=0)
# Of searches to a budget, in some 300 steps: averaged gradients, and a mixture that becomes nearly
# a single path, which is what will be derived (docs/budget.md).
steady_adam = dict(lr=0.05, betas=(0.9, 0.99), weight_decay=0)
cooling = dict(start=1.0, end=0.2)
budget = dict(rate=0.05, negative=True)
search_optimizers = dict(weights=dict(optimizer=adamw), arch=dict(optimizer=dict(lr=3e-2)))
log_often = dict(interval=10)
# channels-last order is the faster one on CPUs
cpu_hooks = [dict(type="CheckModel"), dict(type="ChannelsLast")]
randomness = dict(seed=0)
