rule pretrain:
    """A backbone trained with backpropagation from a random start."""
    input:
        script=layout.script("pretrain"),
        data=prepared(pretrain_view),
    output:
        model=layout.PRETRAIN.file(".safetensors"),
        feedback=layout.PRETRAIN.file(".feedback.safetensors"),
        sidecar=layout.PRETRAIN.file(".json"),
    log:
        layout.PRETRAIN.log,
    benchmark:
        layout.PRETRAIN.benchmark
    conda:
        "../envs/environment.yaml"
    threads: threads_of
    params:
        library=library("pretrain", backbone="{backbone}", rule="bp"),
        classes=classes(pretrain_view),
        inputs=inputs,
        expected_data=expected(pretrain_view),
        view=pretrain_view,
        settings=settings("pretrain", "settings"),
        checkpoint=layout.PRETRAIN.checkpoint,
        device=config["device"],
        threads=threads_of,
    shell:
        "python {input.script:q} --data {input.data:q} {params.classes} --input {params.inputs:q}"
        " --experiment {wildcards.experiment} --dataset-name {params.view} {params.expected_data:q}"
        " --backbone {wildcards.backbone} --settings {params.settings:q}"
        " --seed {wildcards.seed} --device {params.device} --threads {params.threads}"
        " --checkpoint {params.checkpoint:q} --output {output.model:q} > {log:q} 2>&1"


rule fetch_weights:
    """Published weights of a backbone, verified."""
    input:
        script=layout.script("fetch_weights"),
    output:
        weights=layout.FETCH_WEIGHTS.file(".pth"),
    log:
        layout.FETCH_WEIGHTS.log,
    benchmark:
        layout.FETCH_WEIGHTS.benchmark
    localrule: True
    conda:
        "../envs/environment.yaml"
    params:
        library=library("fetch_weights", backbone="{backbone}"),
        search_paths=search_paths,
    shell:
        "python {input.script:q} --backbone {wildcards.backbone} --weights {wildcards.weights} {params.search_paths:q}"
        " --output {output.weights:q} > {log:q} 2>&1"


rule import_weights:
    """A pretrained model made of published weights, or of a file of weights of the user's."""
    input:
        script=layout.script("import_weights"),
        weights=weights_file,
        factory=start_factory,
    output:
        model=layout.IMPORT_WEIGHTS.file(".safetensors"),
        feedback=layout.IMPORT_WEIGHTS.file(".feedback.safetensors"),
        sidecar=layout.IMPORT_WEIGHTS.file(".json"),
    log:
        layout.IMPORT_WEIGHTS.log,
    benchmark:
        layout.IMPORT_WEIGHTS.benchmark
    conda:
        "../envs/environment.yaml"
    params:
        library=library("import_weights", backbone="{backbone}"),
        options=import_options,
        size=lambda wildcards: experiment(wildcards).size(wildcards.backbone),
    shell:
        "python {input.script:q} --backbone {wildcards.backbone} --file {input.weights:q} {params.options:q}"
        " --experiment {wildcards.experiment} --size {params.size}"
        " --output {output.model:q} > {log:q} 2>&1"


rule finetune:
    """All parameters of a pretrained model and a fresh head, or of a random start, trained under one learning rule."""
    input:
        script=layout.script("finetune"),
        data=prepared("dataset"),
        start=start,
        match=matched_record,
    output:
        model=layout.FINETUNE.file(".safetensors"),
        feedback=layout.FINETUNE.file(".feedback.safetensors"),
        sidecar=layout.FINETUNE.file(".json"),
    log:
        layout.FINETUNE.log,
    benchmark:
        layout.FINETUNE.benchmark
    conda:
        "../envs/environment.yaml"
    threads: threads_of
    params:
        library=library("finetune", backbone="{backbone}", rule="{training_rule}"),
        classes=classes("dataset"),
        inputs=inputs,
        expected_data=expected("dataset"),
        expected_start=expected_start,
        settings=finetune_settings,
        start=from_start,
        match=lambda wildcards, input: [f"--match={path}" for path in input.match],
        retrieval=retrieval,
        checkpoint=layout.FINETUNE.checkpoint,
        device=config["device"],
        threads=threads_of,
    shell:
        "python {input.script:q} --data {input.data:q} {params.classes} --input {params.inputs:q} {params.start:q}"
        " --experiment {wildcards.experiment} --dataset-name {wildcards.dataset} {params.expected_data:q}"
        " {params.expected_start:q} {params.retrieval:q} --rule {wildcards.rule} {params.match:q}"
        " --settings {params.settings:q}"
        " --seed {wildcards.seed} --device {params.device} --threads {params.threads}"
        " --checkpoint {params.checkpoint:q} --output {output.model:q} > {log:q} 2>&1"
