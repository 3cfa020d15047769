"""A grid of notebooks on one machine or many (`make engine`; the README has the commands).

Each cell is one notebook with one combination of parameters, executed by papermill through `calib_utils run`. A
finished cell is not run again; a stopped one goes on from its records and stages. The grid itself is a configuration
file such as `batch/grid.yaml`.
"""

import itertools
import re
import sys

sys.path.insert(0, workflow.basedir)
from calib_utils.running.order import before


NAMES = list(config["parameters"])
COMBINATIONS = [dict(zip(NAMES, values)) for values in itertools.product(*config["parameters"].values())]
# No commas: the jobs that SLURM starts are told their wildcards in a list.
CELLS = {
    re.sub(r"[^\w.+=-]+", "-", "+".join(f"{name}={value}" for name, value in given.items())): given
    for given in COMBINATIONS
}
if len(CELLS) < len(COMBINATIONS):
    raise ValueError(f"two cells of the grid have the same name; change the values: {COMBINATIONS}")


rule all:
    input:
        expand("{runs}/{notebook}/{cell}/figures", runs=config["runs"], notebook=config["notebooks"], cell=CELLS),


rule cell:
    input:
        lambda wildcards: [
            f"{config['runs']}/{first}/{wildcards.cell}/figures"
            for first in before(wildcards.notebook, config["notebooks"])
        ],
    output:
        directory(config["runs"] + "/{notebook}/{cell}/figures"),
    log:
        notebook=config["runs"] + "/{notebook}/{cell}/{notebook}.ipynb",
    params:
        given=lambda wildcards: [
            word for name, value in CELLS[wildcards.cell].items() for word in ("-p", f"{name}={value!r}")
        ],
        python=config.get("python", ".venv/bin/python"),
        profile=config["profile"],
        runs=config["runs"],
    threads: config.get("threads", 4)
    resources:
        gpu=config["gpus"],
        mem_mb=config.get("mem_mb", 16000),
        runtime=config.get("minutes", 240),
    shell:
        "{params.python} -m calib_utils run --only {wildcards.notebook} --profile {params.profile} "
        "--output $(dirname {log.notebook}) -p figures={output} -p runs={params.runs} {params.given:q}"
