"""Bench: the sampler against `generate`, CATTO against DPO, training against plain products, monitored or not."""

from __future__ import annotations

import contextlib
import multiprocessing
import resource
import statistics
import tempfile
import time
import warnings
from collections.abc import Iterator
from itertools import pairwise

import pandas as pd
import torch
from transformers import TrainerCallback

from calib_utils.data import load_questions
from calib_utils.models import LanguageModel, encode
from calib_utils.prompts import STYLES, build_prompts, pick_shots
from calib_utils.sampling import sample
from calib_utils.sampling.tokens import split
from calib_utils.types import Completion, Prompt, SamplingConfig


class _Clock(TrainerCallback):
    """When every step of a trainer ended."""

    def __init__(self):
        self.at = []

    def on_step_end(self, args, state, control, **_):
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        self.at.append(time.perf_counter())

    def seconds(self, first: int) -> float:
        """Median seconds of a step, without the `first` ones."""
        return statistics.median(after - before for before, after in pairwise(self.at[first - 1 :]))


def by_generate(lm: LanguageModel, prompts: list[Prompt], config: SamplingConfig) -> list[list[str]]:
    """M completions per prompt by `transformers`' own `generate`, with the attention it is fastest with."""
    torch.manual_seed(config.seed)
    attention = lm.model.config._attn_implementation
    lm.model.set_attn_implementation("sdpa")
    texts = []
    for prompt in prompts:
        ids = torch.tensor([encode(lm.tokenizer, prompt.shared + prompt.own, prompt.chat)], device=lm.device)
        with torch.inference_mode():
            output = lm.model.generate(
                input_ids=ids,
                attention_mask=torch.ones_like(ids),
                do_sample=True,
                temperature=config.temperature,
                top_k=0,
                top_p=1.0,
                num_return_sequences=config.n_samples,
                max_new_tokens=config.max_new_tokens,
                stop_strings=list(config.stop) or None,
                tokenizer=lm.tokenizer,
            )
        texts.append(lm.tokenizer.batch_decode(output[:, ids.shape[1] :], skip_special_tokens=True))
    lm.model.set_attn_implementation(attention)
    return texts


def products(lm: LanguageModel, prompts: list[Prompt], drawn: list[list[Completion]]) -> float:
    """Multiplications and additions of the distinct rows, in billions: what no exact sampler can do without.

    Every distinct prefix goes once through the layers (2 operations a weight, and 4 per layer, head, dimension and
    token that it attends to), and through the output layer where a token is drawn after it. The last token of a
    completion is not forwarded. Attention counts in full where a window bounds it.
    """
    config = lm.model.config.get_text_config()
    head = lm.model.get_output_embeddings()
    weights = [m.weight.numel() for m in lm.model.modules() if isinstance(m, torch.nn.Linear) and m is not head]
    width = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    attended = 4 * config.num_hidden_layers * config.num_attention_heads * width
    rows, heads = set(), set()
    for prompt, completions in zip(prompts, drawn, strict=True):
        path = sum(split(lm.tokenizer, prompt), ())
        rows.update(path[:end] for end in range(1, len(path) + 1))
        heads.update((*path, *one.token_ids[:end]) for one in completions for end in range(len(one.token_ids)))
    rows |= heads
    layers = 2 * sum(weights) * len(rows) + attended * sum(map(len, rows))
    return (layers + 2 * head.weight.numel() * len(heads)) / 1e9


def sampling(
    lm: LanguageModel, n_questions: int = 48, n_generate: int = 2, rounds: int = 3, seed: int = 0
) -> pd.DataFrame:
    """Seconds per question of both ways on the embedded facts, ten-shot, concise: M = 10 and 50.

    The ways take turns, `rounds` times; medians are reported. `generate` gets `n_generate` questions a round
    because it is slow, the sampler `n_questions`. Columns: method, m, seconds_per_question (median), low, high,
    n_questions, rounds, peak_gib (of the process, up to the first such call), speedup_over_generate (at the M that
    `generate` draws), growth_from_m10 (of the sampler), gflop (`products` per question), matmul_gflops (per second,
    of a square product of 2,048), floor (seconds per question that the products take at that rate), over_floor,
    device, threads, dtype, model.
    """
    questions = load_questions("facts", "dev", n=n_questions * rounds, seed=seed)
    shots = pick_shots(load_questions("facts", "train"), 10, seed)
    prompts = build_prompts(questions, shots, "concise")
    return _in_turns(lm, prompts, (10, 50), STYLES["concise"].max_new_tokens, n_questions, n_generate, rounds)


def chains(
    lm: LanguageModel,
    n_questions: int = 4,
    n_generate: int = 1,
    rounds: int = 3,
    seed: int = 0,
    max_new_tokens: int = 64,
) -> pd.DataFrame:
    """As `sampling`, for chains of thought, of which hardly two agree: arithmetic, eight-shot, M = 10 and 20."""
    questions = load_questions("arithmetic", "dev", n=n_questions * rounds, seed=seed)
    shots = pick_shots(load_questions("arithmetic", "train"), 8, seed)
    prompts = build_prompts(questions, shots, "cot")
    return _in_turns(lm, prompts, (10, 20), max_new_tokens, n_questions, n_generate, rounds)


def _in_turns(lm, prompts, draws, max_new_tokens, n_questions, n_generate, rounds) -> pd.DataFrame:
    seconds: dict[tuple[str, int], list[float]] = {}
    peaks: dict[tuple[str, int], float] = {}
    work: dict[tuple[str, int], list[float]] = {}
    rates: list[float] = []
    for warm_up in (sample, by_generate):
        warm_up(lm, prompts[:2], SamplingConfig(n_samples=2, max_new_tokens=2))
    most = draws[-1]
    for turn in range(rounds):
        batch = prompts[turn * n_questions : (turn + 1) * n_questions]
        rates.append(_matmul_gflops(lm.device, lm.model.dtype))
        for method, m in (*(("merged", m) for m in draws), ("generate", most)):
            config = SamplingConfig(m, max_new_tokens=max_new_tokens, seed=turn)
            mine = (
                batch
                if method == "merged"
                else batch[turn * n_generate % (n_questions - n_generate + 1) :][:n_generate]
            )
            started = time.perf_counter()
            drawn = sample(lm, mine, config) if method == "merged" else by_generate(lm, mine, config)
            seconds.setdefault((method, m), []).append((time.perf_counter() - started) / len(mine))
            peaks.setdefault((method, m), resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20)
            if method == "merged":
                work.setdefault((method, m), []).append(products(lm, mine, drawn) / len(mine))
    rate = statistics.median(rates)
    median = {key: statistics.median(values) for key, values in seconds.items()}
    slow, first = median["generate", most], median["merged", draws[0]]
    return pd.DataFrame(
        [
            {
                "method": method,
                "m": m,
                "seconds_per_question": median[method, m],
                "low": min(values),
                "high": max(values),
                "n_questions": n_questions if method == "merged" else n_generate,
                "rounds": rounds,
                "peak_gib": peaks[method, m],
                "speedup_over_generate": slow / median[method, m] if m == most else float("nan"),
                "growth_from_m10": median[method, m] / first if method == "merged" else float("nan"),
                "gflop": (gflop := statistics.median(work.get((method, m), [float("nan")]))),
                "matmul_gflops": rate,
                "floor": gflop / rate,
                "over_floor": median[method, m] * rate / gflop,
                "device": torch.cuda.get_device_name() if lm.device.type == "cuda" else "cpu",
                "threads": torch.get_num_threads(),
                "dtype": lm.dtype,
                "model": lm.name,
            }
            for (method, m), values in seconds.items()
        ]
    )


_TRAINERS = ("dpo (trl)", "dpo", "catto")


def training(
    model: str, device: str = "auto", steps: int = 10, rounds: int = 3, batch_size: int = 8, seed: int = 0
) -> pd.DataFrame:
    """Seconds and peak memory of a step: trl's DPO, DPO with the light output layer, and CATTO, same pairs.

    The three take turns, `rounds` times, each in a process of its own so that its peak memory is its own; the first
    two steps of a block are not counted. LoRA of rank 16 on all linear layers; distractor pairs of embedded facts.
    Columns: method, seconds_per_step (median of the rounds), low, high, peak_gib, time_over_dpo, memory_over_dpo,
    batch_size, rounds, device, model.
    """
    found: dict[str, list[tuple[float, float, str]]] = {}
    for _ in range(rounds):
        for method in _TRAINERS:
            with multiprocessing.get_context("spawn").Pool(1) as pool:
                found.setdefault(method, []).append(
                    pool.apply(_block, (method, model, device, steps, batch_size, seed))
                )
    seconds = {method: statistics.median(s for s, _, _ in rows) for method, rows in found.items()}
    peak = {method: max(p for _, p, _ in rows) for method, rows in found.items()}
    return pd.DataFrame(
        [
            {
                "method": method,
                "seconds_per_step": seconds[method],
                "low": min(s for s, _, _ in rows),
                "high": max(s for s, _, _ in rows),
                "peak_gib": peak[method],
                "time_over_dpo": seconds[method] / seconds["dpo"],
                "memory_over_dpo": peak[method] / peak["dpo"],
                "batch_size": batch_size,
                "rounds": rounds,
                "device": rows[0][2],
                "model": model,
            }
            for method, rows in found.items()
        ]
    )


def family(rounds: int = 3, steps: int = 12, batch_size: int = 48, seeds: int = 5) -> pd.DataFrame:
    """Speed of pre-training the family of notebook 06, against what plain matrix products reach on the same machine.

    A training step costs about 6 operations a parameter and token (2 forward, 4 backward); the limit is the rate of a
    square product of 2,048 in the same dtype. All `seeds` of a size are trained side by side, on the processor. Sizes
    take turns, `rounds` times. Columns: shape, parameters (of one model), tokens_per_second (of all models, median of
    the rounds), low, high, gflops, matmul_gflops, share, batch_tokens, seeds, rounds, dtype, device.
    """
    from calib_utils.models import best_cpu_dtype
    from calib_utils.studies import LifecycleStudy
    from calib_utils.world.family.learning import pretrain
    from calib_utils.world.family.settings import PreTraining, Shape
    from calib_utils.world.family.text import ROW, FactWorld

    worlds, found = [FactWorld(seed=seed) for seed in range(seeds)], {}
    for turn in range(rounds + 1):  # the first one loads libraries and does not count
        limit = _matmul_gflops(torch.device("cpu"), best_cpu_dtype())
        for shape in LifecycleStudy.defaults()["shapes"]:
            marks: list[float] = []
            kept = pretrain(
                worlds,
                Shape(*shape),
                PreTraining(steps, batch_size),
                lambda step, m=marks: m.append(time.perf_counter()),
            )
            size = sum(weight[0].numel() for weight in kept[steps].parameters())
            rate = seeds * batch_size * ROW * (steps - 2) / (marks[-1] - marks[1])
            if turn:
                found.setdefault((str(Shape(*shape)), size), []).append((rate, limit))
    rows = []
    for (shape, size), rates in found.items():
        tokens, limit = (statistics.median(values) for values in zip(*rates, strict=True))
        gflops = 6 * size * tokens / 1e9
        rows.append(
            {
                "shape": shape,
                "parameters": size,
                "tokens_per_second": tokens,
                "low": min(rate for rate, _ in rates),
                "high": max(rate for rate, _ in rates),
                "gflops": gflops,
                "matmul_gflops": limit,
                "share": gflops / limit,
                "batch_tokens": batch_size * ROW,
                "seeds": seeds,
                "rounds": rounds,
                "dtype": str(best_cpu_dtype()).removeprefix("torch."),
                "device": "cpu",
            }
        )
    return pd.DataFrame(rows)


def _matmul_gflops(device: torch.device, dtype: torch.dtype, size: int = 2048, repeats: int = 10) -> float:
    """Rate of a square matrix product."""
    a = torch.randn(size, size, device=device).to(dtype)
    taken = []
    for _ in range(repeats):
        if device.type == "cuda":
            torch.cuda.synchronize()
        started = time.perf_counter()
        (a @ a).sum().item()  # read, so that the product has ended
        taken.append(time.perf_counter() - started)
    return 2 * size**3 / min(taken) / 1e9


def monitoring(
    model: str,
    device: str = "auto",
    steps: int = 40,
    every: int = 5,
    n_questions: int = 60,
    n_shots: int = 10,
    seed: int = 0,
) -> pd.DataFrame:
    """`CalibrationCallback` in a run of trl's DPO: its curve, what it costs, and that it leaves the weights alone.

    LoRA of rank 16, distractor pairs of embedded facts of the train split; dev questions with `n_shots` examples are
    asked every `every` steps, 20 draws each. The same run without the callback is made first. Columns: step, then
    what the callback logs, loss, seconds_per_step (without measuring), share (of the run's time that measuring took),
    identical (whether both runs end in the same weights, bit for bit), n, device, model.
    """
    from calib_utils import models
    from calib_utils.training import CalibrationCallback

    rate, asked = 1e-4, load_questions("facts", "dev", n=n_questions, seed=seed)
    shots = pick_shots(load_questions("facts", "train"), n_shots, seed)
    ends, log, clock = [], [], _Clock()
    for watched in (False, True):
        lm = models.load(model, device=device)
        with tempfile.TemporaryDirectory() as folder, _trainer("dpo", lm, folder, steps, 8, seed, rate) as trainer:
            if watched:
                trainer.add_callback(CalibrationCallback(trainer, asked, every, budget=0.9, shots=shots, seed=seed))
            else:
                trainer.add_callback(clock)
            trainer.train()
            ends.append({name: w.detach().cpu() for name, w in trainer.model.named_parameters() if w.requires_grad})
            log = trainer.state.log_history
    table = pd.DataFrame(log).groupby("step", as_index=False).first()
    found = table[["step", "loss", *(name for name in table if name.startswith("calibration/"))]]
    found = found.rename(columns=lambda name: name.removeprefix("calibration/")).dropna(subset="accuracy")
    step = clock.seconds(first=2)
    measured = found["seconds"].sum()
    return found.assign(
        seconds_per_step=step,
        share=measured / (measured + steps * step),
        identical=all(torch.equal(weight, ends[1][name]) for name, weight in ends[0].items()),
        n=n_questions,
        device="cpu" if lm.device.type == "cpu" else torch.cuda.get_device_name(),
        model=model,
    )


def _block(method: str, model: str, device: str, steps: int, batch_size: int, seed: int) -> tuple[float, float, str]:
    """Median seconds of a step, peak GiB and device of one run of `steps` steps."""
    from calib_utils import models

    lm, clock = models.load(model, device=device), _Clock()
    with tempfile.TemporaryDirectory() as folder, _trainer(method, lm, folder, steps, batch_size, seed) as trainer:
        trainer.add_callback(clock)
        trainer.train()
    if lm.device.type != "cpu":
        return clock.seconds(first=2), torch.cuda.max_memory_allocated() / 2**30, torch.cuda.get_device_name()
    return clock.seconds(first=2), resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20, "cpu"


@contextlib.contextmanager
def _trainer(
    method: str, lm: LanguageModel, folder: str, steps: int, batch_size: int, seed: int, rate: float = 2e-5
) -> Iterator:
    """One of `_TRAINERS` for LoRA of rank 16 on distractor pairs, with what it needs while it trains."""
    warnings.simplefilter("ignore")
    from datasets import Dataset, disable_progress_bars
    from peft import LoraConfig, get_peft_model
    from transformers import PrinterCallback
    from trl import DPOConfig, DPOTrainer

    from calib_utils.training import CATTOConfig, CATTOTrainer, distractor_pairs
    from calib_utils.training.compat import scored_head

    disable_progress_bars()
    cpu = lm.device.type == "cpu"
    pairs = distractor_pairs(load_questions("facts", "train", n=steps * batch_size, seed=seed), seed)
    asked = build_prompts([question for question, _ in pairs], [])
    rows = [
        {"prompt": prompt.own, "chosen": prompt.blank + question.answer, "rejected": prompt.blank + wrong}
        for (question, wrong), prompt in zip(pairs, asked, strict=True)
    ]
    torch.manual_seed(seed)  # of the adapter's start
    policy = get_peft_model(lm.model, LoraConfig(r=16, target_modules="all-linear", task_type="CAUSAL_LM"))
    kind, config = (CATTOTrainer, CATTOConfig) if method == "catto" else (DPOTrainer, DPOConfig)
    with scored_head(compact=True) if cpu and method == "dpo" else contextlib.nullcontext():
        trainer = kind(
            policy,
            args=config(
                output_dir=folder, max_steps=steps, per_device_train_batch_size=batch_size, learning_rate=rate,
                report_to=[], save_strategy="no", disable_tqdm=True, use_cpu=cpu, bf16=lm.dtype == "bfloat16",
                gradient_checkpointing=False, max_length=None, seed=seed, logging_steps=1,
            ),
            train_dataset=Dataset.from_list(rows),
            processing_class=lm.tokenizer,
        )  # fmt: skip
        trainer.remove_callback(PrinterCallback)
        yield trainer
