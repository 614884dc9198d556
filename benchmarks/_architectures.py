"""Architectures whose backward pass is autograd's own: `check_gradient` must call every one of them honest."""

from torch import nn

from creditflow.compute.torchvision_import import torchvision

#: Library -> name of the architecture -> (height and width of the images in pixels, arguments of its factory).
ARCHITECTURES: dict[str, dict[str, tuple[int, dict[str, object]]]] = {
    "torchvision": {
        "alexnet": (64, {}),
        "vgg11_bn": (32, {}),
        "resnet18": (32, {}),
        "resnet50": (32, {}),
        "squeezenet1_1": (64, {}),
        "densenet121": (32, {}),
        "googlenet": (64, {"init_weights": True, "aux_logits": False}),
        "mobilenet_v2": (32, {}),
        "mobilenet_v3_small": (32, {}),
        "shufflenet_v2_x0_5": (32, {}),
        "efficientnet_b0": (32, {}),
        "regnet_y_400mf": (32, {}),
        "convnext_tiny": (32, {}),
        "swin_t": (32, {}),
    },
    "timm": {
        "test_vit": (32, {"img_size": 32}),
        "vit_tiny_patch16_224": (32, {"img_size": 32}),
        "cait_xxs24_224": (32, {"img_size": 32}),
        "mixer_s32_224": (32, {"img_size": 32}),
        "resmlp_12_224": (32, {"img_size": 32}),
        "ghostnet_050": (32, {}),
        "repvgg_a0": (32, {}),
        "mobilevitv2_050": (64, {}),
        "edgenext_xx_small": (64, {}),
        "poolformer_s12": (32, {}),
    },
}


def architecture(library: str, name: str) -> nn.Module:
    """Returns an architecture of `ARCHITECTURES` with ten classes, from a random start."""
    _, arguments = ARCHITECTURES[library][name]
    if library == "torchvision":
        model: nn.Module = getattr(torchvision.models, name)(weights=None, num_classes=10, **arguments)
        return model
    import timm

    model = timm.create_model(name, num_classes=10, **arguments)
    nn.init.normal_(model.get_classifier().weight, std=0.02)  # in some models it is zero, and so would be the gradient
    return model
