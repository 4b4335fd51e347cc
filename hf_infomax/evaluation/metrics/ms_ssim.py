"""`hf_infomax.evaluation.reconstruction.ms_ssim` as a metric of the `evaluate` library."""

import datasets
import evaluate
import torch

from hf_infomax.evaluation.reconstruction import ms_ssim


class MSSSIM(evaluate.Metric):
    """The mean multi-scale structural similarity of images (predictions) with others (references), (3, H, W) in [0, 1] each.

    `compute` returns "ms_ssim".
    """

    def _info(self) -> evaluate.MetricInfo:
        image = datasets.Sequence(datasets.Sequence(datasets.Sequence(datasets.Value("float32"))))
        return evaluate.MetricInfo(
            description="Multi-scale structural similarity, the mean over images.",
            citation="Wang et al. 2003, Multi-scale structural similarity for image quality assessment",
            inputs_description="predictions, references: images (3, H, W) in [0, 1].",
            features=datasets.Features({"predictions": image, "references": image}),
        )

    def _compute(self, predictions: list, references: list) -> dict:
        return {"ms_ssim": ms_ssim(torch.tensor(predictions), torch.tensor(references)).mean().item()}
