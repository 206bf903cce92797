"""Drawing one character from made-up logits."""

import numpy as np
import pytest
import tensorflow as tf
from hypothesis import example, given
from hypothesis import strategies as st

from charrnn_tf.inference import cuts as module
from charrnn_tf.inference.cuts import HEAD, Cuts, choose

EVENLY = (np.arange(1000) + 0.5) / 1000  # of [0, 1): an id of probability p is drawn 1000 p times, give or take one
LAST = np.nextafter(np.float32(1), np.float32(0))  # the largest number below 1


def draw(logits, uniform=EVENLY, top_n=0, top_p=1.0, temperature=1.0, min_p=0.0):
    """The ids that uniform numbers draw from the same logits, one each."""
    rows = np.tile(np.asarray(logits, np.float32), (len(uniform), 1))
    return choose(tf.constant(rows), tf.constant(uniform, tf.float32), Cuts.of(top_n, top_p, temperature, min_p)).numpy()


def shares(ids, vocab_size):
    return np.bincount(ids, minlength=vocab_size) / len(ids)


def test_top_n_never_leaves_the_n_likeliest():
    logits = np.array([3.0, 2.0, 2.0, -1.0])  # a tie at the cut: the lower id stays
    assert set(draw(logits, top_n=1)) == {0}
    assert set(draw(logits, top_n=2)) == {0, 1}
    assert set(draw(logits, top_n=3)) == {0, 1, 2}


def test_top_n_finds_the_likeliest_in_any_order():
    assert set(draw([-5.0, 1.0, -5.0, 0.0, 2.0], top_n=3)) == {1, 3, 4}


@pytest.mark.parametrize("top_n", [0, 4, 5, 2**31 - 1])
def test_top_n_of_0_or_at_least_the_vocabulary_cuts_nothing(top_n):
    assert shares(draw([0.0, 0.0, 0.0, 0.0], top_n=top_n), 4) == pytest.approx([0.25] * 4)


def test_the_uniform_number_is_a_position_with_the_likeliest_first():
    logits = np.log([0.2, 0.5, 0.3])
    assert list(draw(logits, [0.0, 0.49, 0.51, 0.79, 0.81, LAST])) == [1, 1, 2, 2, 0, 0]
    assert list(draw(logits, [0.0, 0.62, 0.63, LAST], top_n=2)) == [1, 1, 2, 2]  # 0.5 / 0.8 = 0.625


def test_each_row_has_its_own_logits_and_number():
    logits = tf.constant([[9.0, 0.0, 0.0], [0.0, 0.0, 9.0], [0.0, 0.0, 0.0]])
    assert list(choose(logits, tf.constant([0.5, 0.5, 0.99]), Cuts.of()).numpy()) == [0, 2, 2]


def test_rows_may_share_one_cut_and_differ_in_another():
    logits = tf.constant(np.tile(np.log([0.5, 0.3, 0.2]).astype(np.float32), (2, 1)))
    cuts = Cuts.of(top_n=3)._replace(temperature=tf.constant([0.0, 1.0]))
    assert list(choose(logits, tf.constant([0.9, 0.9]), cuts).numpy()) == [0, 2]


def test_each_row_may_have_its_own_cuts():
    logits = np.log([0.5, 0.3, 0.14, 0.06])
    settings = [{"top_n": 2}, {"temperature": 0.0}, {"top_p": 0.6}, {"temperature": 3.0}, {"min_p": 0.2}, {"top_n": 9}]
    rows = [Cuts.of(**each) for each in settings for _ in EVENLY]
    cuts = Cuts(*(tf.stack(values) for values in zip(*rows, strict=True)))
    several = tf.constant(np.tile(logits.astype(np.float32), (len(rows), 1)))
    chosen = choose(several, tf.constant(np.tile(EVENLY, len(settings)), tf.float32), cuts).numpy()
    alone = [draw(logits, **each) for each in settings]
    assert chosen.reshape(len(settings), -1).tolist() == np.array(alone).tolist()


@pytest.mark.parametrize(("top_n", "top_p"), [(0, 1.0), (3, 1.0), (0, 0.9), (2, 0.5)])
def test_temperature_zero_draws_the_likeliest(top_n, top_p):
    assert set(draw([1.0, 4.0, 3.9, 4.0], top_n=top_n, top_p=top_p, temperature=0)) == {1}


@pytest.mark.parametrize("temperature", [1e-45, 1e-40, 1e-38, 1e-20, 1e-3])
@pytest.mark.parametrize("scale", [1.0, 1e4, 1e30])
def test_tiny_temperatures_draw_the_likeliest(temperature, scale):
    assert set(draw(np.array([0.1, -3.0, 0.2, 0.0]) * scale, temperature=temperature)) == {2}


@pytest.mark.parametrize("temperature", [1e20, 3e38])
def test_huge_temperatures_make_all_equally_likely(temperature):
    assert shares(draw([5.0, -30.0, 0.0, 1.0], temperature=temperature), 4) == pytest.approx([0.25] * 4)


def test_at_tiny_temperatures_ties_stay_equally_likely():
    for scale, temperature in ((1.0, 2e-38), (1e30, 1e-20)):
        logits = np.array([2.0, 2.0, 1.0]) * scale
        assert shares(draw(logits, temperature=temperature), 3) == pytest.approx([0.5, 0.5, 0])


def test_temperature_divides_the_logits():
    logits = np.log([0.5, 0.3, 0.2])
    for temperature in (0.5, 2.0):
        powers = np.array([0.5, 0.3, 0.2]) ** (1 / temperature)
        assert shares(draw(logits, temperature=temperature), 3) == pytest.approx(powers / powers.sum(), abs=2e-3)


@pytest.mark.parametrize(
    ("top_p", "kept"),
    [(1e-6, {2}), (0.49, {2}), (0.51, {0, 2}), (0.74, {0, 2}), (0.76, {0, 2, 1}), (0.88, {0, 1, 2, 3}), (1.0, {0, 1, 2, 3})],
)
def test_top_p_keeps_the_fewest_that_reach_it(top_p, kept):
    assert set(draw(np.log([0.25, 0.125, 0.5, 0.125]), top_p=top_p)) == kept


def test_top_p_close_to_one_still_cuts():
    assert set(draw(np.log([0.6, 0.35, 0.05]), top_p=0.94)) == {0, 1}


def test_temperature_comes_before_top_p():
    logits = np.log([0.5, 0.3, 0.2])
    assert set(draw(logits, top_p=0.6)) == {0, 1}
    assert set(draw(logits, top_p=0.6, temperature=0.5)) == {0}  # 0.25 / 0.38 = 0.66
    assert set(draw(logits, top_p=0.6, temperature=3.0)) == {0, 1}
    assert set(draw(logits, top_p=0.75, temperature=3.0)) == {0, 1, 2}  # 0.41, 0.34, 0.30


@pytest.mark.parametrize(
    ("min_p", "kept"), [(0.0, {0, 1, 2, 3}), (1e-40, {0, 1, 2, 3}), (0.2, {0, 1, 2}), (0.3, {0, 1}), (0.7, {0}), (1.0, {0})]
)
def test_min_p_keeps_what_has_that_part_of_the_likeliest(min_p, kept):
    logits = np.log([0.5, 0.3, 0.14, 0.06])
    assert set(draw(logits, min_p=min_p)) == kept
    assert set(draw(logits, [LAST], min_p=min_p)) == {max(kept)}  # no rounding draws what was cut


def test_min_p_comes_after_temperature_and_before_top_p():
    logits = np.log([0.5, 0.3, 0.2])
    assert set(draw(logits, min_p=0.5)) == {0, 1}
    assert set(draw(logits, min_p=0.5, temperature=0.5)) == {0}  # 0.09 / 0.25 = 0.36
    assert set(draw(logits, min_p=0.5, temperature=3.0)) == {0, 1, 2}
    assert set(draw(logits, min_p=0.5, top_p=0.62)) == {0}  # 0.5 / 0.8 = 0.625
    assert set(draw(logits, min_p=0.5, top_n=1)) == {0}
    assert set(draw([2.0, 2.0, 1.0], min_p=1.0)) == {0, 1}  # a tie


def test_top_n_comes_before_top_p():
    logits = np.log([0.5, 0.3, 0.2])
    assert set(draw(logits, top_p=0.6, top_n=2)) == {0}  # 0.5 / 0.8 = 0.625


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({}, [0.4, 0.3, 0.2, 0.1]),
        ({"top_n": 2}, [4 / 7, 3 / 7, 0, 0]),
        ({"top_p": 0.75}, [4 / 9, 3 / 9, 2 / 9, 0]),
        ({"min_p": 0.4}, [4 / 9, 3 / 9, 2 / 9, 0]),
        ({"temperature": 0.5}, [16 / 30, 9 / 30, 4 / 30, 1 / 30]),
        ({"temperature": 0.5, "top_n": 3, "top_p": 0.8}, [16 / 25, 9 / 25, 0, 0]),
    ],
)
def test_frequencies_are_the_probabilities(settings, expected):
    count = 20_000
    uniform = tf.random.stateless_uniform([count], [7, 0], alg="philox").numpy()
    seen = np.bincount(draw(np.log([0.4, 0.3, 0.2, 0.1]), uniform, **settings), minlength=4)
    wanted = np.array(expected) * count
    possible = wanted > 0
    assert not seen[~possible].any()
    chi_square = ((seen - wanted)[possible] ** 2 / wanted[possible]).sum()
    assert chi_square < 16.3  # exceeded once in a thousand with 3 degrees of freedom; the numbers are fixed


@given(
    logits=st.lists(st.floats(-50, 50, width=32), min_size=1, max_size=12),
    uniform=st.floats(0, float(LAST), width=32),
    top_n=st.integers(0, 15),
    top_p=st.floats(0.001, 1),
    temperature=st.sampled_from([0.0, 1e-30, 0.01, 0.5, 1.0, 3.0, 1e30]),
)
@example(logits=[0.0], uniform=0.0, top_n=0, top_p=1.0, temperature=1.0)
@example(logits=[-50.0, 50.0], uniform=float(LAST), top_n=0, top_p=1.0, temperature=1.0)
def test_the_id_is_always_among_the_allowed(logits, uniform, top_n, top_p, temperature):
    order = sorted(range(len(logits)), key=lambda id: -logits[id])  # a stable sort: ties go to the lower id
    order = order[: top_n or None] if temperature else order[:1]
    scaled = np.array([logits[id] for id in order], np.float64) / (temperature or 1)
    probabilities = np.exp(scaled - scaled.max())
    before = np.cumsum(probabilities / probabilities.sum()) - probabilities / probabilities.sum()
    allowed = {id for id, reached in zip(order, before, strict=True) if reached < top_p + 1e-5}
    (chosen,) = draw(logits, [uniform], top_n, top_p, temperature)
    assert chosen in allowed
    if uniform == 0:
        assert chosen == order[0]


# ---- large vocabularies: the likeliest first

MANY = 40 * HEAD
PEAKED = -0.03 * np.random.default_rng(0).permutation(MANY)  # 0.05% of the probability is after the HEAD likeliest


@pytest.mark.parametrize(
    "settings",
    [
        {}, {"temperature": 2.0}, {"temperature": 30.0}, {"top_n": HEAD}, {"top_n": HEAD + 1}, {"top_n": MANY},
        {"top_p": 0.9}, {"top_p": 0.9996}, {"top_p": 0.9, "temperature": 30.0}, {"min_p": 0.05}, {"min_p": 1e-4},
        {"min_p": 0.1, "top_p": 0.5, "temperature": 3.0}, {"temperature": 0.0},
    ],
)  # fmt: skip
def test_the_head_draws_what_the_whole_distribution_does(settings, monkeypatch):
    uniform = np.append(np.random.default_rng(1).random(200, np.float32), [0.0, 0.9996, 0.9999, LAST])
    alone = np.concatenate([draw(PEAKED, [number], **settings) for number in uniform])  # each row decides for itself
    together = draw(PEAKED, uniform, **settings)
    monkeypatch.setattr(module, "HEAD", MANY)
    whole = draw(PEAKED, uniform, **settings)
    assert alone.tolist() == whole.tolist() == together.tolist()


@pytest.mark.parametrize(
    ("settings", "uniform", "sorts"),
    [
        ({}, 0.9, False), ({}, 0.99999, True), ({"top_p": 0.9}, 0.99999, False), ({"top_p": 0.99999}, 0.1, True),
        ({"top_n": 5}, 0.99999, False), ({"top_n": HEAD + 1}, 0.1, True), ({"temperature": 0.0}, 0.99999, False),
    ],
)  # fmt: skip
def test_a_large_vocabulary_is_sorted_only_where_a_draw_needs_it(settings, uniform, sorts, monkeypatch):
    counts, top_k = [], tf.math.top_k

    def counted(logits, count):
        counts.append(int(count))
        return top_k(logits, count)

    monkeypatch.setattr(tf.math, "top_k", counted)
    draw(PEAKED, [uniform], **settings)
    assert (max(counts) > HEAD) == sorts


def test_rows_of_a_large_vocabulary_have_their_own_cuts():
    rows = [Cuts.of(**each) for each in ({}, {"top_n": 3}, {"top_p": 0.5}, {"temperature": 0.0}, {"min_p": 0.9})]
    cuts = Cuts(*(tf.stack(values) for values in zip(*rows, strict=True)))
    logits = tf.constant(np.tile(PEAKED.astype(np.float32), (len(rows), 1)))
    chosen = choose(logits, tf.fill([len(rows)], 0.7), cuts).numpy()
    order = np.argsort(-PEAKED)
    places = [int(np.flatnonzero(order == id)[0]) for id in chosen]
    # the n-th has (1 - q) q^n, q = exp(-0.03): 0.7 is reached after 40; of 3, after 2; of half, 0.35 after 14; of 4, after 2
    assert places == [40, 2, 14, 0, 2]
