"""What transformers makes of the same weights and texts; run by the Python that has vLLM.

`ask` runs this file: a folder and texts go in as JSON, and a list of numbers for each text comes
out: the logits of a classifier, or a row for each step of a model that scores steps.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

__all__ = ["ask"]


def ask(python: str, folder: Path, texts: Sequence[Any], tag: int = 0, good: str = "") -> Any:
    """Return what a model says of texts.

    Each is a list of messages, a pair of strings, or a string. `tag` is the token that ends steps,
    `good` the tokens whose logits count, where the model has no head of its own: there, or at the
    end of the text without a tag.
    """
    asked = json.dumps({"folder": str(folder), "texts": texts, "tag": tag, "good": good.split()})
    done = subprocess.run(
        [python, __file__], input=asked, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def _main() -> None:
    import torch
    from safetensors.torch import load_file
    from transformers import (
        AutoModel,
        AutoModelForCausalLM,
        AutoModelForSequenceClassification,
        AutoTokenizer,
    )

    asked = json.load(sys.stdin)
    folder, texts, tag = asked["folder"], asked["texts"], asked["tag"]
    tokenizer = AutoTokenizer.from_pretrained(folder)
    single = {"dtype": torch.float32}

    def classified(tokens: torch.Tensor) -> torch.Tensor:
        return AutoModelForSequenceClassification.from_pretrained(folder, **single)(tokens).logits

    def stepped(tokens: torch.Tensor) -> torch.Tensor:
        weights = load_file(f"{folder}/model.safetensors")
        head = [weights[f"score.{part}"].float() for part in _HEAD]
        hidden = AutoModel.from_pretrained(folder, **single)(tokens).last_hidden_state
        inner = torch.relu(hidden @ head[0].T + head[1])
        return (inner @ head[2].T + head[3])[tokens == tag]

    def said(tokens: torch.Tensor) -> torch.Tensor:
        logits = AutoModelForCausalLM.from_pretrained(folder, **single)(tokens).logits
        at = tokens == tag if tag else torch.arange(tokens.shape[1])[None] == tokens.shape[1] - 1
        return logits[at][:, tokenizer.convert_tokens_to_ids(asked["good"])]

    run = said if asked["good"] else stepped if tag else classified
    found = []
    with torch.no_grad():
        for text in texts:
            match text:
                case str():
                    tokens = tokenizer(text)["input_ids"]
                case [str(), str()]:
                    tokens = tokenizer(*text)["input_ids"]
                case _:
                    shown = tokenizer.apply_chat_template(text, tokenize=False)
                    tokens = tokenizer(shown, add_special_tokens=False)["input_ids"]
            rows = run(torch.tensor([tokens])).tolist()
            found.append(rows if tag else rows[0])
    print(json.dumps(found))


_HEAD = ("0.weight", "0.bias", "2.weight", "2.bias")

if __name__ == "__main__":
    _main()
