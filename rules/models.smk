# Given models stand where trained ones stand elsewhere; the name of a model stands where a rule does.


rule import_model:
    """A given model, made by its factory; its backward pass is compared with the derivative of what it computes."""
    input:
        script=layout.script("import_model"),
        data=prepared("dataset"),
        factory=factory_file,
        weights=weights_of_model,
    output:
        model=layout.IMPORT_MODEL.file(".safetensors"),
        feedback=layout.IMPORT_MODEL.file(".feedback.safetensors"),
        sidecar=layout.IMPORT_MODEL.file(".json"),
    log:
        layout.IMPORT_MODEL.log,
    benchmark:
        layout.IMPORT_MODEL.benchmark
    conda:
        "../envs/environment.yaml"
    threads: threads_of
    params:
        library=library("import_model"),
        classes=classes("dataset"),
        inputs=inputs,
        expected_data=expected("dataset"),
        factory=lambda wildcards: keys(wildcards)["models"][wildcards.rule]["factory"],
        weights=lambda wildcards, input: [f"--weights={path}" for path in input.weights],
        sha256=sha256_of_model,
        threads=threads_of,
    shell:
        "python {input.script:q} --factory {params.factory:q} {params.weights:q} {params.sha256:q}"
        " --data {input.data:q} {params.classes} --input {params.inputs:q} --experiment {wildcards.experiment}"
        " --dataset-name {wildcards.dataset} {params.expected_data:q} --name {wildcards.rule} --seed {wildcards.seed}"
        " --threads {params.threads} --output {output.model:q} > {log:q} 2>&1"
