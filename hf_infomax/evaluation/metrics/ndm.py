"""`hf_infomax.evaluation.ndm` as a metric of the `evaluate` library."""

import datasets
import evaluate
import torch

from hf_infomax.evaluation.ndm import neural_dependency


class NDM(evaluate.Metric):
    """The neural dependency measure of representations (predictions), in nats; there are no references.

    `compute` takes the options of `hf_infomax.evaluation.ndm.neural_dependency`, and returns "ndm", the mean over runs, "std"
    and "values".
    """

    def _info(self) -> evaluate.MetricInfo:
        return evaluate.MetricInfo(
            description="Neural dependency measure of the factors of a representation, in nats.",
            citation="Hjelm et al. 2019, Learning deep representations by mutual information estimation and maximization",
            inputs_description="predictions: representations.",
            features=datasets.Features({"predictions": datasets.Sequence(datasets.Value("float32"))}),
        )

    def _compute(self, predictions: list, progress: bool = False, **options: object) -> dict:
        estimate = neural_dependency(torch.tensor(predictions), progress=progress, **options)
        return {"ndm": estimate.mean, "std": estimate.std, "values": list(estimate.values)}
