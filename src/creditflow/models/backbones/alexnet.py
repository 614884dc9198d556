"""AlexNet (Krizhevsky, 2014), torchvision's definition; features are what its last layer takes."""

from creditflow.models.torchvision_models import TorchvisionModel

TORCHVISION = TorchvisionModel("alexnet", weights="AlexNet_Weights", head="classifier.6", smallest=63)
build = TORCHVISION.build
