import torch

from hf_infomax.evaluation import Row, Subject


def test_a_subject_names_its_layers_classes_and_rows():
    targets = {"size": torch.rand(4, 1), "label": torch.arange(4), "colour": torch.arange(4)}
    x = {"conv": torch.rand(4, 2), "y": torch.rand(4, 3)}
    subject = Subject("DIM", None, x, x, targets, targets, "digits", "test", options={"mlp": {"epochs": 3}})
    assert (subject.vector, subject.classes) == ("y", "label")
    assert (subject.given("mlp"), subject.given("svm")) == ({"epochs": 3}, {})
    row = subject.row("conv", "knn", "label", "accuracy", 0.5, seeds=(7,))
    assert row == Row("DIM", "conv", "knn", "label", "digits", "test", "accuracy", 0.5, seeds=(7,))
