"""`hf_infomax.evaluation.knn_accuracy` as a metric of the `evaluate` library."""

import datasets
import evaluate
import torch

from hf_infomax.evaluation.knn import knn_accuracy


class KNN(evaluate.Metric):
    """The accuracy of nearest neighbours: features (predictions), their labels (references), and a bank of labelled features.

    `compute` takes `bank` (N, F) and `labels` (N,), and the options of `hf_infomax.evaluation.knn_accuracy`; it returns "accuracy".
    """

    def _info(self) -> evaluate.MetricInfo:
        vector = datasets.Sequence(datasets.Value("float32"))
        return evaluate.MetricInfo(
            description="Accuracy of the weighted vote of nearest neighbours in a bank of labelled features.",
            citation="Wu et al. 2018, Unsupervised Feature Learning via Non-Parametric Instance Discrimination",
            inputs_description="predictions: features. references: labels. bank, labels: those that vote.",
            features=datasets.Features({"predictions": vector, "references": datasets.Value("int64")}),
        )

    def _compute(self, predictions: list, references: list, bank: list, labels: list, **options: object) -> dict:
        sets = torch.tensor(predictions), torch.tensor(references), torch.as_tensor(bank), torch.as_tensor(labels)
        return {"accuracy": knn_accuracy(*sets, **options)}
