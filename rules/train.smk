rule pretrain:
    """A backbone trained with backpropagation from a random start."""
    input:
        script="src/pretrain.py",
        library=library(
            "training",
            "runtime.py",
            "learning",
            "learning/rules/bp.py",
            "models",
            "models/backbones/{backbone}.py",
            "data/prepared.py",
        ),
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
        classes=classes(pretrain_view),
        settings=settings("pretrain", "settings"),
        checkpoint="results/{experiment}/checkpoints/pretrain/{backbone}/seed{seed}.checkpoint",
        device=config["device"],
        threads=threads_of,
    shell:
        "python {input.script:q} --data {input.data:q} {params.classes} --backbone {wildcards.backbone}"
        " --settings {params.settings:q} --seed {wildcards.seed} --device {params.device} --threads {params.threads}"
        " --checkpoint {params.checkpoint:q} --output {output.model:q} > {log:q} 2>&1"


rule finetune:
    """All parameters of a pretrained model and a fresh head, trained under one learning rule."""
    input:
        script="src/finetune.py",
        library=library(
            "training",
            "runtime.py",
            "learning",
            "learning/rules/{rule}.py",
            "models",
            "models/backbones/{backbone}.py",
            "data/prepared.py",
        ),
        data=prepared("dataset"),
        pretrained=rules.pretrain.output.model,
        sidecar=rules.pretrain.output.sidecar,
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
        classes=classes("dataset"),
        settings=settings("finetune", "settings"),
        checkpoint="results/{experiment}/checkpoints/finetune/{dataset}/{backbone}/{rule}/seed{seed}.checkpoint",
        device=config["device"],
        threads=threads_of,
    shell:
        "python {input.script:q} --data {input.data:q} {params.classes} --pretrained {input.pretrained:q}"
        " --rule {wildcards.rule} --settings {params.settings:q} --seed {wildcards.seed} --device {params.device}"
        " --threads {params.threads} --checkpoint {params.checkpoint:q} --output {output.model:q} > {log:q} 2>&1"
