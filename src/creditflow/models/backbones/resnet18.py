"""ResNet-18 (He et al., 2016), torchvision's definition; features are what its last layer takes."""

from creditflow.models.torchvision_models import TorchvisionModel

TORCHVISION = TorchvisionModel("resnet18", weights="ResNet18_Weights", head="fc", smallest=32)
build = TORCHVISION.build
