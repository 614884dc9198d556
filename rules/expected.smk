"""What a job expects of its inputs: the options by which a stage refuses a file that is not what its place says."""


def expected(view):
    """The option that says which dataset a job reads; `view` is as in `view_keys`."""
    return once_per_view(view)(lambda wildcards: ["--expect-data", source_id(view_keys(view, wildcards))])


@once_per(*MODEL)
def expected_model(wildcards):
    """The option that says what the measured model is."""
    return ["--expect-model", compact(outputs.identity(experiment(wildcards), model_of(wildcards)))]


def expected_start(wildcards, input):
    """The option that says what the model is that a fine-tuning starts from; nothing for a random start."""
    identity = outputs.start_identity(experiment(wildcards), wildcards.backbone, int(wildcards.seed))
    return ["--expect-pretrained", compact(identity)] if input.start else []


def expected_population(wildcards):
    """The option that says what the population is that a member is chosen from."""
    names = outputs.named(experiment(wildcards), model_of(wildcards))
    return ["--expect-population", compact({"stage": "train_population"} | names)]
