"""A server that speaks OpenAI's protocol and draws from a model by the package's own sampler."""

from __future__ import annotations

import contextlib
import json
import threading
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from calib_utils.models import LanguageModel
from calib_utils.sampling import sample
from calib_utils.types import Prompt, SamplingConfig


@dataclass
class Manners:
    """How a server behaves.

    Attributes
    ----------
    key : what it wants as a key; empty for any.
    at_most : draws that it gives in one request.
    logprobs : whether it tells log-probabilities.
    refused : how many requests it refuses first, for load.
    asked : the bodies of the requests that it got.
    """

    key: str = field(default="", repr=False)  # a test looks for it in all that is shown
    at_most: int = 100
    logprobs: bool = True
    refused: int = 0
    asked: list[dict] = field(default_factory=list)


@contextlib.contextmanager
def serving(lm: LanguageModel, manners: Manners | None = None):
    """Within it a model is served; gives the URL of the API."""
    manners, lock = manners or Manners(), threading.Lock()

    class Handler(BaseHTTPRequestHandler):
        def log_message(self, *_):
            """Nothing on the terminal."""

        def do_POST(self):
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            with lock:
                manners.asked.append(body)
                refuse, manners.refused = manners.refused > 0, manners.refused - 1
            given = self.headers.get("Authorization", "").removeprefix("Bearer ")
            if refuse:
                return self.answer(429, {"error": {"message": "too many"}}, {"Retry-After": "0.05"})
            if manners.key and given != manners.key:
                return self.answer(401, {"error": {"message": f"Incorrect API key provided: {given}"}})
            if body["model"] != lm.name:
                return self.answer(404, {"error": {"message": f"no model {body['model']} for {given}"}})
            chat = self.path.endswith("/chat/completions")
            text = " ".join(turn["content"] for turn in body["messages"]) if chat else body["prompt"]
            stop, n = body.get("stop") or [], min(body["n"], manners.at_most)
            config = SamplingConfig(n, body["temperature"], body["max_tokens"], tuple(stop), body["seed"])
            with lock:
                (drawn,) = sample(lm, [Prompt("", text)], config)
            choices = [self.choice(one, chat, body) for one in drawn for _ in range(one.count)]
            choices = [choice | {"index": i} for i, choice in enumerate(choices)]
            kind = "chat.completion" if chat else "text_completion"
            return self.answer(200, {"id": "1", "object": kind, "created": 0, "model": lm.name, "choices": choices})

        def choice(self, one, chat, body):
            each = [one.logprob / len(one.token_ids)] * len(one.token_ids)
            told = manners.logprobs and body.get("logprobs")
            reason = "stop" if one.finished else "length"
            tokens = [str(token) for token in one.token_ids]
            if not chat:
                given = {"tokens": tokens, "token_logprobs": each} if told else None
                return {"text": one.text, "logprobs": given, "finish_reason": reason}
            content = [{"token": t, "logprob": v, "top_logprobs": []} for t, v in zip(tokens, each, strict=True)]
            message = {"role": "assistant", "content": one.text}
            return {"message": message, "logprobs": {"content": content} if told else None, "finish_reason": reason}

        def answer(self, status, body, headers=()):
            content = json.dumps(body).encode()
            self.send_response(status)
            for name, value in {"Content-Type": "application/json", **dict(headers)}.items():
                self.send_header(name, value)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_port}/v1"
    finally:
        server.shutdown()
        server.server_close()
