"""A small table of tested networks: ``python -m engine.summary NAME=WORK_DIR ...``."""

import json
import sys
from pathlib import Path

from models import InputError

# metric in metrics.json → its heading and form; mIoU is in percent
METRICS = {
    "coco/bbox_mAP": ("AP", ".3f"),
    "coco/bbox_mAP_50": ("AP50", ".3f"),
    "mIoU": ("mIoU", ".1f"),
}


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
    row |= {
        head: f"{metrics[key]:{form}}" for key, (head, form) in METRICS.items() if key in metrics
    }
    return row


def format_table(rows: list[dict[str, str]]) -> str:
    """Rows as aligned text, the first column to the left; what a row lacks is a dash."""
    heads = list(dict.fromkeys(key for row in rows for key in row))
    rows = [{key: row.get(key, "-") for key in heads} for row in rows]
    widths = {key: max(len(key), *(len(row[key]) for row in rows)) for key in heads}
    lines = []
    for row in [{key: key for key in heads}, *rows]:
        first, *others = (
            f"{row[key]:{'<' if not i else '>'}{widths[key]}}" for i, key in enumerate(widths)
        )
        lines.append("  ".join([first, *others]))
    return "\n".join(lines)


def main() -> None:
    pairs = [argument.partition("=") for argument in sys.argv[1:]]
    if not pairs or not all(work_dir for _, _, work_dir in pairs):
        raise InputError("expected NAME=WORK_DIR, one or more of them")
    print(format_table([read_row(name, work_dir) for name, _, work_dir in pairs]))


if __name__ == "__main__":
    try:
        main()
    except InputError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)
