"""Tables of networks: the paper's next to this project's, and those that were tested.

``python -m engine.tables paper`` counts the params and MAdds of the models that the configs of the
real runs build, without weights, data or a GPU. It exits with 1 where a figure differs from the
paper's in the last digit that the paper prints.
``python -m engine.tables tested NAME=WORK_DIR ...`` shows what tests left in their work dirs.
"""

import json
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path

from prettytable import PrettyTable

from models import InputError, count_madds, count_params

from .model import build_model
from .run import run


@dataclass(frozen=True)
class Row:
    """A network of the paper: its figures as printed, in millions and 10⁹, and its config here.

    ``net_config`` is the file of its architecture, where that is not the config's own.
    """

    network: str
    framework: str
    params: str
    madds: str
    config: str
    net_config: str | None = None


_NONE = "-"

# The paper's results on Cityscapes and COCO (sections 4.2 and 4.3), without the networks of others.
_MOBILENETV2 = "configs/net_configs/mobilenetv2.txt"
_DEEPLABV3 = "fna_seg/deeplabv3_param_adapt_cityscapes"
_DEEPLABV3PLUS_16 = "fna_seg/deeplabv3plus_os16_param_adapt_cityscapes"
_DEEPLABV3PLUS_8 = "fna_seg/deeplabv3plus_os8_param_adapt_cityscapes"
_RETINANET = "fna_det/retinanet_param_adapt_coco"
_SSDLITE = "fna_det/ssdlite_param_adapt_coco"
ROWS = (
    Row("MobileNetV2", "DeepLabv3, OS 16", "2.57", "24.52", _DEEPLABV3, _MOBILENETV2),
    Row("FNA", "DeepLabv3, OS 16", "2.47", "24.17", _DEEPLABV3),
    Row("FNA", "DeepLabv3+, OS 16", "5.71", "210.11", _DEEPLABV3PLUS_16),
    Row("FNA", "DeepLabv3+, OS 8", "5.71", "313.87", _DEEPLABV3PLUS_8),
    Row("MobileNetV2", "RetinaNet", "11.49", "133.05", _RETINANET, _MOBILENETV2),
    Row("FNA", "RetinaNet", "11.73", "133.03", _RETINANET),
    Row("MobileNetV2", "SSDLite", "4.3", "0.8", _SSDLITE, _MOBILENETV2),
    Row("FNA", "SSDLite", "4.6", "0.9", _SSDLITE),
)


def compare(row: Row) -> tuple[dict[str, str], bool]:
    """A row of the table to print, and whether its figures are the paper's to the last digit."""
    options = {"model.backbone.net_config": row.net_config} if row.net_config else None
    model, cfg = build_model(f"configs/{row.config}.py", options=options)
    height, width = cfg.input_size
    cells = {"network": row.network, "framework": row.framework, "input": f"{height}x{width}"}
    equal = True
    for name, paper, counted, unit in (
        ("params", row.params, count_params(model), "M"),
        ("MAdds", row.madds, count_madds(model, cfg.input_size), "B"),
    ):
        here = Decimal(counted).scaleb(-6 if unit == "M" else -9)
        last_digit = Decimal(paper)
        equal &= here.quantize(last_digit) == last_digit
        cells |= {
            name: f"{here:.3f}{unit}",
            f"paper's {name}": f"{paper}{unit}",
            f"{name} off by": f"{here - last_digit:+.3f}{unit}",
        }
    return cells, equal


def paper() -> None:
    """Print the paper's figures next to this project's."""
    table, equal = zip(*(compare(row) for row in ROWS), strict=True)
    print(format_table(table))
    wrong = [
        f"{row.network} {row.framework}" for row, same in zip(ROWS, equal, strict=True) if not same
    ]
    if wrong:
        print(f"Not the paper's figures: {'; '.join(wrong)}", file=sys.stderr)
        sys.exit(1)
    print("\nEvery figure is the paper's, to the last digit that it prints.")


def tested(networks: Sequence[str]) -> None:
    """Print a row for each ``NAME=WORK_DIR``.

    Raises:
        InputError: There is none, or one has another form.
    """
    pairs = [network.partition("=") for network in networks]
    if not pairs or not all(work_dir for _, _, work_dir in pairs):
        raise InputError("expected NAME=WORK_DIR, one or more of them")
    print(format_table([read_row(name, work_dir) for name, _, work_dir in pairs]))


def read_row(name: str, work_dir: str) -> dict[str, str]:
    """One network's row from the ``metrics.json`` that a test left in its work dir.

    Raises:
        InputError: No test has left one there.
    """
    path = Path(work_dir) / "metrics.json"
    try:
        metrics = json.loads(path.read_text())
    except (OSError, ValueError):
        raise InputError(f"{path}: no metrics there; scripts/test.sh writes them") from None
    row = {"network": name, "params": f"{metrics['params'] / 1e6:.2f}M"}
    if "madds" in metrics:
        row["MAdds"] = f"{metrics['madds'] / 1e9:.2f}B"
    if "latency" in metrics:
        row["latency"] = f"{metrics['latency']['model']['median']:.1f} ms"
    for head, value in metrics.get("headline", {}).items():
        if value is None:
            row[head] = _NONE
        else:
            row[head] = f"{value:.3f}" if value <= 1 else f"{value:.1f}"  # a share, or in percent
    return row


def format_table(rows: Sequence[dict[str, str]]) -> str:
    """Rows as aligned text, the first column to the left; what a row lacks is a dash."""
    heads = list(dict.fromkeys(key for row in rows for key in row))
    table = PrettyTable(heads, border=False, align="r", right_padding_width=2)
    table.left_padding_width = 0  # which the constructor would take for none given
    table.align[heads[0]] = "l"
    table.add_rows([[row.get(head, _NONE) for head in heads] for row in rows])
    return "\n".join(line.rstrip() for line in table.get_string().splitlines())


def main() -> None:
    match sys.argv[1:]:
        case ["paper"]:
            paper()
        case ["tested", *networks]:
            tested(networks)
        case _:
            raise InputError("expected paper, or tested NAME=WORK_DIR ...")


if __name__ == "__main__":
    run(main)
