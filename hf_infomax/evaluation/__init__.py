"""Evaluation of representations: features, probes, estimators, measures; and the tables, figures and page that show them."""

from . import metrics
from .ablation import AblationPoint, plot_ablation, read_ablation
from .comparison import plot_comparison
from .divergence import Estimate
from .encoders import load_encoder, random_twin
from .feature_cache import cached_features
from .features import extract_features, pixel_features
from .few_labels import FewLabelsPoint, few_labels_curve
from .figures import plot_heatmap, plot_knn, plot_training
from .finetuning import finetune
from .information import augmentation_information, fit_temperature, paired_information, view_information
from .knn import knn_accuracy, knn_predict, knn_probe, nearest_neighbours
from .label_curves import plot_label_curves
from .label_free import (
    HEALTH,
    LABEL_FREE,
    Health,
    alignment,
    collapse_warnings,
    dead_units,
    rankme,
    representation_health,
    uniformity,
)
from .labelled import LabelledImages, labelled_images, target_names
from .layer_curves import plot_layers
from .measures import MEASURES
from .mine import mine
from .mlp import mlp_probe
from .ndm import neural_dependency
from .pictures import plot_loss_maps, plot_neighbours
from .probes import ProbeResult, linear_probe, linear_regression_probe, linear_regression_probes
from .projection import plot_projection, project
from .reconstruction import Reconstruction, ms_ssim, reconstruction
from .report import Code, Picture, ResultsTable, Section, Text, write_report
from .schedules import scheduled_linear_probe
from .subject import Subject
from .suite import DEFAULT_PROBES, PROBES, evaluate_features, evaluate_models
from .svm import svm_probe
from .sweetspot import ReverseU, SweepPoint, fit_reverse_u, plot_sweet_spot
from .table import (
    Row,
    SavedResults,
    Table,
    format_markdown,
    format_table,
    read_results,
    summarise,
    tabulate,
    write_results,
)
from .tradeoff import plot_tradeoff

__all__ = [
    "DEFAULT_PROBES",
    "HEALTH",
    "LABEL_FREE",
    "MEASURES",
    "PROBES",
    "AblationPoint",
    "Code",
    "Estimate",
    "FewLabelsPoint",
    "Health",
    "LabelledImages",
    "Picture",
    "ProbeResult",
    "Reconstruction",
    "ResultsTable",
    "ReverseU",
    "Row",
    "SavedResults",
    "Section",
    "Subject",
    "SweepPoint",
    "Table",
    "Text",
    "alignment",
    "augmentation_information",
    "cached_features",
    "collapse_warnings",
    "dead_units",
    "evaluate_features",
    "evaluate_models",
    "extract_features",
    "few_labels_curve",
    "finetune",
    "fit_reverse_u",
    "fit_temperature",
    "format_markdown",
    "format_table",
    "knn_accuracy",
    "knn_predict",
    "knn_probe",
    "labelled_images",
    "linear_probe",
    "linear_regression_probe",
    "linear_regression_probes",
    "load_encoder",
    "metrics",
    "mine",
    "mlp_probe",
    "ms_ssim",
    "nearest_neighbours",
    "neural_dependency",
    "paired_information",
    "pixel_features",
    "plot_ablation",
    "plot_comparison",
    "plot_heatmap",
    "plot_knn",
    "plot_label_curves",
    "plot_layers",
    "plot_loss_maps",
    "plot_neighbours",
    "plot_projection",
    "plot_sweet_spot",
    "plot_tradeoff",
    "plot_training",
    "project",
    "random_twin",
    "rankme",
    "read_ablation",
    "read_results",
    "reconstruction",
    "representation_health",
    "scheduled_linear_probe",
    "summarise",
    "svm_probe",
    "tabulate",
    "target_names",
    "uniformity",
    "view_information",
    "write_report",
    "write_results",
]
