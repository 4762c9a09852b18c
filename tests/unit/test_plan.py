"""Which workloads of a campaign are looked at closely."""

from __future__ import annotations

from fuzzer.campaign.worker import DEEP_EVERY, plan_of
from fuzzer.writelog.points import SAMPLED, Plan, parse_plan


def test_one_workload_in_ten_is_looked_at_closely() -> None:
    plans = [plan_of(index) for index in range(100)]
    deep = [plan for plan in plans if plan.sampled]
    assert len(deep) == 100 // DEEP_EVERY
    assert all(set(plan.sampled) == SAMPLED for plan in deep)
    assert all(plan == Plan() for plan in plans if plan not in deep)
    assert all(plan.simple == Plan().modes for plan in plans), "sync calls are always points"


def test_a_finding_can_be_run_again_by_what_it_says() -> None:
    for index in (0, DEEP_EVERY - 1):
        assert parse_plan(str(plan_of(index))).modes == plan_of(index).modes
