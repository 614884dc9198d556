rule evaluate:
    """Clean accuracy of a trained model on the whole test split."""
    input:
        script=layout.script("evaluate"),
        data=prepared("dataset"),
        model=trained(".safetensors"),
        sidecar=trained(".json"),
    output:
        record=layout.EVALUATE.file(".json"),
        outcomes=layout.EVALUATE.file(".safetensors"),
    log:
        layout.EVALUATE.log,
    benchmark:
        layout.EVALUATE.benchmark
    conda:
        "../envs/environment.yaml"
    threads: threads_of
    params:
        library=library("evaluate"),
        classes=classes("dataset"),
        inputs=inputs,
        expected_data=expected("dataset"),
        expected_model=expected_model,
        device=config["device"],
        threads=threads_of,
    shell:
        "python {input.script:q} --model {input.model:q} --data {input.data:q} {params.classes}"
        " --input {params.inputs:q} --experiment {wildcards.experiment} --dataset-name {wildcards.dataset}"
        " {params.expected_data:q} {params.expected_model:q}"
        " --seed {wildcards.seed} --device {params.device} --threads {params.threads}"
        " --record {output.record:q} > {log:q} 2>&1"


rule attack:
    """One attack on one model at all epsilons, through one attacker gradient; the outcome of every image is kept."""
    input:
        script=layout.script("attack"),
        data=prepared("dataset"),
        model=trained(".safetensors"),
        feedback=trained(".feedback.safetensors"),
        sidecar=trained(".json"),
        surrogate=surrogate,
    output:
        record=layout.ATTACK.file(".json"),
        outcomes=layout.ATTACK.file(".safetensors"),
    log:
        layout.ATTACK.log,
    benchmark:
        layout.ATTACK.benchmark
    conda:
        "../envs/environment.yaml"
    threads: threads_of
    params:
        library=library("attack", attack="{attack}"),
        classes=classes("dataset"),
        inputs=inputs,
        expected_data=expected("dataset"),
        expected_model=expected_model,
        epsilons=of_attack("epsilons"),
        images=of_attack("images"),
        batch_size=of_attack("batch_size"),
        settings=settings("attacks", "{attack}", "settings"),
        expected_surrogate=expected_surrogate,
        surrogate=lambda wildcards, input: [f"--surrogate={path}" for path in input.surrogate[:1]],
        device=config["device"],
        threads=threads_of,
    shell:
        "python {input.script:q} --model {input.model:q} --data {input.data:q} {params.classes}"
        " --input {params.inputs:q} --experiment {wildcards.experiment} --dataset-name {wildcards.dataset}"
        " --attack {wildcards.attack} --gradient {wildcards.gradient} --epsilons {params.epsilons}"
        " --images {params.images} --batch-size {params.batch_size} --settings {params.settings:q} {params.surrogate:q}"
        " {params.expected_surrogate:q}"
        " {params.expected_data:q} {params.expected_model:q}"
        " --seed {wildcards.seed} --device {params.device} --threads {params.threads}"
        " --record {output.record:q} > {log:q} 2>&1"
