"""ResNet-18 (He et al., 2016), as torchvision defines it. The features are the inputs of its last layer."""

from creditflow.models.torchvision_models import TorchvisionModel

TORCHVISION = TorchvisionModel("resnet18", weights="ResNet18_Weights", head="fc", smallest=32)
build = TORCHVISION.build
