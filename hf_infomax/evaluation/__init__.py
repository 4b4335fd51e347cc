"""Evaluation of frozen representations: features, neighbours, probes; and the tables, figures and page that show them."""

from .comparison import plot_comparison
from .features import extract_features, pixel_features
from .figures import plot_heatmap, plot_knn, plot_training
from .information import augmentation_information, fit_temperature, paired_information, view_information
from .knn import knn_accuracy, knn_predict, nearest_neighbours
from .label_free import (
    HEALTH,
    LABEL_FREE,
    Health,
    alignment,
    dead_units,
    rankme,
    representation_health,
    uniformity,
)
from .pictures import plot_loss_maps, plot_neighbours
from .probes import ProbeResult, linear_probe, linear_regression_probe, linear_regression_probes
from .report import Code, Picture, ResultsTable, Section, Text, write_report
from .suite import PROBES, LabelledImages, evaluate_features, evaluate_models, labelled_images, target_names
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
    "HEALTH",
    "LABEL_FREE",
    "PROBES",
    "Code",
    "Health",
    "LabelledImages",
    "Picture",
    "ProbeResult",
    "ResultsTable",
    "ReverseU",
    "Row",
    "SavedResults",
    "Section",
    "SweepPoint",
    "Table",
    "Text",
    "alignment",
    "augmentation_information",
    "dead_units",
    "evaluate_features",
    "evaluate_models",
    "extract_features",
    "fit_reverse_u",
    "fit_temperature",
    "format_markdown",
    "format_table",
    "knn_accuracy",
    "knn_predict",
    "labelled_images",
    "linear_probe",
    "linear_regression_probe",
    "linear_regression_probes",
    "nearest_neighbours",
    "paired_information",
    "pixel_features",
    "plot_comparison",
    "plot_heatmap",
    "plot_knn",
    "plot_loss_maps",
    "plot_neighbours",
    "plot_sweet_spot",
    "plot_tradeoff",
    "plot_training",
    "rankme",
    "read_results",
    "representation_health",
    "summarise",
    "tabulate",
    "target_names",
    "uniformity",
    "view_information",
    "write_report",
    "write_results",
]
