rule fetch:
    """Raw files of a dataset, verified, from the first source that has them; or the place of a folder of the user's."""
    input:
        script=layout.script("fetch"),
    output:
        raw=directory(layout.FETCH.file()),
    log:
        layout.FETCH.log,
    benchmark:
        layout.FETCH.benchmark
    localrule: True
    conda:
        "../envs/environment.yaml"
    params:
        library=library("fetch", dataset="{dataset_file}"),
        search_paths=search_paths,
        folder=folder_options,
        state=folder_state,
    shell:
        "python {input.script:q} --dataset {wildcards.source} {params.search_paths:q} {params.folder:q}"
        " --output {output.raw:q} > {log:q} 2>&1"


rule prepare:
    """A dataset in its canonical form: uint8 images N,C,H,W, or names of image files, and labels."""
    input:
        script=layout.script("prepare"),
        raw=rules.fetch.output.raw,
    output:
        data=layout.PREPARE.file(".safetensors"),
    log:
        layout.PREPARE.log,
    benchmark:
        layout.PREPARE.benchmark
    conda:
        "../envs/environment.yaml"
    threads: 4
    params:
        library=library("prepare", dataset="{dataset_file}"),
        max_unreadable=config["data"]["max_unreadable"],
    shell:
        "python {input.script:q} --dataset {wildcards.source} --raw {input.raw:q} --output {output.data:q}"
        " --max-unreadable {params.max_unreadable} --threads {threads} > {log:q} 2>&1"


rule prefetch:
    """Everything that jobs of the default experiment would read from the network; `prefetch_<name>` for another's."""
    input:
        downloads(config["default_experiment"]),
    localrule: True
