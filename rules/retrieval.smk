rule encode:
    """Hash codes of a model's queries, training images and database."""
    input:
        script="src/encode.py",
        data=prepared("dataset"),
        model=rules.finetune.output.model,
        sidecar=rules.finetune.output.sidecar,
    output:
        codes="results/{experiment}/codes/{dataset}/{backbone}/{rule}/seed{seed}.safetensors",
    log:
        "results/{experiment}/logs/encode/{dataset}/{backbone}/{rule}/seed{seed}.log",
    benchmark:
        "results/{experiment}/benchmarks/encode/{dataset}/{backbone}/{rule}/seed{seed}.tsv"
    conda:
        "../envs/environment.yaml"
    threads: threads_of
    params:
        library=library("encode"),
        classes=classes("dataset"),
        inputs=inputs,
        retrieval=retrieval,
        device=config["device"],
        threads=threads_of,
    shell:
        "python {input.script:q} --model {input.model:q} --data {input.data:q} {params.classes} --input {params.inputs:q}"
        " {params.retrieval:q} --seed {wildcards.seed} --device {params.device} --threads {params.threads}"
        " --output {output.codes:q} > {log:q} 2>&1"


rule retrieve:
    """Mean average precision of a model's queries, and its curves of precision and recall."""
    input:
        script="src/retrieve.py",
        data=prepared("dataset"),
        model=rules.finetune.output.model,
        sidecar=rules.finetune.output.sidecar,
        codes=rules.encode.output.codes,
    output:
        record="results/{experiment}/retrieve/{dataset}/{backbone}/{rule}/seed{seed}.json",
        outcomes="results/{experiment}/retrieve/{dataset}/{backbone}/{rule}/seed{seed}.safetensors",
    log:
        "results/{experiment}/logs/retrieve/{dataset}/{backbone}/{rule}/seed{seed}.log",
    benchmark:
        "results/{experiment}/benchmarks/retrieve/{dataset}/{backbone}/{rule}/seed{seed}.tsv"
    conda:
        "../envs/environment.yaml"
    threads: threads_of
    params:
        library=library("retrieve"),
        classes=classes("dataset"),
        inputs=inputs,
        retrieval=retrieval,
        threads=threads_of,
    shell:
        "python {input.script:q} --model {input.model:q} --data {input.data:q} {params.classes} --input {params.inputs:q}"
        " {params.retrieval:q} --codes {input.codes:q} --experiment {wildcards.experiment} --dataset-name {wildcards.dataset}"
        " --seed {wildcards.seed} --device cpu --threads {params.threads} --record {output.record:q} > {log:q} 2>&1"


rule attack_retrieval:
    """One attack on one model's queries at all epsilons, through one attacker gradient; the outcome of every query is kept."""
    input:
        script="src/attack_retrieval.py",
        data=prepared("dataset"),
        model=rules.finetune.output.model,
        feedback=rules.finetune.output.feedback,
        sidecar=rules.finetune.output.sidecar,
        codes=rules.encode.output.codes,
    output:
        record="results/{experiment}/attack_retrieval/{dataset}/{backbone}/{rule}/{attack}/{gradient}/seed{seed}.json",
        outcomes="results/{experiment}/attack_retrieval/{dataset}/{backbone}/{rule}/{attack}/{gradient}/seed{seed}.safetensors",
    log:
        "results/{experiment}/logs/attack_retrieval/{dataset}/{backbone}/{rule}/{attack}/{gradient}/seed{seed}.log",
    benchmark:
        "results/{experiment}/benchmarks/attack_retrieval/{dataset}/{backbone}/{rule}/{attack}/{gradient}/seed{seed}.tsv"
    conda:
        "../envs/environment.yaml"
    threads: threads_of
    params:
        library=library("attack_retrieval", hash_attack="{attack}"),
        classes=classes("dataset"),
        inputs=inputs,
        retrieval=retrieval,
        epsilons=of_attack("epsilons"),
        images=of_attack("images"),
        batch_size=of_attack("batch_size"),
        settings=settings("attacks", "{attack}", "settings"),
        device=config["device"],
        threads=threads_of,
    shell:
        "python {input.script:q} --model {input.model:q} --data {input.data:q} {params.classes} --input {params.inputs:q}"
        " {params.retrieval:q} --codes {input.codes:q} --experiment {wildcards.experiment} --dataset-name {wildcards.dataset}"
        " --attack {wildcards.attack} --gradient {wildcards.gradient} --epsilons {params.epsilons} --images {params.images}"
        " --batch-size {params.batch_size} --settings {params.settings:q} --seed {wildcards.seed}"
        " --device {params.device} --threads {params.threads} --record {output.record:q} > {log:q} 2>&1"
