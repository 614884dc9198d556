"""VGG-16 (Simonyan and Zisserman, 2015) without batch normalisation, as torchvision defines it.

The features are the inputs of its last layer.
"""

from creditflow.models.torchvision_models import TorchvisionModel

TORCHVISION = TorchvisionModel("vgg16", weights="VGG16_Weights", head="classifier.6", smallest=32)
build = TORCHVISION.build
