"""What --out keeps of a prediction."""

import torch

from engine.predictions import DumpPredictions


def kept(tmp_path, **sample: object) -> dict:
    dump = DumpPredictions(out_file_path=str(tmp_path / "out.pkl"))
    dump.process({}, [sample])
    return dump.results[0]


def test_maps_of_classes_are_kept_in_bytes(tmp_path):
    classes = torch.tensor([[[0, 18], [255, 7]]])
    sample = kept(
        tmp_path,
        img_path="a.png",
        pred_sem_seg=dict(data=classes),
        seg_logits=dict(data=torch.zeros(19, 2, 2)),
        gt_sem_seg=dict(data=classes),
    )
    assert sample.keys() == {"img_path", "pred_sem_seg"}
    assert sample["pred_sem_seg"]["data"].dtype == torch.uint8
    assert torch.equal(sample["pred_sem_seg"]["data"].long(), classes)


def test_classes_beyond_a_byte_stay_as_they_are(tmp_path):
    classes = torch.tensor([[[0, 256]]])
    sample = kept(tmp_path, pred_sem_seg=dict(data=classes))
    assert torch.equal(sample["pred_sem_seg"]["data"], classes)


def test_boxes_stay_as_they_are(tmp_path):
    boxes = dict(bboxes=torch.tensor([[0.5, 1, 2, 3]]), labels=torch.tensor([4]))
    sample = kept(tmp_path, img_id=3, pred_instances=boxes, gt_instances=boxes)
    assert sample.keys() == {"img_id", "pred_instances"}
    assert torch.equal(sample["pred_instances"]["bboxes"], boxes["bboxes"])
