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
        surrogates=surrogate_files,
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
        library=library("attack", attack="{attack}", rule="{feedback_rule}"),
        classes=classes("dataset"),
        inputs=inputs,
        expected_data=expected("dataset"),
        expected_model=expected_model,
        gradient=gradient,
        epsilons=of_attack("epsilons"),
        images=of_attack("images"),
        batch_size=of_attack("batch_size"),
        settings=attack_settings,
        keep=of_attack("keep", 0),
        check_convergence=check_convergence,
        expected_surrogates=expected_surrogates,
        surrogates=surrogates,
        device=config["device"],
        threads=threads_of,
    shell:
        "python {input.script:q} --model {input.model:q} --data {input.data:q} {params.classes}"
        " --input {params.inputs:q} --experiment {wildcards.experiment} --dataset-name {wildcards.dataset}"
        " --attack {wildcards.attack} --gradient {params.gradient} --epsilons {params.epsilons}"
        " --images {params.images} --batch-size {params.batch_size} --settings {params.settings:q} --keep {params.keep}"
        " {params.check_convergence} {params.surrogates:q} {params.expected_surrogates:q}"
        " {params.expected_data:q} {params.expected_model:q}"
        " --seed {wildcards.seed} --device {params.device} --threads {params.threads}"
        " --record {output.record:q} > {log:q} 2>&1"


rule measure_gradients:
    """Where an attacker's gradient points, and where its steps lead, on one model."""
    input:
        script=layout.script("measure_gradients"),
        data=prepared("dataset"),
        model=trained(".safetensors"),
        feedback=trained(".feedback.safetensors"),
        sidecar=trained(".json"),
    output:
        record=layout.MEASURE_GRADIENTS.file(".json"),
        outcomes=layout.MEASURE_GRADIENTS.file(".safetensors"),
    log:
        layout.MEASURE_GRADIENTS.log,
    benchmark:
        layout.MEASURE_GRADIENTS.benchmark
    conda:
        "../envs/environment.yaml"
    threads: threads_of
    params:
        library=library("measure_gradients", rule="{feedback_rule}"),
        classes=classes("dataset"),
        inputs=inputs,
        expected_data=expected("dataset"),
        expected_model=expected_model,
        gradient=gradient,
        settings=why_settings,
        device=config["device"],
        threads=threads_of,
    shell:
        "python {input.script:q} --model {input.model:q} --data {input.data:q} {params.classes}"
        " --input {params.inputs:q} --experiment {wildcards.experiment} --dataset-name {wildcards.dataset}"
        " --gradient {params.gradient} --settings {params.settings:q}"
        " {params.expected_data:q} {params.expected_model:q}"
        " --seed {wildcards.seed} --device {params.device} --threads {params.threads}"
        " --record {output.record:q} > {log:q} 2>&1"
