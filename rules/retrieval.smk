rule encode:
    """Hash codes of a model's queries, training images and database."""
    input:
        script=layout.script("encode"),
        data=prepared("dataset"),
        model=rules.finetune.output.model,
        sidecar=rules.finetune.output.sidecar,
    output:
        codes=layout.ENCODE.file(".safetensors"),
    log:
        layout.ENCODE.log,
    benchmark:
        layout.ENCODE.benchmark
    conda:
        "../envs/environment.yaml"
    threads: threads_of
    params:
        library=library("encode"),
        classes=classes("dataset"),
        inputs=inputs,
        expected_data=expected("dataset"),
        expected_model=expected_model,
        retrieval=retrieval,
        device=config["device"],
        threads=threads_of,
    shell:
        "python {input.script:q} --model {input.model:q} --data {input.data:q} {params.classes}"
        " {params.expected_data:q} {params.expected_model:q}"
        " --input {params.inputs:q} {params.retrieval:q} --experiment {wildcards.experiment}"
        " --dataset-name {wildcards.dataset} --seed {wildcards.seed} --device {params.device}"
        " --threads {params.threads} --output {output.codes:q} > {log:q} 2>&1"


rule retrieve:
    """Mean average precision of a model's queries, and its curves of precision and recall."""
    input:
        script=layout.script("retrieve"),
        data=prepared("dataset"),
        model=rules.finetune.output.model,
        sidecar=rules.finetune.output.sidecar,
        codes=rules.encode.output.codes,
    output:
        record=layout.RETRIEVE.file(".json"),
        outcomes=layout.RETRIEVE.file(".safetensors"),
    log:
        layout.RETRIEVE.log,
    benchmark:
        layout.RETRIEVE.benchmark
    conda:
        "../envs/environment.yaml"
    threads: threads_of
    params:
        library=library("retrieve"),
        classes=classes("dataset"),
        inputs=inputs,
        expected_data=expected("dataset"),
        expected_model=expected_model,
        retrieval=retrieval,
        threads=threads_of,
    shell:
        "python {input.script:q} --model {input.model:q} --data {input.data:q} {params.classes}"
        " {params.expected_data:q} {params.expected_model:q}"
        " --input {params.inputs:q} {params.retrieval:q} --codes {input.codes:q} --experiment {wildcards.experiment}"
        " --dataset-name {wildcards.dataset} --seed {wildcards.seed} --device cpu --threads {params.threads}"
        " --record {output.record:q} > {log:q} 2>&1"


rule attack_retrieval:
    """One attack on one model's queries at all epsilons, through one attacker gradient, with every query's outcome."""
    input:
        script=layout.script("attack_retrieval"),
        data=prepared("dataset"),
        model=rules.finetune.output.model,
        feedback=rules.finetune.output.feedback,
        sidecar=rules.finetune.output.sidecar,
        codes=rules.encode.output.codes,
    output:
        record=layout.ATTACK_RETRIEVAL.file(".json"),
        outcomes=layout.ATTACK_RETRIEVAL.file(".safetensors"),
    log:
        layout.ATTACK_RETRIEVAL.log,
    benchmark:
        layout.ATTACK_RETRIEVAL.benchmark
    conda:
        "../envs/environment.yaml"
    threads: threads_of
    params:
        library=library("attack_retrieval", hash_attack="{attack}", rule="{feedback_rule}"),
        classes=classes("dataset"),
        inputs=inputs,
        expected_data=expected("dataset"),
        expected_model=expected_model,
        retrieval=retrieval,
        gradient=gradient,
        epsilons=of_attack("epsilons"),
        images=of_attack("images"),
        batch_size=of_attack("batch_size"),
        settings=attack_settings,
        device=config["device"],
        threads=threads_of,
    shell:
        "python {input.script:q} --model {input.model:q} --data {input.data:q} {params.classes}"
        " {params.expected_data:q} {params.expected_model:q}"
        " --input {params.inputs:q} {params.retrieval:q} --codes {input.codes:q} --experiment {wildcards.experiment}"
        " --dataset-name {wildcards.dataset} --attack {wildcards.attack} --gradient {params.gradient}"
        " --epsilons {params.epsilons} --images {params.images} --batch-size {params.batch_size}"
        " --settings {params.settings:q} --seed {wildcards.seed} --device {params.device} --threads {params.threads}"
        " --record {output.record:q} > {log:q} 2>&1"
