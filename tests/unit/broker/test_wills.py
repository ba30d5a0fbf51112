from __future__ import annotations

from hypothesis import given, strategies as st

from broker.wills import will_record, will_run
from mqtt.packets import Properties, Version, Will

WILLS = st.builds(
    Will,
    topic=st.sampled_from(["t", "t/1", "é/ü"]),
    payload=st.binary(max_size=20),
    qos=st.integers(0, 2),
    retain=st.booleans(),
    properties=st.builds(
        Properties,
        will_delay_interval=st.none() | st.integers(0, 2**32 - 1),
        message_expiry_interval=st.none() | st.integers(0, 2**32 - 1),
        content_type=st.none() | st.just("text/plain"),
        response_topic=st.none() | st.just("answers"),
        correlation_data=st.none() | st.binary(max_size=4),
        user_properties=st.lists(st.tuples(st.just("a"), st.sampled_from("xy"))).map(tuple),
    ),
)


@given(WILLS)
def test_will_becomes_the_message_it_was_meant_to_be(will: Will) -> None:
    record = will_record(will)
    run = will_run(record)
    message = run.packet()
    assert (message.topic, message.payload) == (will.topic, will.payload)
    assert (message.qos, message.retain, run.version) == (will.qos, will.retain, Version.V5)
    said, meant = message.properties, will.properties
    assert said.message_expiry_interval == meant.message_expiry_interval
    assert said.content_type == meant.content_type
    assert said.response_topic == meant.response_topic
    assert said.correlation_data == meant.correlation_data
    assert said.user_properties == meant.user_properties
    assert said.will_delay_interval is None, "it is no property of a PUBLISH"
    assert record.delay_s == (meant.will_delay_interval or 0)
