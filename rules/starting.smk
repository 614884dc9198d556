"""What a fine-tuning starts from, the weights that are taken over for it, and the files of given models."""

from creditflow.workflow import given_models


def start(wildcards):
    """The model that a fine-tuning starts from, and its sidecar; nothing for a random start."""
    model = outputs.start(experiment(wildcards), RESULTS, wildcards.backbone, int(wildcards.seed))
    return list(map(str, outputs.with_sidecar(model)))


def from_start(wildcards, input):
    """The option that says what a fine-tuning starts from."""
    return [f"--pretrained={path}" for path in input.start[:1]] or [f"--backbone={wildcards.backbone}"]


def start_factory(wildcards):
    """The file of the factory whose network a fine-tuning starts from; nothing for most."""
    path = outputs.start_factory(experiment(wildcards), wildcards.backbone)
    return [] if path is None else [str(path)]


def weights_file(wildcards):
    """The weights of a backbone: a local file, or the published one that is fetched."""
    return str(outputs.weights_file(experiment(wildcards), RESULTS, wildcards.backbone))


def import_options(wildcards):
    """The options that say what weights are taken over: their name, the hash of a local file, and its factory."""
    local = outputs.local_weights(experiment(wildcards), wildcards.backbone) or {}
    pretrain = keys(wildcards)["pretrain"]
    options = [f"--weights={pretrain['weights']}"] if "weights" in pretrain else []
    options += [f"--{key}={local[key]}" for key in ("sha256", "factory") if key in local]
    channels = experiment(wildcards).input(wildcards.backbone).get("channels", 3)
    return options + ([f"--channels={channels}"] if "factory" in local else [])


def factory_file(wildcards):
    """The file of a given model's factory; nothing for one that Python finds by itself."""
    path = given_models.factory_file(keys(wildcards), wildcards.rule)
    return [] if path is None else [str(path)]


def weights_of_model(wildcards):
    """The file of a given model's weights; nothing for one whose factory brings them."""
    path = given_models.weights_file(keys(wildcards), wildcards.rule, int(wildcards.seed))
    return [] if path is None else [str(path)]


def sha256_of_model(wildcards):
    """The option that says which SHA-256 a given model's file must have; nothing where none is stated."""
    digits = given_models.digest(keys(wildcards), wildcards.rule, int(wildcards.seed))
    return [] if digits is None else [f"--sha256={digits}"]
