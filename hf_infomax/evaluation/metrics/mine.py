"""`hf_infomax.evaluation.mine` as a metric of the `evaluate` library."""

import datasets
import evaluate
import torch

from hf_infomax.evaluation.mine import mine


class MINE(evaluate.Metric):
    """The mutual information of representations (predictions) and vectors of what they represent (references), in nats.

    `compute` takes the options of `hf_infomax.evaluation.mine.mine`, and returns "mine", the mean over runs, "std" and "values".
    """

    def _info(self) -> evaluate.MetricInfo:
        vector = datasets.Sequence(datasets.Value("float32"))
        return evaluate.MetricInfo(
            description="Mutual information neural estimate of I(references; predictions), in nats.",
            citation="Belghazi et al. 2018, Mutual Information Neural Estimation",
            inputs_description="predictions: representations. references: vectors of what they represent.",
            features=datasets.Features({"predictions": vector, "references": vector}),
        )

    def _compute(self, predictions: list, references: list, progress: bool = False, **options: object) -> dict:
        estimate = mine(torch.tensor(references), torch.tensor(predictions), progress=progress, **options)
        return {"mine": estimate.mean, "std": estimate.std, "values": list(estimate.values)}
