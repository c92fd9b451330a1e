import cv2
import numpy as np
import pytest
from mmengine.dataset import Compose
from mmengine.registry import TRANSFORMS

from datasets.images import LoadCheckedImage
from engine.run import one_line
from models import SampleError


@pytest.fixture
def image():
    return np.random.default_rng(0).integers(0, 256, (48, 64, 3), dtype=np.uint8)


@pytest.mark.parametrize("scope", ["mmdet", "mmseg"])
def test_configs_of_both_tasks_find_it(scope):
    """Under the name for which the inferencers of mmdet and mmseg look."""
    with TRANSFORMS.switch_scope_and_registry(scope) as registry:
        assert registry.get("LoadImageFromFile") is LoadCheckedImage


def test_reads_what_the_file_holds(image, tmp_path):
    path = str(tmp_path / "image.png")
    cv2.imwrite(path, image)
    results = LoadCheckedImage()(dict(img_path=path))
    assert (results["img"] == image).all()
    assert results["img_shape"] == results["ori_shape"] == (48, 64)


def test_a_kept_image_is_decoded_once(image, tmp_path):
    path = str(tmp_path / "image.png")
    cv2.imwrite(path, image)
    load = LoadCheckedImage(cache=True)
    first = load(dict(img_path=path, img_id=3))
    first["img"][:] = 0  # what one sample does to its image is not in the next one's
    (tmp_path / "image.png").unlink()
    second = load(dict(img_path=path, img_id=3))
    assert (second.pop("img") == image).all()
    first.pop("img")
    assert second == first
    with pytest.raises(SampleError, match="No such file"):
        LoadCheckedImage()(dict(img_path=path))


@pytest.mark.parametrize("suffix", [".jpg", ".png"])
@pytest.mark.parametrize("part", [0.0, 0.01, 0.5, 0.999])
def test_an_image_that_is_cut_off(image, suffix, part, tmp_path):
    path = tmp_path / f"image{suffix}"
    content = cv2.imencode(suffix, image)[1].tobytes()
    path.write_bytes(content[: int(part * len(content))])
    with pytest.raises(SampleError) as error:
        Compose([LoadCheckedImage()])(dict(img_path=str(path)))
    assert str(error.value) == one_line(error.value)
    assert f"image {path}: cannot be read: damaged, cut off or no image" == str(error.value)


def test_no_image_at_all(tmp_path):
    path = tmp_path / "image.jpg"
    with pytest.raises(SampleError, match="image.jpg: cannot be read: No such file"):
        LoadCheckedImage()(dict(img_path=str(path)))
    path.write_text("<html>404</html>")
    with pytest.raises(SampleError, match="image.jpg: cannot be read: damaged"):
        LoadCheckedImage()(dict(img_path=str(path)))
    assert LoadCheckedImage(ignore_empty=True)(dict(img_path="gone.jpg")) is None
