"""Train the embedded model: `python -m samplewise.models.train --seed 0 --out models/tiny`.

Needs the extra `torch`. Plain functions over a dictionary of tensors with Hugging Face names; the
numpy code in `network.py` is its twin. A run writes a checkpoint every few minutes and resumes from
it; the rows of a step depend on the seed and the step alone.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from samplewise.models.arithmetic import LARGEST_TRAINED
from samplewise.models.config import Config, write_folder
from samplewise.models.examples import IGNORE, Examples
from samplewise.models.weights import write_safetensors

__all__ = ["Recipe", "Run", "main"]

Tensor = Any
Parameters = dict[str, Any]

_LOG_EVERY = 100
_SAVE_EVERY = 500
# Newton-Schulz coefficients of Muon: steep at zero, so that five rounds are enough.
_NEWTON_SCHULZ = (3.4445, -4.7750, 2.0315)
_NEWTON_SCHULZ_ROUNDS = 5


@dataclass(frozen=True, slots=True)
class Recipe:
    """Everything that shapes the result, beside the code.

    Expressions start with numbers up to `easy_largest`: the model learns small sums and the form
    first, and after `easy_steps` the whole range.
    """

    seed: int = 0
    steps: int = 7000
    fours: int = 32
    fives: int = 8
    expressions: int = 16
    easy_steps: int = 5000
    easy_largest: int = 20
    warmup: int = 100
    matrix_rate: float = 0.015
    other_rate: float = 0.01
    momentum: float = 0.95
    threads: int = 2


def main(argv: list[str] | None = None) -> int:
    """Train, or go on training, and write the model folder."""
    defaults = Recipe()
    parser = argparse.ArgumentParser(prog="samplewise.models.train", description=__doc__)
    parser.add_argument("--out", type=Path, required=True, help="folder to write the model to")
    parser.add_argument("--seed", type=int, default=defaults.seed)
    parser.add_argument("--steps", type=int, default=defaults.steps)
    parser.add_argument("--threads", type=int, default=defaults.threads, help="changes last digits")
    parser.add_argument("--checkpoint", type=Path, default=Path("build/tiny-checkpoint.pt"))
    options = parser.parse_args(argv)
    # On a busy machine a waiting thread would otherwise burn a core; read when torch is loaded.
    os.environ.setdefault("GOMP_SPINCOUNT", "0")
    try:
        import torch
    except ModuleNotFoundError:
        print("training needs torch: pip install 'samplewise[torch]'", file=sys.stderr)
        return 2
    recipe = Recipe(seed=options.seed, steps=options.steps, threads=options.threads)
    torch.set_num_threads(recipe.threads)
    run = Run(torch, recipe, Config())
    if options.checkpoint.exists():
        run.load(options.checkpoint)
    options.checkpoint.parent.mkdir(parents=True, exist_ok=True)
    while run.step < recipe.steps:
        run.one_step()
        if run.step % _SAVE_EVERY == 0 or run.step == recipe.steps:
            run.save(options.checkpoint)
    run.write(options.out)
    return 0


class Run:
    """One training run: parameters, optimizer state and log."""

    def __init__(self, torch: Any, recipe: Recipe, config: Config) -> None:
        self._torch = torch
        self._recipe = recipe
        self._config = config
        self._examples = Examples(recipe.seed)
        self._parameters = _initial(torch, config, recipe.seed)
        self._muon = _Muon(torch, self._parameters, recipe.momentum)
        others = [p for name, p in self._parameters.items() if not _is_matrix(name)]
        self._adam = torch.optim.AdamW(others, betas=(0.9, 0.98), weight_decay=0.0)
        self.step = 0
        self._log: list[dict[str, float]] = []
        self._counts = {"examples": 0, "tokens": 0}
        self._seconds = 0.0

    def one_step(self) -> None:
        """Draw rows, follow the gradient once, log now and then."""
        start = time.process_time()
        recipe, torch = self._recipe, self._torch
        easy = self.step < recipe.easy_steps
        largest = recipe.easy_largest if easy else LARGEST_TRAINED
        blocks = self._examples.batch(
            self.step, recipe.fours, recipe.fives, recipe.expressions, largest
        )
        counted = sum(int((rows.targets != IGNORE).sum()) for rows in blocks)
        losses = []
        for rows in blocks:
            logits = _forward(torch, self._parameters, self._config, torch.from_numpy(rows.inputs))
            loss = torch.nn.functional.cross_entropy(
                logits.flatten(0, 1),
                torch.from_numpy(rows.targets).flatten(),
                ignore_index=IGNORE,
                reduction="sum",
            )
            (loss / counted).backward()
            losses.append(float(loss.detach()) / int((rows.targets != IGNORE).sum()))
            self._counts["examples"] += rows.inputs.shape[0]
            self._counts["tokens"] += rows.inputs.size
        factor = min((self.step + 1) / recipe.warmup, 1 - self.step / recipe.steps)
        self._muon.step(recipe.matrix_rate * factor)
        self._adam.param_groups[0]["lr"] = recipe.other_rate * factor
        self._adam.step()
        for parameter in self._parameters.values():
            parameter.grad = None
        self.step += 1
        self._seconds += time.process_time() - start
        if self.step % _LOG_EVERY == 0:
            names = ("four", "five", "arithmetic")
            line = {"step": self.step, "cpu_s": round(self._seconds, 1)} | {
                name: round(loss, 4) for name, loss in zip(names, losses, strict=True)
            }
            self._log.append(line)
            print(json.dumps(line), flush=True)

    def save(self, path: Path) -> None:
        """Write all that is needed to go on; never leave half a file."""
        state = {
            "recipe": asdict(self._recipe),
            "parameters": self._parameters,
            "momenta": self._muon.momenta,
            "adam": self._adam.state_dict(),
            "step": self.step,
            "log": self._log,
            "counts": self._counts,
            "seconds": self._seconds,
        }
        half = path.with_suffix(".half")
        self._torch.save(state, half)
        half.replace(path)

    def load(self, path: Path) -> None:
        """Go on from a checkpoint of the same recipe."""
        state = self._torch.load(path)
        if state["recipe"] != asdict(self._recipe):
            raise SystemExit(f"{path} is from another recipe; remove it or name another file")
        with self._torch.no_grad():
            for name, parameter in self._parameters.items():
                parameter.copy_(state["parameters"][name])
        self._muon.momenta = state["momenta"]
        self._adam.load_state_dict(state["adam"])
        self.step, self._log = state["step"], state["log"]
        self._counts, self._seconds = state["counts"], state["seconds"]

    def write(self, folder: Path) -> None:
        """Write the model folder and the log of the run."""
        write_folder(folder, self._config)
        tensors = {
            name: parameter.detach().numpy().astype(np.float16)
            for name, parameter in self._parameters.items()
        }
        write_safetensors(folder / "model.safetensors", tensors)
        log = {
            "command": f"python -m samplewise.models.train "
            f"--seed {self._recipe.seed} --out models/tiny",
            "recipe": asdict(self._recipe),
            "torch": self._torch.__version__,
            "parameters": sum(tensor.size for tensor in tensors.values()),
            "cpu_s": round(self._seconds, 1),
            **self._counts,
            "loss": self._log,
        }
        lines = json.dumps(log, indent=1).replace("\n   ", " ").replace("\n  }", " }")
        (folder / "train.json").write_text(lines + "\n", "utf-8")


def _is_matrix(name: str) -> bool:
    return "_proj" in name


def _initial(torch: Any, config: Config, seed: int) -> Parameters:
    """Draw the first parameters; branches start at zero, so that each layer starts as identity."""
    generator = torch.Generator().manual_seed(seed)
    parameters = {}
    for name, shape in config.shapes().items():
        if "norm" in name:
            value = torch.ones(shape)
        elif "o_proj" in name or "down_proj" in name:
            value = torch.zeros(shape)
        else:
            scale = 0.02 if "embed" in name else shape[1] ** -0.5
            value = torch.randn(shape, generator=generator) * scale
        parameters[name] = value.requires_grad_()
    return parameters


def _forward(torch: Any, parameters: Parameters, config: Config, tokens: Tensor) -> Tensor:
    """Return the logits [rows, length, vocabulary] of a Llama."""
    functional = torch.nn.functional
    rows, length = tokens.shape
    width, heads, head = config.width, config.heads, config.head_width
    cosine, sine = _rotation(torch, config, length)

    def norm(x: Tensor, name: str) -> Tensor:
        return functional.rms_norm(x, (width,), parameters[f"{name}.weight"], config.epsilon)

    def linear(x: Tensor, name: str) -> Tensor:
        return functional.linear(x, parameters[f"{name}.weight"])

    def turn(x: Tensor) -> Tensor:
        first, second = x.chunk(2, -1)
        return x * cosine + torch.cat((-second, first), -1) * sine

    x = functional.embedding(tokens, parameters["model.embed_tokens.weight"])
    for layer in range(config.layers):
        at = f"model.layers.{layer}"
        h = norm(x, f"{at}.input_layernorm")
        q, k, v = (
            linear(h, f"{at}.self_attn.{name}").view(rows, length, heads, head).transpose(1, 2)
            for name in ("q_proj", "k_proj", "v_proj")
        )
        mixed = functional.scaled_dot_product_attention(turn(q), turn(k), v, is_causal=True)
        mixed = mixed.transpose(1, 2).reshape(rows, length, width)
        x = x + linear(mixed, f"{at}.self_attn.o_proj")
        h = norm(x, f"{at}.post_attention_layernorm")
        gate = functional.silu(linear(h, f"{at}.mlp.gate_proj"))
        x = x + linear(gate * linear(h, f"{at}.mlp.up_proj"), f"{at}.mlp.down_proj")
    return functional.linear(norm(x, "model.norm"), parameters["model.embed_tokens.weight"])


def _rotation(torch: Any, config: Config, length: int) -> tuple[Tensor, Tensor]:
    """Return the cosines and sines of the rotary position embedding, [length, head width]."""
    half = torch.arange(0, config.head_width, 2).float() / config.head_width
    angles = torch.outer(torch.arange(length).float(), config.rope_theta**-half)
    angles = torch.cat((angles, angles), -1)
    return angles.cos(), angles.sin()


class _Muon:
    """Momentum whose update is made orthogonal, for the matrices inside the layers.

    Source: Jordan et al. 2024, https://kellerjordan.github.io/posts/muon/; matrices of one shape go
    through Newton-Schulz together.
    """

    def __init__(self, torch: Any, parameters: Parameters, momentum: float) -> None:
        self._torch = torch
        self._momentum = momentum
        self._groups: dict[tuple[int, ...], list[Tensor]] = {}
        for name, parameter in parameters.items():
            if _is_matrix(name):
                self._groups.setdefault(tuple(parameter.shape), []).append(parameter)
        self.momenta = {
            shape: torch.zeros(len(group), *shape) for shape, group in self._groups.items()
        }

    def step(self, rate: float) -> None:
        """Move all matrices once along their gradients."""
        with self._torch.no_grad():
            for shape, group in self._groups.items():
                gradient = self._torch.stack([parameter.grad for parameter in group])
                momentum = self.momenta[shape].lerp_(gradient, 1 - self._momentum)
                update = self._orthogonal(gradient.lerp(momentum, self._momentum))
                scale = rate * max(1.0, shape[0] / shape[1]) ** 0.5
                for parameter, change in zip(group, update, strict=True):
                    parameter.sub_(change, alpha=scale)

    def _orthogonal(self, x: Tensor) -> Tensor:
        """Bring the singular values of each matrix near one."""
        a, b, c = _NEWTON_SCHULZ
        tall = x.shape[1] > x.shape[2]
        x = x.mT if tall else x
        x = x / (x.norm(dim=(1, 2), keepdim=True) + 1e-7)
        for _ in range(_NEWTON_SCHULZ_ROUNDS):
            square = x @ x.mT
            x = a * x + (b * square + c * square @ square) @ x
        return x.mT if tall else x


if __name__ == "__main__":
    raise SystemExit(main())
