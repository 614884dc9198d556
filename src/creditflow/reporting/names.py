"""Display names: how tables and figures write ids. An id without an entry is shown as it is.

The titles of learning rules are not here but in the rules' own files (`reporting/rules.py` reads them).
"""

import re
from collections.abc import Iterable

from creditflow.core.given import GIVEN_MODELS
from creditflow.core.gradients import parse_gradient
from creditflow.reporting.rules import rule_title

_NAMES = {
    "mlp": "multilayer perceptron",
    "mlp_256x5": "5 x 256",
    "frozen_mlp_256x5": "5 x 256, first layer alone",
    "mlp_1024x3": "3 x 1024",
    "mlp_6_6_6_2": "6-6-6-2",
    "relu": "ReLU",
    "relu_jacobian": "ReLU's derivative",
    "student_teacher": "student and teacher",
    "cnn": "small CNN of Table 3",
    "mlp_256x5_all_images": "5 x 256, all images",
    "frozen_mlp_256x5_all_images": "5 x 256, first layer alone, all images",
    "mlp_1024x3_all_images": "3 x 1024, all images",
    "mlp_60x8": "8 x 60",
    "mlp_200": "3 x 200",
    "masked_200": "3 x 200, masked update",
    "masked_jacobian_200": "3 x 200, masked update, gated errors",
    "decay_200": "3 x 200, ten times the decay",
    "no_decay_200": "3 x 200, no decay",
    "half_scale_200": "3 x 200, feedback of SAL's scale",
    "natural": "natural images",
    "adversarially_selected": "natural images, chosen by adversarial accuracy",
    "adversarially_searched": "natural images, rates searched by adversarial accuracy",
    "searched_against_learnt": "natural images, PEPITA's rates searched, BP's of Table 1",
    "pgd_trained": "trained with PGD images",
    "pgd_trained_twice_as_long": "trained with PGD images, twice as long",
    "fgsm_trained": "trained with FGSM images",
    "fgsm_trained_own": "trained with FGSM images, each step's own input",
    "lenet5": "LeNet-5",
    "small_cnn": "small CNN",
    "given_models": "given models",
    "alexnet": "AlexNet",
    "resnet18": "ResNet-18",
    "vgg16": "VGG-16",
    "efficientnet_lite0": "EfficientNet-Lite0",
    "from_factory": "network of a factory",
    "mnist": "MNIST",
    "fashion_mnist": "Fashion-MNIST",
    "svhn": "SVHN",
    "stl10": "STL-10",
    "pathmnist": "PathMNIST",
    "chestmnist": "ChestMNIST",
    "cifar10": "CIFAR-10",
    "cifar100": "CIFAR-100",
    "coco": "MS-COCO",
    "digits": "digits",
    "image_folder": "folder of images",
    "nus_wide": "NUS-WIDE",
    "imagenet": "ImageNet",
    "imagenet100": "ImageNet-100",
    "fashion_0_4": "Fashion-MNIST 0-4",
    "fashion_5_9": "Fashion-MNIST 5-9",
    "fashion_sigma": "Fashion-MNIST 5-9, V of scale sigma",
    "fashion_norm": "Fashion-MNIST 5-9, V of W's norm",
    "epochs_0": "after 0 epochs",
    "epochs_1": "after 1 epoch",
    "epochs_3": "after 3 epochs",
    "epochs_10": "after 10 epochs",
    "epochs_30": "after 30 epochs",
    "linear": "linear network",
    "clean": "none",
    "fgsm": "FGSM",
    "pgd": "PGD",
    "pgd_mse": "PGD on the squared error",
    "pgd_mse_code": "PGD, the PEPITA code's",
    "fgsm_mse": "FGSM, the PEPITA code's",
    "pgd_eot": "PGD, expected gradient",
    "pgd_smoothed": "PGD, smoothed gradient",
    "apgd_ce": "APGD-CE",
    "apgd_dlr": "APGD-DLR",
    "apgd_targeted": "APGD-T",
    "apgd_scaled": "APGD-CE, scaled logits",
    "cascade": "cascade",
    "fab": "FAB",
    "fab_l2": "FAB (L2)",
    "fmn_linf": "FMN (L-inf)",
    "fmn_l2": "FMN (L2)",
    "ddn": "DDN",
    "tpgd": "TPGD",
    "square": "Square",
    "transfer": "transfer",
    "few_pixel": "few-pixel",
    "boundary": "Boundary",
    "hopskipjump": "HopSkipJump",
    "none": "",
    "exact": "exact",
    "own": "own gradient",
    "feedback": "own feedback weights",
    "dataset": "Dataset",
    "backbone": "Backbone",
    "attack": "Attack",
    "gradient": "Attacker's gradient",
    "epsilon": "Epsilon",
    "norm": "Norm",
    "linf": "L-inf",
    "l2": "L2",
    "l0": "L0 (pixels)",
    "accuracy": "accuracy",
    "robust_accuracy": "accuracy",
    "map": "mAP",
    "map_tie_averaged": "mAP, ties averaged",
    "hag": "HAG",
    "sdha": "SDHA",
    "hag_100": "HAG, 100 iterations",
    "sdha_100": "SDHA, 100 iterations",
    "hamming_pgd": "PGD on the code",
    "mainstay_pgd": "PGD on the classes' code",
    "metric": "Metric",
    "sign_symmetry": "the sign-symmetry paper",
    "biotorch": "BioTorch",
    "pepita_paper": "the PEPITA paper",
    "sal_paper": "the SAL paper",
    "target_propagation_paper": "the target-propagation paper",
    "table1": "1",
    "table2": "2",
    "table3": "3",
    "table4": "4",
}

#: Where the images of a transfer attack come from.
_SURROGATES = {"twin": "from its twin", "other_seed": "from BP of another seed"}

#: The same for given models, which have no twin, and among which the reference stands in BP's place.
_GIVEN = {"surrogate:twin": "from another model", "surrogate:other_seed": "from the reference of another seed"}


#: Ids of variants that are made of a word and a number, as regular expressions.
_VARIANTS = {
    r"(identity|tanh|relu)_(\d+)": "{0}, {1} units",
    r"relu_jacobian_(\d+)": "ReLU's derivative, {0} units",
    r"tradeoff_(\d+)": "trade-off {0}",
    r"rates_v(\S+)_others(\S+)": "rates over W's: V {0}, others {1}",
}

#: The matrices of SAL, whose ids list those that learn.
_MATRICES = {"w": "W", "v": "V", "wbar": "Wb", "vbar": "Vb"}


def display(name: str) -> str:
    """Returns how tables and figures write an id."""
    if name in _NAMES:
        return _NAMES[name]
    return _gradient(name) if ":" in name else _variant(name) or rule_title(name)


def _variant(name: str) -> str:
    """Returns how a variant is written whose id is made of words and numbers; nothing for other ids."""
    if name.startswith("only_") and set(name.split("_")[1:]) <= set(_MATRICES):
        return f"only {', '.join(_MATRICES[matrix] for matrix in name.split('_')[1:])} learn"
    for pattern, form in _VARIANTS.items():
        matched = re.fullmatch(pattern, name)
        if matched is not None:
            return form.format(*(part.replace("_", ".") for part in matched.groups()))
    return ""


def condition_title(condition: str, backbone: str = "") -> str:
    """Returns how an attack and its gradient, such as "pgd exact", are written."""
    attack, gradient = condition.split()
    words = display_of(gradient, backbone)
    if attack == "transfer":
        return f"{display(attack)} {words}"
    return ", ".join(part for part in (display(attack), f"{words} gradient" if gradient == "exact" else words) if part)


def display_of(name: str, backbone: str) -> str:
    """Returns how tables and figures write an id that says something of a network."""
    return _GIVEN[name] if backbone == GIVEN_MODELS and name in _GIVEN else display(name)


def rules_title(backbone: str) -> str:
    """Returns what stands in the place of a network's rule: the rule, or the model where models are given."""
    return "Model" if backbone == GIVEN_MODELS else "Rule"


def _gradient(name: str) -> str:
    """Returns how an attacker's gradient with a colon in its name is written."""
    gradient = parse_gradient(name)
    if gradient.kind == "surrogate":
        return _SURROGATES[gradient.surrogate]
    draw = f", draw {gradient.draw}" if gradient.draw > 1 else ""
    return f"fresh {rule_title(gradient.rule)} weights{draw}"


def span(values: Iterable[float]) -> str:
    """Returns the least and the greatest of some whole numbers in words."""
    numbers = [int(value) for value in values]
    low, high = min(numbers), max(numbers)
    return f"{low}" if low == high else f"{low} to {high}"
