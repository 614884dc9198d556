rule pretrain:
    """A backbone trained with backpropagation from a random start."""
    input:
        script="src/pretrain.py",
        data=prepared(pretrain_view),
    output:
        model="results/{experiment}/pretrain/{backbone}/seed{seed}.safetensors",
        feedback="results/{experiment}/pretrain/{backbone}/seed{seed}.feedback.safetensors",
        sidecar="results/{experiment}/pretrain/{backbone}/seed{seed}.json",
    log:
        "results/{experiment}/logs/pretrain/{backbone}/seed{seed}.log",
    benchmark:
        "results/{experiment}/benchmarks/pretrain/{backbone}/seed{seed}.tsv"
    conda:
        "../envs/environment.yaml"
    threads: threads_of
    params:
        library=library("pretrain", backbone="{backbone}", rule="bp"),
        classes=classes(pretrain_view),
        inputs=inputs,
        settings=settings("pretrain", "settings"),
        checkpoint="results/{experiment}/checkpoints/pretrain/{backbone}/seed{seed}.checkpoint",
        device=config["device"],
        threads=threads_of,
    shell:
        "python {input.script:q} --data {input.data:q} {params.classes} --input {params.inputs:q} --backbone {wildcards.backbone}"
        " --settings {params.settings:q} --seed {wildcards.seed} --device {params.device} --threads {params.threads}"
        " --checkpoint {params.checkpoint:q} --output {output.model:q} > {log:q} 2>&1"


rule fetch_weights:
    """Published weights of a backbone, verified."""
    input:
        script="src/fetch_weights.py",
    output:
        weights="results/data/weights/{backbone}/{weights}.pth",
    log:
        "results/data/logs/fetch_weights/{backbone}/{weights}.log",
    benchmark:
        "results/data/benchmarks/fetch_weights/{backbone}/{weights}.tsv"
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
    """A pretrained model made of published weights."""
    input:
        script="src/import_weights.py",
        weights=weights_file,
    output:
        model="results/{experiment}/pretrain/{backbone}/imported.safetensors",
        feedback="results/{experiment}/pretrain/{backbone}/imported.feedback.safetensors",
        sidecar="results/{experiment}/pretrain/{backbone}/imported.json",
    log:
        "results/{experiment}/logs/import_weights/{backbone}.log",
    benchmark:
        "results/{experiment}/benchmarks/import_weights/{backbone}.tsv"
    conda:
        "../envs/environment.yaml"
    params:
        library=library("import_weights", backbone="{backbone}"),
        sha256=weights_sha256,
        weights=lambda wildcards: keys(wildcards)["pretrain"]["weights"],
        size=lambda wildcards: EXPERIMENTS[wildcards.experiment].input(wildcards.backbone).get("size", 224),
    shell:
        "python {input.script:q} --backbone {wildcards.backbone} --file {input.weights:q} {params.sha256:q}"
        " --weights {params.weights} --size {params.size} --output {output.model:q} > {log:q} 2>&1"


rule finetune:
    """All parameters of a pretrained model and a fresh head, or of a random start, trained under one learning rule."""
    input:
        script="src/finetune.py",
        data=prepared("dataset"),
        start=start,
    output:
        model="results/{experiment}/finetune/{dataset}/{backbone}/{rule}/seed{seed}.safetensors",
        feedback="results/{experiment}/finetune/{dataset}/{backbone}/{rule}/seed{seed}.feedback.safetensors",
        sidecar="results/{experiment}/finetune/{dataset}/{backbone}/{rule}/seed{seed}.json",
    log:
        "results/{experiment}/logs/finetune/{dataset}/{backbone}/{rule}/seed{seed}.log",
    benchmark:
        "results/{experiment}/benchmarks/finetune/{dataset}/{backbone}/{rule}/seed{seed}.tsv"
    conda:
        "../envs/environment.yaml"
    threads: threads_of
    params:
        library=library("finetune", backbone="{backbone}", rule="{rule}"),
        classes=classes("dataset"),
        inputs=inputs,
        settings=finetune_settings,
        start=from_start,
        retrieval=retrieval,
        checkpoint="results/{experiment}/checkpoints/finetune/{dataset}/{backbone}/{rule}/seed{seed}.checkpoint",
        device=config["device"],
        threads=threads_of,
    shell:
        "python {input.script:q} --data {input.data:q} {params.classes} --input {params.inputs:q} {params.start:q}"
        " {params.retrieval:q} --rule {wildcards.rule} --settings {params.settings:q} --seed {wildcards.seed} --device {params.device}"
        " --threads {params.threads} --checkpoint {params.checkpoint:q} --output {output.model:q} > {log:q} 2>&1"
