"""Image encoders learned by maximising a lower bound of mutual information, as Hugging Face models on timm backbones.

A method is a point in one space, views x encoder x critic x negatives x bound. Importing the package registers its methods with
transformers' Auto classes and its encoders with timm.
"""

from transformers import (
    AutoConfig,
    AutoImageProcessor,
    AutoModel,
    AutoModelForImageClassification,
    AutoModelForPreTraining,
    ViTImageProcessor,
)

from .models import bounds, colors, critics, negatives, priors
from .models.configuration_cmc import CMCConfig
from .models.configuration_dim import DIMConfig
from .models.configuration_infomin import InfoMinConfig
from .models.configuration_instdisc import InstDiscConfig
from .models.configuration_predictive import PredictiveConfig
from .models.errors import UsageError
from .models.modeling_cmc import CMCForImageClassification, CMCForPreTraining, CMCModel
from .models.modeling_dim import DIMForImageClassification, DIMForPreTraining, DIMModel
from .models.modeling_infomax import PreTrainingOutput
from .models.modeling_infomin import InfoMinForImageClassification, InfoMinForPreTraining, InfoMinModel
from .models.modeling_instdisc import InstDiscForImageClassification, InstDiscForPreTraining, InstDiscModel
from .models.modeling_predictive import PredictiveForImageClassification, PredictiveForPreTraining, PredictiveModel

__version__ = "0.1.0"

#: Method name, as recipes spell it -> (configuration, encoder, pretraining model, classifier).
METHODS = {
    "dim": (DIMConfig, DIMModel, DIMForPreTraining, DIMForImageClassification),
    "cmc": (CMCConfig, CMCModel, CMCForPreTraining, CMCForImageClassification),
    "instdisc": (InstDiscConfig, InstDiscModel, InstDiscForPreTraining, InstDiscForImageClassification),
    "infomin": (InfoMinConfig, InfoMinModel, InfoMinForPreTraining, InfoMinForImageClassification),
    "predictive": (PredictiveConfig, PredictiveModel, PredictiveForPreTraining, PredictiveForImageClassification),
}

for _config, _model, _pretraining, _classification in METHODS.values():
    AutoConfig.register(_config.model_type, _config)
    AutoModel.register(_config, _model)
    AutoModelForPreTraining.register(_config, _pretraining)
    AutoModelForImageClassification.register(_config, _classification)
    AutoImageProcessor.register(_config, image_processor_classes={"torchvision": ViTImageProcessor})

__all__ = [
    "METHODS",
    "CMCConfig",
    "CMCForImageClassification",
    "CMCForPreTraining",
    "CMCModel",
    "DIMConfig",
    "DIMForImageClassification",
    "DIMForPreTraining",
    "DIMModel",
    "InfoMinConfig",
    "InfoMinForImageClassification",
    "InfoMinForPreTraining",
    "InfoMinModel",
    "InstDiscConfig",
    "InstDiscForImageClassification",
    "InstDiscForPreTraining",
    "InstDiscModel",
    "PreTrainingOutput",
    "PredictiveConfig",
    "PredictiveForImageClassification",
    "PredictiveForPreTraining",
    "PredictiveModel",
    "UsageError",
    "bounds",
    "colors",
    "critics",
    "negatives",
    "priors",
]
