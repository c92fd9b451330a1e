"""Latency of trained networks, measured in turns: whole, up to the raw outputs, and the backbone.

``python -m benchmarks.network_latency CONFIG --net-configs FILE --out FILE``
``--net-configs`` is a JSON list of texts. One image of the config's ``input_size``, one thread.
"""

import json
import sys
from dataclasses import asdict
from pathlib import Path

import torch

from engine.config import OneLineParser, user_path
from engine.latency import RawOutputs, Timing, about, make_backend, measure
from engine.model import build_model
from engine.progress import StatusLine
from engine.run import run
from engine.work_dir import check_output_file
from models import InputError
from models.files import write_whole

_ROUNDS = 20


def main() -> None:
    parser = OneLineParser(prog="benchmarks.network_latency")
    parser.add_argument("config", help="config of a parameter adaptation")
    parser.add_argument("--net-configs", type=Path, required=True, help="JSON list of texts")
    parser.add_argument("--out", type=Path, required=True, help="file of the result")
    args = parser.parse_args()
    out, config = args.out.absolute(), user_path(args.config)
    check_output_file(out, "--out")
    try:
        texts = json.loads(args.net_configs.read_text())
    except (OSError, ValueError) as error:
        raise InputError(f"--net-configs {args.net_configs}: {error}") from None
    if not isinstance(texts, list) or not texts:
        raise InputError(f"--net-configs {args.net_configs}: expected a list of architectures")
    backend, networks = make_backend(None, threads=1), {}
    for text in texts:
        options = {"model.backbone.net_config": text, "model.backbone.init_cfg": None}
        model, cfg = build_model(config, "cpu", options)
        if "input_size" not in cfg:
            raise InputError(f"config {args.config}: has no input_size")
        image = [torch.randn(1, 3, *cfg.input_size)]
        networks[text, "model"] = RawOutputs(model), image
        networks[text, "backbone"] = model.backbone, image
    line = StatusLine(sys.stdout, "Latency")
    times = measure(backend, networks, _ROUNDS, line=line)
    line.end(f"{len(texts)} networks measured in {_ROUNDS} rounds")
    rows = {
        text: {part: asdict(Timing.of(times[text, part])) for part in ("model", "backbone")}
        for text in texts
    }
    measurement = dict(unit="ms", **about(backend), input_size=list(cfg.input_size))
    content = dict(measurement=measurement, networks=rows)
    write_whole(out, (json.dumps(content, indent=1) + "\n").encode())


if __name__ == "__main__":
    run(main)
