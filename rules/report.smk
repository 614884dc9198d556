rule collect:
    """All records of an experiment in one table, and their means over seeds with intervals."""
    input:
        script="src/collect.py",
        records=records,
    output:
        records="results/{experiment}/records.parquet",
        summary="results/{experiment}/summary.parquet",
    log:
        "results/{experiment}/logs/collect.log",
    benchmark:
        "results/{experiment}/benchmarks/collect.tsv"
    localrule: True
    conda:
        "../envs/environment.yaml"
    params:
        library=library("collect"),
    shell:
        "python {input.script:q} --experiment {wildcards.experiment} --records {output.records:q}"
        " --summary {output.summary:q} > {log:q} 2>&1"


rule audit:
    """Each rule against backpropagation, by the worst case over a set of attacks."""
    input:
        script="src/audit.py",
        records=records,
    output:
        audit="results/{experiment}/audit.parquet",
    log:
        "results/{experiment}/logs/audit.log",
    benchmark:
        "results/{experiment}/benchmarks/audit.tsv"
    localrule: True
    conda:
        "../envs/environment.yaml"
    params:
        library=library("audit"),
        settings=settings("audit"),
    shell:
        "python {input.script:q} --experiment {wildcards.experiment} --settings {params.settings:q}"
        " --output {output.audit:q} > {log:q} 2>&1"


rule make_table:
    """One table as CSV, Markdown, LaTeX and HTML."""
    input:
        script="src/make_table.py",
        frame=source("table"),
    output:
        csv="results/{experiment}/tables/{table}.csv",
        md="results/{experiment}/tables/{table}.md",
        tex="results/{experiment}/tables/{table}.tex",
        html=report(
            "results/{experiment}/tables/{table}.html",
            caption="captions/product.rst",
            category="{experiment}",
            subcategory="Tables",
            labels={"table": "{table}"},
        ),
    log:
        "results/{experiment}/logs/make_table/{table}.log",
    benchmark:
        "results/{experiment}/benchmarks/make_table/{table}.tsv"
    localrule: True
    conda:
        "../envs/environment.yaml"
    params:
        library=library("make_table", table="{table}"),
        caption=caption("table"),
        settings=settings("tables", "{table}"),
    shell:
        "python {input.script:q} --table {wildcards.table} --settings {params.settings:q} --frame {input.frame:q}"
        " --output {output.csv:q} > {log:q} 2>&1"


rule plot_figure:
    """One figure as PDF, SVG and PNG."""
    input:
        script="src/plot_figure.py",
        frame=source("figure"),
    output:
        pdf="results/{experiment}/figures/{figure}.pdf",
        svg=report(
            "results/{experiment}/figures/{figure}.svg",
            caption="captions/product.rst",
            category="{experiment}",
            subcategory="Figures",
            labels={"figure": "{figure}"},
        ),
        png="results/{experiment}/figures/{figure}.png",
    log:
        "results/{experiment}/logs/plot_figure/{figure}.log",
    benchmark:
        "results/{experiment}/benchmarks/plot_figure/{figure}.tsv"
    localrule: True
    conda:
        "../envs/environment.yaml"
    params:
        library=library("plot_figure", figure="{figure}"),
        caption=caption("figure"),
        settings=settings("figures", "{figure}"),
    shell:
        "python {input.script:q} --figure {wildcards.figure} --settings {params.settings:q} --frame {input.frame:q}"
        " --output {output.pdf:q} > {log:q} 2>&1"
