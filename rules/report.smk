rule collect:
    """All records of an experiment in one table, and their means over seeds with intervals."""
    input:
        script=layout.script("collect"),
        records=records,
    output:
        records=layout.COLLECT.file(".parquet"),
        summary=layout.SUMMARY.file(".parquet"),
    log:
        layout.COLLECT.log,
    benchmark:
        layout.COLLECT.benchmark
    localrule: True
    conda:
        "../envs/environment.yaml"
    params:
        library=library("collect"),
        listing=records_list,
    shell:
        "python {input.script:q} --records-list {params.listing:q} --records {output.records:q}"
        " --summary {output.summary:q} > {log:q} 2>&1"


rule audit:
    """Each rule against backpropagation, by the worst case over a set of attacks."""
    input:
        script=layout.script("audit"),
        records=records,
    output:
        audit=layout.AUDIT.file(".parquet"),
    log:
        layout.AUDIT.log,
    benchmark:
        layout.AUDIT.benchmark
    localrule: True
    conda:
        "../envs/environment.yaml"
    params:
        library=library("audit"),
        listing=records_list,
        settings=settings("audit"),
    shell:
        "python {input.script:q} --records-list {params.listing:q} --settings {params.settings:q}"
        " --output {output.audit:q} > {log:q} 2>&1"


rule make_table:
    """One table as CSV, Markdown, LaTeX and HTML."""
    input:
        script=layout.script("make_table"),
        frame=source("table"),
    output:
        csv=layout.MAKE_TABLE.file(".csv"),
        md=layout.MAKE_TABLE.file(".md"),
        tex=layout.MAKE_TABLE.file(".tex"),
        html=report(
            layout.MAKE_TABLE.file(".html"),
            caption="captions/result.rst",
            category="{experiment}",
            subcategory=part("table"),
            labels=title("table"),
        ),
        seal=layout.MAKE_TABLE.file(".json"),
    log:
        layout.MAKE_TABLE.log,
    benchmark:
        layout.MAKE_TABLE.benchmark
    localrule: True
    conda:
        "../envs/environment.yaml"
    params:
        library=library("make_table", table="{table}"),
        caption=caption("table"),
        settings=settings("tables", "{table}"),
        shown=shown("table"),
    shell:
        "python {input.script:q} --table {wildcards.table} --settings {params.settings:q} {params.shown:q}"
        " --experiment {wildcards.experiment} --output {output.csv:q} > {log:q} 2>&1"


rule plot_figure:
    """One figure as PDF, SVG and PNG."""
    input:
        script=layout.script("plot_figure"),
        frame=source("figure"),
    output:
        pdf=layout.PLOT_FIGURE.file(".pdf"),
        svg=report(
            layout.PLOT_FIGURE.file(".svg"),
            caption="captions/result.rst",
            category="{experiment}",
            subcategory=part("figure"),
            labels=title("figure"),
        ),
        png=layout.PLOT_FIGURE.file(".png"),
        seal=layout.PLOT_FIGURE.file(".json"),
    log:
        layout.PLOT_FIGURE.log,
    benchmark:
        layout.PLOT_FIGURE.benchmark
    localrule: True
    conda:
        "../envs/environment.yaml"
    params:
        library=library("plot_figure", figure="{figure}"),
        caption=caption("figure"),
        settings=settings("figures", "{figure}"),
        shown=shown("figure"),
    shell:
        "python {input.script:q} --figure {wildcards.figure} --settings {params.settings:q} {params.shown:q}"
        " --experiment {wildcards.experiment} --output {output.pdf:q} > {log:q} 2>&1"
