"""Metrics: what is counted is shown, what is a state is read at the scrape."""

from __future__ import annotations

from controller.brokers import BrokerStatus
from controller.consensus import LogStatus, Role
from controller.metrics import ControllerMetrics, Reading


def reading(epoch: int) -> Reading:
    log = LogStatus(
        node_id="c1",
        members=("c1",),
        role=Role.LEADER,
        leader="c1",
        term=3,
        commit_index=12,
        applied_index=11,
        first_index=5,
        last_index=12,
        snapshot_index=6,
        syncs=9,
        pending=2,
        instance="x",
    )
    broker = BrokerStatus(broker_id="b1", epoch=4, connected=True, since_s=1.0)
    return Reading(log=log, epoch=epoch, rules=7, brokers=(broker,))


def lines_of(metrics: ControllerMetrics) -> set[str]:
    body, content_type = metrics.render()
    assert content_type.startswith("text/plain")
    return set(body.decode().splitlines())


def test_metrics_show_state_counters_and_histogram() -> None:
    metrics, epoch = ControllerMetrics(), [5]
    metrics.observe_state(lambda: reading(epoch[0]))
    metrics.observe_fsync(0.0004)
    metrics.count_questions(allowed=3, denied=2)
    metrics.count_request("POST", 201)
    metrics.count_handshake("rpc", "ok")
    epoch[0] = 6
    assert lines_of(metrics) >= {
        'stockade_controller_role{role="leader"} 1.0',
        'stockade_controller_role{role="follower"} 0.0',
        "stockade_controller_term 3.0",
        "stockade_controller_commit_index 12.0",
        "stockade_controller_applied_index 11.0",
        "stockade_controller_journal_entries 8.0",
        "stockade_controller_policy_epoch 6.0",
        "stockade_controller_rules 7.0",
        'stockade_controller_broker_connected{broker="b1"} 1.0',
        'stockade_controller_broker_epoch{broker="b1"} 4.0',
        'stockade_controller_questions_total{outcome="allow"} 3.0',
        'stockade_controller_questions_total{outcome="deny"} 2.0',
        'stockade_controller_api_requests_total{status="201",verb="POST"} 1.0',
        'stockade_controller_handshakes_total{listener="rpc",result="ok"} 1.0',
        'stockade_controller_fsync_seconds_bucket{le="0.0005"} 1.0',
        "stockade_controller_fsync_seconds_count 1.0",
    }


def test_metrics_of_two_controllers_in_one_process_do_not_meet() -> None:
    one, two = ControllerMetrics(), ControllerMetrics()
    one.count_questions(allowed=1, denied=0)
    assert 'stockade_controller_questions_total{outcome="allow"} 1.0' not in lines_of(two)
