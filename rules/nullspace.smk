rule measure_nullspace:
    """How much of a rule's update changes nothing, on a toy regression."""
    input:
        script=layout.script("measure_nullspace"),
    output:
        record=layout.MEASURE_NULLSPACE.file(".json"),
        outcomes=layout.MEASURE_NULLSPACE.file(".safetensors"),
    log:
        layout.MEASURE_NULLSPACE.log,
    benchmark:
        layout.MEASURE_NULLSPACE.benchmark
    conda:
        "../envs/environment.yaml"
    params:
        library=library("measure_nullspace", update_rule="{rule}"),
        settings=settings("nullspace", "{rule}"),
    shell:
        "python {input.script:q} --rule {wildcards.rule} --settings {params.settings:q} --seed {wildcards.seed}"
        " --experiment {wildcards.experiment} --record {output.record:q} > {log:q} 2>&1"
