"""AlexNet (Krizhevsky, 2014), as torchvision defines it. The features are the inputs of its last layer."""

from creditflow.models.torchvision_models import TorchvisionModel

TORCHVISION = TorchvisionModel("alexnet", weights="AlexNet_Weights", head="classifier.6", smallest=63)
build = TORCHVISION.build
