"""README and the pages of docs/: what they name exists, and the code that they show runs."""

import importlib.util
import re
import sys
import types

import pytest
from mmengine.config import Config
from mmengine.registry import MODELS

from models import COSTS, CostTerm, FNABackbone, count_params, price_list
from tests.conftest import REPO

PAGES = ["README.md", *(f"docs/{path.name}" for path in sorted((REPO / "docs").glob("*.md")))]
FOLDERS = "benchmarks|configs|datasets|docs|engine|fna_det|fna_seg|models|scripts|search|tests"
# what pages tell their reader to write, and docs/extending.md's word for a name of the reader's own
TO_WRITE = {
    "configs/_base_/data/animals.py",
    "configs/_base_/data/rooms.py",
    "configs/fna_det/retinanet_arch_adapt_coco_se.py",
    "models/params_cost.py",
}
ANY_NAME = "FAMILY"


def text(page):
    return (REPO / page).read_text()


def blocks(page, language):
    """The code blocks of a page."""
    return re.findall(rf"^```{language}\n(.*?)^```$", text(page), re.MULTILINE | re.DOTALL)


def anchor(heading):
    """GitHub's name of a heading."""
    return re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-")


@pytest.mark.parametrize("page", PAGES)
def test_links(page):
    links = re.findall(r"\]\(([^)]+)\)", text(page))
    assert links
    for link in links:
        if link.startswith("https://"):
            continue
        path, _, section = link.partition("#")
        target = (REPO / page).parent / path if path else REPO / page
        assert target.exists(), link
        if section:
            headings = re.findall(r"^#+ (.*)$", target.read_text(), re.MULTILINE)
            assert section in map(anchor, headings), link


@pytest.mark.parametrize("page", PAGES)
def test_files_that_it_names(page):
    """Paths from the repository's root, configs by their name alone, and modules to run."""
    paths = set(
        re.findall(rf"(?<![\w/.])(?:{FOLDERS})/[\w/.-]+\.(?:md|png|py|sh|txt)\b", text(page))
    )
    paths = {path for path in paths - TO_WRITE if ANY_NAME not in path}
    assert not [path for path in paths if not (REPO / path).is_file()]
    names = set(re.findall(r"(?<![\w/])\w+_(?:arch|param)_adapt_\w+\.py", text(page)))
    configs = {path.name for path in (REPO / "configs").rglob("*.py")}
    assert names <= configs
    default_work_dirs = re.findall(r"work_dirs/(\w+_(?:arch|param)_adapt_\w+)/", text(page))
    assert {f"{name.removesuffix('_random')}.py" for name in default_work_dirs} <= configs
    for module in re.findall(r"python -m ((?:engine|benchmarks|datasets)\.\w+)", text(page)):
        assert importlib.util.find_spec(module), module


def test_list_of_configs_is_complete():
    listed = set(re.findall(r"`(?:data/)?(\w+\.py)`", text("docs/configs.md")))
    there = {path.name for path in (REPO / "configs").rglob("*.py")}
    assert listed == there


@pytest.mark.parametrize(
    "page, configs",
    [
        (
            "docs/new_dataset_detection.md",
            ["_base_/data/bccd", "fna_det/retinanet_param_adapt_bccd"],
        ),
        (
            "docs/new_dataset_segmentation.md",
            [
                "_base_/data/camvid",
                "_base_/head_paramwise",  # in its comment
                "fna_seg/deeplabv3_arch_adapt_camvid",
                "fna_seg/deeplabv3_param_adapt_camvid",
            ],
        ),
    ],
)
def test_excerpts_of_configs(page, configs):
    """They are the configs' own lines."""
    lines = {
        line.strip("# ") for name in configs for line in text(f"configs/{name}.py").splitlines()
    }
    excerpts = [block for block in blocks(page, "python") if not block.startswith('"""')]
    shown = {line.strip("# ") for block in excerpts for line in block.splitlines()}
    missing = {line for line in shown - lines if "..." not in line}
    # the one example that is no excerpt: a base that takes the option of segmentation's head
    assert all("head_paramwise" in line for line in missing)


def test_example_of_the_readme(tmp_path, monkeypatch, seed_file, capsys):
    (tmp_path / "checkpoints").mkdir()
    (tmp_path / "checkpoints/seed_mbv2.pth").symlink_to(seed_file)
    (tmp_path / "configs").symlink_to(REPO / "configs")
    monkeypatch.chdir(tmp_path)
    (example,) = blocks("README.md", "python")
    exec(example, {})
    shown = text("README.md").split(example)[1].split("```\n")[2]
    assert capsys.readouterr().out == shown


def test_example_of_the_seed(tmp_path, monkeypatch, seed_file):
    (tmp_path / "checkpoints").mkdir()
    (tmp_path / "checkpoints/seed_mbv2.pth").symlink_to(seed_file)
    (tmp_path / "configs").symlink_to(REPO / "configs")
    monkeypatch.chdir(tmp_path)
    (example,) = blocks("docs/seed.md", "python")
    exec(example, variables := {})
    assert isinstance(variables["net"], FNABackbone)


def test_op_of_extending():
    """The class is the one of models/squeeze_excite.py, without its docstring."""
    shown = blocks("docs/extending.md", "python")[0]
    source = re.sub(r'\n    """.*?"""\n\n', "\n", text("models/squeeze_excite.py"), flags=re.DOTALL)
    assert shown in source


def test_examples_of_extending(tmp_path, monkeypatch):
    """Configs that name an op and a cost of one's own, and what such a search pays for."""
    _, search, adapt, cost, with_cost = blocks("docs/extending.md", "python")
    module = types.ModuleType("models.params_cost")
    monkeypatch.setitem(sys.modules, module.__name__, module)
    exec(cost, vars(module))
    try:
        cfgs = {}
        for name, content in dict(search=search, adapt=adapt, with_cost=with_cost).items():
            path = tmp_path / f"{name}.py"
            path.write_text(content.replace('_base_ = "', f'_base_ = "{REPO}/configs/fna_det/'))
            cfgs[name] = Config.fromfile(path)
            assert {"models", "search", "engine"} < set(cfgs[name].custom_imports.imports)
        assert "models.squeeze_excite" in cfgs["adapt"].custom_imports.imports

        monkeypatch.chdir(REPO)
        supernet = MODELS.build(cfgs["search"].model.backbone | dict(init_cfg=None))
        assert "k5_e6_se" in supernet.mixed_layers[0].candidates
        term = CostTerm.from_cfg(cfgs["with_cost"].train_cfg.cost)
        assert str(term).endswith("cost in 1e+06 params at 800x1088")
        prices = price_list(supernet, term.cost, (32, 32))
    finally:
        COSTS.module_dict.pop("Params", None)
    for layer, price in zip(supernet.mixed_layers, prices, strict=True):
        assert price[: len(layer.ops)].tolist() == [count_params(op) for op in layer.ops.values()]
