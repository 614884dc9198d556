# A population stands where a backbone stands elsewhere: a network and a way to train it, named in the experiment.


rule train_population:
    """One network for each seed and learning rate, under one update rule."""
    input:
        script=layout.script("train_population"),
        data=prepared("dataset"),
    output:
        population=layout.TRAIN_POPULATION.file(".safetensors"),
        description=layout.TRAIN_POPULATION.file(".json"),
    log:
        layout.TRAIN_POPULATION.log,
    benchmark:
        layout.TRAIN_POPULATION.benchmark
    conda:
        "../envs/environment.yaml"
    threads: threads_of
    params:
        # Angles are measured to the update of `bp`.
        library=library("train_population", update_rule="{rule} bp"),
        classes=classes("dataset"),
        inputs=inputs,
        expected_data=expected("dataset"),
        settings=population_settings,
        rates=learning_rates,
        seeds=population_seeds,
        checkpoint=layout.TRAIN_POPULATION.checkpoint,
        device=config["device"],
        threads=threads_of,
    shell:
        "python {input.script:q} --data {input.data:q} {params.classes} --input {params.inputs:q}"
        " --experiment {wildcards.experiment} --dataset-name {wildcards.dataset} --name {wildcards.backbone}"
        " {params.expected_data:q} --rule {wildcards.rule} --settings {params.settings:q}"
        " --learning-rates {params.rates} --seeds {params.seeds} --device {params.device} --threads {params.threads}"
        " --checkpoint {params.checkpoint:q} --output {output.population:q} > {log:q} 2>&1"


rule select_member:
    """The network of one seed, with the learning rate and epoch that did best, as an ordinary model."""
    input:
        script=layout.script("select_member"),
        population=rules.train_population.output.population,
        description=rules.train_population.output.description,
    output:
        model=layout.SELECT_MEMBER.file(".safetensors"),
        feedback=layout.SELECT_MEMBER.file(".feedback.safetensors"),
        sidecar=layout.SELECT_MEMBER.file(".json"),
    log:
        layout.SELECT_MEMBER.log,
    benchmark:
        layout.SELECT_MEMBER.benchmark
    localrule: True
    conda:
        "../envs/environment.yaml"
    params:
        library=library("select_member"),
        expected_population=expected_population,
    shell:
        "python {input.script:q} --population {input.population:q} --name {wildcards.backbone} --seed {wildcards.seed}"
        " {params.expected_population:q} --output {output.model:q} > {log:q} 2>&1"
