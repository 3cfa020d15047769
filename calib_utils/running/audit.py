"""The command `python -m calib_utils audit`: its arguments, and what it prints."""

from __future__ import annotations

import argparse
import json
import re
from pathlib import Path

from calib_utils import storage
from calib_utils.config import check_names
from calib_utils.data import DATASETS
from calib_utils.errors import ConfigError
from calib_utils.home import ROOT


def add_command(commands) -> argparse.ArgumentParser:
    """The command's own parser among `commands`."""
    command = commands.add_parser("audit", help="is a model of your own calibrated? Writes one page as answer")
    command.add_argument(
        "models", nargs="*", metavar="MODEL", help="hub id, folder, adapter, GGUF; several to compare"
    )
    command.add_argument("--data", metavar="FILE|NAME", help="own rows (question, answer, choices, group), or a set")
    command.add_argument(
        "--log", nargs="+", type=Path, metavar="FILE", help="samples of lm-evaluation-harness instead"
    )
    command.add_argument("--normalised", action="store_true", help="of logs: per character, as acc_norm")
    command.add_argument("--output", type=Path, help="folder of report.html and audit.json (default: runs/audit/...)")
    command.add_argument("--n", type=int, help="questions, evenly over groups (default: all)")
    command.add_argument(
        "--kind", default="auto", help="free answers or choice (default: choice if all rows have it)"
    )
    command.add_argument("--n-samples", type=int, default=50, help="draws per question (default: 50)")
    command.add_argument("--style", default="concise", help="concise, sentence or cot (default: concise)")
    command.add_argument("--shots", type=int, help="worked examples (default: 10)")
    command.add_argument("--examples", type=Path, help="own rows for them")
    command.add_argument("--plain", action="store_true", help="no chat template, though the tokenizer has one")
    command.add_argument("--max-new-tokens", type=int, help="longest answer (default: as the style says)")
    command.add_argument("--seed", type=int, default=0)
    command.add_argument("--dtype", default="auto")
    command.add_argument("--device", default="auto")
    server = command.add_argument_group("a model behind a server that speaks OpenAI's protocol")
    server.add_argument("--endpoint", metavar="URL", help="such as http://localhost:8000/v1; MODEL is its name there")
    server.add_argument("--completions", action="store_true", help="ask by /completions, for base models")
    server.add_argument("--key-variable", default="OPENAI_API_KEY", help="environment variable that holds the key")
    server.add_argument("--per-request", type=int, default=8, help="draws in one request (default: 8)")
    server.add_argument("--workers", type=int, default=4, help="requests at once (default: 4)")
    server.add_argument("--no-logprobs", action="store_true", help="do not ask for log-probabilities")
    server.add_argument("--extra", default="{}", metavar="JSON", help='more fields of requests, as {"top_k": 0}')
    return command


def run(options) -> int:
    """Audit what the options name, print the verdicts, write page and numbers."""
    from calib_utils.studies import audit

    if bool(options.log) == bool(options.models):
        raise ConfigError("name a model and --data to ask it, or --log with files of lm-evaluation-harness; not both")
    if options.models and not options.data:
        raise ConfigError(
            f"--data is missing: a file of own rows (.jsonl, .csv, .parquet) or one of {list(DATASETS)}"
        )
    if options.data and not Path(options.data).suffix:
        check_names("--data knows no set", [options.data], DATASETS)
    subject = "-".join([*(options.models or [path.stem for path in options.log]), options.data or ""])
    slug = re.sub(r"[^A-Za-z0-9.]+", "-", subject).strip("-.")[-80:]
    folder = options.output or ROOT / "runs" / "audit" / slug
    storage.check_folder(folder)
    if options.log:
        found = audit.audit_logs(options.log, options.normalised, report=_say)
    else:
        settings = audit.Settings(
            kind=options.kind,
            n_samples=options.n_samples,
            style=options.style,
            shots=options.shots,
            chat=False if options.plain else None,
            max_new_tokens=options.max_new_tokens,
            seed=options.seed,
        )
        found = audit.audit(
            [_model(name, options) for name in options.models],
            options.data,
            settings,
            options.n,
            options.examples,
            folder=ROOT / "runs" / "audit",
            dtype=options.dtype,
            device=options.device,
            report=_say,
        )
    page, numbers = audit.write(found, folder)
    if len(found.results) > 1:
        _say(audit.headline(found))
    _say(f"report: {page}\nnumbers: {numbers}")
    return 0


def _say(line: str) -> None:
    print(line, flush=True)


def _model(name: str, options):
    from calib_utils.studies.audit import Endpoint

    if not options.endpoint:
        return name
    try:
        extra = json.loads(options.extra)
    except json.JSONDecodeError as error:
        raise ConfigError(f"--extra is not JSON ({error}): {options.extra!r}") from error
    if not isinstance(extra, dict):
        raise ConfigError(f'--extra is {options.extra!r}; give an object such as {{"top_k": 0}}')
    return Endpoint(
        name,
        options.endpoint,
        chat=not options.completions,
        key_variable=options.key_variable,
        per_request=options.per_request,
        extra=extra,
        logprobs=not options.no_logprobs,
        workers=options.workers,
    )
