"""A hook for the test of two processes: each leaves its weights, and what it saw, in a file."""

import torch
from mmengine.hooks import Hook
from mmengine.registry import HOOKS


@HOOKS.register_module()
class SaveRanks(Hook):
    def before_train(self, runner):
        self.seen = []
        if runner.rank == 0:
            torch.save(runner.model.module.state_dict(), f"{runner.work_dir}/initial.pth")

    def after_train_iter(self, runner, batch_idx, data_batch=None, outputs=None):
        self.seen += [sample.img_path for sample in data_batch["data_samples"]]

    def after_train(self, runner):
        # BN's running statistics too: synchronized BN saw the joint batch
        content = dict(state_dict=runner.model.module.state_dict(), seen=self.seen)
        torch.save(content, f"{runner.work_dir}/rank_{runner.rank}.pth")
