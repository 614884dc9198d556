rule measure_nullspace:
    """How much of a rule's update changes nothing, on a toy regression."""
    input:
        script="src/measure_nullspace.py",
    output:
        record="results/{experiment}/nullspace/{rule}/seed{seed}.json",
        outcomes="results/{experiment}/nullspace/{rule}/seed{seed}.safetensors",
    log:
        "results/{experiment}/logs/nullspace/{rule}/seed{seed}.log",
    benchmark:
        "results/{experiment}/benchmarks/nullspace/{rule}/seed{seed}.tsv"
    conda:
        "../envs/environment.yaml"
    params:
        library=library("measure_nullspace", update_rule="{rule}"),
        settings=settings("nullspace", "{rule}"),
    shell:
        "python {input.script:q} --rule {wildcards.rule} --settings {params.settings:q} --seed {wildcards.seed}"
        " --experiment {wildcards.experiment} --record {output.record:q} > {log:q} 2>&1"
