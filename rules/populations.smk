# A population stands where a backbone stands elsewhere: a network and a way to train it, named in the experiment.


rule train_population:
    """One network for each seed and learning rate, under one update rule."""
    input:
        script="src/train_population.py",
        data=prepared("dataset"),
    output:
        population="results/{experiment}/population/{dataset}/{backbone}/{rule}.safetensors",
        description="results/{experiment}/population/{dataset}/{backbone}/{rule}.json",
    log:
        "results/{experiment}/logs/population/{dataset}/{backbone}/{rule}.log",
    benchmark:
        "results/{experiment}/benchmarks/population/{dataset}/{backbone}/{rule}.tsv"
    conda:
        "../envs/environment.yaml"
    threads: threads_of
    params:
        # Angles are measured to the update of `bp`.
        library=library("train_population", update_rule="{rule} bp"),
        classes=classes("dataset"),
        inputs=inputs,
        settings=population_settings,
        rates=learning_rates,
        seeds=population_seeds,
        checkpoint="results/{experiment}/checkpoints/population/{dataset}/{backbone}/{rule}.checkpoint",
        device=config["device"],
        threads=threads_of,
    shell:
        "python {input.script:q} --data {input.data:q} {params.classes} --input {params.inputs:q} --rule {wildcards.rule}"
        " --settings {params.settings:q} --learning-rates {params.rates} --seeds {params.seeds} --device {params.device}"
        " --threads {params.threads} --checkpoint {params.checkpoint:q} --output {output.population:q} > {log:q} 2>&1"


rule select_member:
    """The network of one seed, with the learning rate and epoch that did best, as an ordinary model."""
    input:
        script="src/select_member.py",
        population=rules.train_population.output.population,
        description=rules.train_population.output.description,
    output:
        model="results/{experiment}/member/{dataset}/{backbone}/{rule}/seed{seed}.safetensors",
        feedback="results/{experiment}/member/{dataset}/{backbone}/{rule}/seed{seed}.feedback.safetensors",
        sidecar="results/{experiment}/member/{dataset}/{backbone}/{rule}/seed{seed}.json",
    log:
        "results/{experiment}/logs/member/{dataset}/{backbone}/{rule}/seed{seed}.log",
    benchmark:
        "results/{experiment}/benchmarks/member/{dataset}/{backbone}/{rule}/seed{seed}.tsv"
    localrule: True
    conda:
        "../envs/environment.yaml"
    params:
        library=library("select_member"),
    shell:
        "python {input.script:q} --population {input.population:q} --name {wildcards.backbone} --seed {wildcards.seed}"
        " --output {output.model:q} > {log:q} 2>&1"
