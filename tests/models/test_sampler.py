from __future__ import annotations

import numpy as np
import pytest

from samplewise.models.config import Config
from samplewise.models.network import Network
from samplewise.models.problems import parse_problem, replay
from samplewise.models.sampler import Event, Generation, Sampling, TinyModel, prompt_tokens
from samplewise.models.tokenizer import BOS, EOS, VOCABULARY, encode

PUZZLE = "4 7 8 8 > 24"
EXPRESSION = "eval ( 7 + 5 ) * 3 - 8"


@pytest.fixture(scope="module")
def model() -> TinyModel:
    return TinyModel.load()


@pytest.fixture(scope="module")
def network() -> Network:
    rng = np.random.default_rng(0)
    config = Config(layers=2)
    return Network(
        config,
        {
            name: rng.normal(0, 0.3, shape).astype(np.float32)
            for name, shape in config.shapes().items()
        },
    )


def texts(events: list[Event], rows: int) -> list[str]:
    """Join the streamed text of each row."""
    return ["".join(e.text for e in events if e.row == row) for row in range(rows)]


@pytest.mark.parametrize("problem", [PUZZLE, EXPRESSION, "2 5 5 5 8 > 56"])
def test_child_i_is_a_single_draw_with_seed_plus_i(model: TinyModel, problem: str) -> None:
    together = model.sample(problem, 12, seed=5, logprobs=1)
    for i, child in enumerate(together):
        alone = model.sample(problem, seed=5 + i)[0]
        assert (child.text, child.tokens) == (alone.text, alone.tokens)


def test_neighbours_that_come_and_go_change_nothing(model: TinyModel) -> None:
    alone = [c.text for c in model.sample(PUZZLE, 4, seed=1)]
    generation = model.generation()
    others = generation.add(EXPRESSION, 5, Sampling(seed=9))
    events = generation.step() + generation.step()
    mine = generation.add(PUZZLE, 4, Sampling(seed=1))
    generation.drop([others[1]])
    events += generation.step()
    late = generation.add("eval 3 + 4 - 2", 3, Sampling(temperature=0))
    generation.drop([others[0], others[4], late[2]])
    for step in generation:
        events += step
    found = texts(events, late.stop)
    assert [found[row] for row in mine] == alone
    assert found[others[2]] == model.sample(EXPRESSION, seed=11)[0].text
    assert found[late[0]] == found[late[1]] == model.sample("eval 3+4-2", temperature=0)[0].text
    assert found[late[2]] == ""


def test_a_dropped_row_says_nothing_more(model: TinyModel) -> None:
    generation = model.generation()
    generation.add(PUZZLE, 3, Sampling(seed=0))
    generation.step()
    generation.drop([1])
    generation.drop([1])
    assert len(generation) == 2
    assert {event.row for events in generation for event in events} == {0, 2}
    assert generation.step() == []


def test_without_a_seed_samples_differ_between_calls(model: TinyModel) -> None:
    assert [c.tokens for c in model.sample(PUZZLE, 8)] != [
        c.tokens for c in model.sample(PUZZLE, 8)
    ]


def test_greedy_ignores_the_seed(model: TinyModel) -> None:
    assert (
        len({c.text for s in (1, 2) for c in model.sample(PUZZLE, 2, temperature=0, seed=s)}) == 1
    )


def test_one_step_at_a_time_continues_the_same_text(model: TinyModel) -> None:
    whole = model.sample(PUZZLE, temperature=0)[0].text
    first = model.sample(PUZZLE, temperature=0, stop=[";"])[0]
    assert (first.finish_reason, first.stop_reason) == ("stop", ";")
    assert VOCABULARY[first.tokens[-1]] == ";"
    rest = model.sample(PUZZLE, temperature=0, prefix_text=first.text + ";")[0]
    assert first.text + ";" + rest.text == whole
    assert rest.prompt_tokens == len(encode(PUZZLE)) + 1 + len(first.tokens)


def test_a_stop_string_across_tokens_is_found_and_never_shown(model: TinyModel) -> None:
    whole = model.sample(PUZZLE, temperature=0)[0].text
    stop = whole[whole.index("=") : whole.index("=") + 5]
    shown: list[str] = []
    sample = model.sample(
        PUZZLE, temperature=0, stop=[stop], on_token=lambda event: shown.append(event.text)
    )[0]
    assert sample.text == whole[: whole.index(stop)] == "".join(shown)
    assert sample.stop_reason == stop


def test_text_held_back_for_a_stop_string_comes_with_the_end(model: TinyModel) -> None:
    whole = model.sample(PUZZLE, temperature=0)[0]
    last = whole.text.split()[-1]
    again = model.sample(PUZZLE, temperature=0, stop=[f"{last} never"])[0]
    assert (again.text, again.stop_reason) == (whole.text, None)


def test_max_tokens_ends_with_length(model: TinyModel) -> None:
    sample = model.sample(PUZZLE, seed=0, max_tokens=3)[0]
    assert (len(sample.tokens), sample.finish_reason) == (3, "length")
    assert len(sample.text.split()) == 3


def test_end_of_sequence_counts_as_a_token_and_is_not_shown(model: TinyModel) -> None:
    sample = model.sample(PUZZLE, temperature=0)[0]
    assert sample.tokens[-1] == EOS
    assert encode(sample.text) == list(sample.tokens[:-1])
    assert (sample.finish_reason, sample.stop_reason) == ("stop", None)


def test_context_bounds_a_generation(network: Network) -> None:
    model = TinyModel(network)
    sample = model.sample(PUZZLE, seed=3, stop=["never"])[0]
    room = model.context - len(prompt_tokens(PUZZLE))
    assert len(sample.tokens) <= room
    with pytest.raises(ValueError, match="no room"):
        model.sample(PUZZLE, prefix_text="1 " * model.context)


def test_logprobs_are_those_before_temperature_and_cuts(model: TinyModel) -> None:
    hot = model.sample(PUZZLE, temperature=0, logprobs=5)[0]
    cut = model.sample(PUZZLE, temperature=0.2, top_k=1, logprobs=0, seed=0)[0]
    assert [t.logprob for t in hot.logprobs] == [t.logprob for t in cut.logprobs]
    assert len(hot.logprobs) == len(hot.tokens)
    for token in hot.logprobs:
        values = [logprob for _, logprob in token.top]
        assert token.top[0] == (token.token, token.logprob)
        assert values == sorted(values, reverse=True)
        assert len(values) == 5
        assert np.exp(values).sum() <= 1 + 1e-9
    assert all(token.top == () for token in cut.logprobs)
    assert model.sample(PUZZLE, temperature=0)[0].logprobs == ()


@pytest.mark.parametrize(
    ("settings", "name"),
    [
        ({"temperature": -1.0}, "temperature"),
        ({"temperature": float("nan")}, "temperature"),
        ({"top_p": 0.0}, "top_p"),
        ({"top_k": -2}, "top_k"),
        ({"max_tokens": 0}, "max_tokens"),
        ({"logprobs": 21}, "logprobs"),
        ({"stop": [""]}, "stop"),
        ({"n": 0}, "n must"),
    ],
)
def test_a_parameter_out_of_range_is_a_value_error(
    model: TinyModel, settings: dict[str, object], name: str
) -> None:
    with pytest.raises(ValueError, match=name):
        model.sample(PUZZLE, **settings)  # type: ignore[arg-type]


@pytest.mark.parametrize("text", ["", "What is 2+2?", "eval 1 +", "1 2 > 3", "> " * 300])
def test_a_prompt_outside_the_grammar_is_a_value_error(model: TinyModel, text: str) -> None:
    with pytest.raises(ValueError, match=r"."):
        model.sample(text)


def test_a_prefix_outside_the_vocabulary_is_a_value_error(model: TinyModel) -> None:
    with pytest.raises(ValueError, match="not a token"):
        model.sample(PUZZLE, prefix_text="Sure, ")


def test_the_order_of_given_numbers_does_not_matter(model: TinyModel) -> None:
    assert model.sample("8 4 8 7 > 24", seed=1)[0].text == model.sample(PUZZLE, seed=1)[0].text


def test_the_committed_weights_solve_puzzles_far_more_often_than_chance(model: TinyModel) -> None:
    solved = 0
    for text in ("4 7 8 8 > 24", "3 3 5 8 > 20", "1 2 3 4 > 24"):
        problem = parse_problem(text)
        solved += sum(replay(problem, c.text).correct for c in model.sample(text, 32, seed=0))
    assert solved >= 12


def test_reading_a_prompt_at_once_or_token_by_token_is_the_same(network: Network) -> None:
    tokens = [BOS, *encode(PUZZLE), *encode("8 / 8 = 1 , 1 4 7")]
    kept, logits = network.read(tokens)
    cache = network.cache(1)
    for position, token in enumerate(tokens):
        stepwise = network.next(np.array([token]), np.array([position]), cache)
    np.testing.assert_allclose(stepwise[0], logits, rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(cache[:, :, 0, :, : len(tokens)], kept, rtol=1e-4, atol=1e-4)


def test_a_new_generation_is_empty(network: Network) -> None:
    generation = Generation(network)
    assert len(generation) == 0
    assert list(generation) == []
