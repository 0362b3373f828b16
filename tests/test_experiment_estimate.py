"""What a demo is expected to take: the sum of its parts, scaled by the machine's speed."""

import pytest

from stereopsis.experiment import demo_arms
from stereopsis.experiment.estimate import EVALUATED, PACK, REFERENCE, ROOM, START, STEP, core_speed, estimate

SIZES = ["training.steps=100", "training.scenes=4", "data.sources=[{rooms: 50}]", "evaluation.sources=[{rooms: 10}]"]


@pytest.fixture
def arms():
    return demo_arms(0, SIZES)


def test_one_process_does_everything_in_turn(arms, monkeypatch):
    monkeypatch.setattr("stereopsis.experiment.estimate.usable_cpus", lambda: 1)
    found = estimate(arms, 1, speed=REFERENCE)
    assert found.rooms == pytest.approx(60 * ROOM)
    assert found.packs == pytest.approx(50 * PACK + START)
    assert found.arms == pytest.approx(100 * sum(STEP.values()) + 3 * (START + 10 * EVALUATED))


def test_two_processes_take_as_long_as_the_fuller_one(arms):
    found = estimate(arms, 2, speed=REFERENCE)
    others = 100 * (STEP["blind"] + STEP["text"]) + 2 * (START + 10 * EVALUATED)
    assert found.arms == pytest.approx(max(others, 100 * STEP["objectives"] + START + 10 * EVALUATED))


def test_half_the_speed_is_twice_the_time_and_people_read_round_figures(arms):
    whole, half = estimate(arms, 2, speed=REFERENCE), estimate(arms, 2, speed=REFERENCE / 2)
    assert (half.rooms, half.packs, half.arms) == pytest.approx((2 * whole.rooms, 2 * whole.packs, 2 * whole.arms))
    assert "in all about" in whole.sentence
    assert whole.sentence.startswith("Phases, as this machine's speed suggests: rooms about 10 s, ")


def test_the_short_measurement_finds_a_speed():
    assert 0.01 < core_speed() < 1e5
