"""The scenario groups J, B, C, R, T, H and X of ``scenarios.csv``: which test shows which of their cases.

A row names a group of cases in other projects' test suites; here each case has a test of this project,
wherever it belongs. ``test_groups_are_complete.py`` checks that every row is here and every test exists.
"""

from __future__ import annotations

from pathlib import Path

__all__ = ["GROUPS", "NOT_OFFERED", "ROOT", "cases"]

ROOT = Path(__file__).resolve().parents[1]

#: Row -> file below tests/ -> case -> test, without "test_".
GROUPS: dict[str, dict[str, dict[str, str]]] = {
    "J01": {
        "conformance/test_groups.py": {
            "end twice, end before connect": "a_client_may_be_closed_twice_and_before_it_ever_connected"
        },
        "client/test_client.py": {
            "forced end": "close_is_bounded_when_the_broker_stalls",
            "end with queued publishes": "close_delivers_what_was_queued",
            "what is dropped is told": "what_close_drops_is_told_by_event_and_delivery",
        },
    },
    "J02": {
        "conformance/test_strings.py": {
            "default identifier": "without_a_client_identifier_the_client_makes_one_up"
        },
        "mqtt/test_protocol_connect.py": {
            "keep alive and every other field": "connect_is_the_first_packet_and_carries_every_field",
            "connect timeout": "no_connack_within_the_connect_timeout_ends_the_connection",
            "close instead of an answer": "the_stream_ends_before_connack",
        },
        "conformance/test_client.py": {"refused": "after_a_refusal_the_client_closes_and_says_nothing_more"},
        "net/test_websocket.py": {"custom headers": "headers_origin_and_subprotocol_are_options"},
    },
    "J03": {
        "conformance/test_groups.py": {
            "events in order": "offline_close_and_reconnect_are_told_in_their_order"
        }
    },
    "J04": {
        "conformance/test_strings.py": {"bad filters": "a_malformed_filter_is_refused"},
        "client/test_bad_arguments.py": {"by name, nothing sent": "a_wrong_topic_filter"},
    },
    "J05": {
        "engine/test_outbox.py": {
            "leave on connect, in order": "what_was_queued_offline_leaves_in_order_when_the_connection_comes",
            "QoS 0 queue switch": "qos_0_is_dropped_without_a_connection_unless_it_is_buffered",
            "store order": "a_second_client_goes_on_where_the_first_one_stopped",
        }
    },
    "J06": {
        "client/test_client.py": {
            "callbacks": "a_message_goes_out_and_comes_back",
            "connection lost in the middle": "nothing_is_lost_and_nothing_comes_twice_through_cuts",
        },
        "mqtt/test_protocol_publish.py": {"options": "publish_carries_its_properties"},
        "mqtt/test_protocol_resume.py": {
            "DUP on resend": "unacknowledged_messages_are_repeated_with_dup_and_their_identifiers_in_order"
        },
    },
    "J07": {
        "conformance/test_groups.py": {
            "one packet for many filters": "one_packet_asks_for_many_filters_and_gives_them_up"
        },
        "conformance/test_client.py": {
            "granted list, error on 0x80": "granted_and_refused_filters_are_told_apart_by_position"
        },
    },
    "J08": {
        "mqtt/test_protocol_keep_alive.py": {
            "only when idle": "traffic_in_both_directions_needs_no_pingreq",
            "reset by traffic": "pingresp_starts_the_next_silence",
            "no PINGRESP": "a_server_that_does_not_answer_is_given_up",
            "late PINGRESP": "an_unasked_pingresp_is_harmless",
        }
    },
    "J09": {
        "conformance/test_groups.py": {
            "one event each, binary, UTF-8": "many_messages_of_every_qos_are_one_event_each"
        }
    },
    "J10": {
        "mqtt/test_protocol_receive.py": {
            "duplicates": "qos_2_sent_twice_is_delivered_once_and_answered_twice",
            "no double delivery": "qos_2_is_delivered_once_across_a_reconnect_when_pubrec_was_lost",
        },
        "conformance/test_client.py": {
            "handler fails": "every_message_is_acknowledged_whatever_the_application_does_with_it"
        },
        "client/test_manual_ack.py": {
            "handler fails, acknowledged by hand": "a_handler_that_raises_leaves_its_message_unacknowledged"
        },
        "engine/test_outbox.py": {"store fails": "a_failing_store_opens_the_gates_and_says_so_once"},
    },
    "J11": {
        "conformance/test_groups.py": {
            "several reconnects, PUBREL": "messages_in_flight_survive_several_connections"
        },
        "engine/test_router.py": {
            "resubscribe once": "without_a_session_everything_wanted_is_asked_for_again"
        },
    },
    "J12": {
        "mqtt/test_protocol_receive.py": {
            "new, reuse": "a_topic_alias_is_set_used_and_set_again",
            "0": "topic_alias_0_is_an_error",
            "above the maximum": "a_topic_alias_above_our_maximum_is_an_error",
            "unknown": "a_topic_alias_that_was_never_set_is_an_error",
        },
        "mqtt/test_outgoing_aliases.py": {
            "automatic": "a_topic_name_is_sent_once",
            "maximum in CONNACK": "the_least_recently_used_topic_gives_up_its_alias",
            "topic restored on resend": "a_repeat_has_the_full_topic_and_aliases_begin_anew",
        },
    },
    "J13": {
        "mqtt/test_protocol_connect.py": {"no method": "auth_without_a_method_in_connect_is_refused_locally"},
        "client/test_authentication.py": {
            "handler answers": "several_rounds_are_answered_and_none_is_data_too"
        },
    },
    "J14": {
        "mqtt/test_protocol_connect.py": {
            "error and close": "a_packet_above_our_maximum_is_refused_by_its_header"
        }
    },
    "J15": {
        "conformance/test_groups.py": {"uses them": "what_connack_says_replaces_what_was_asked_for"},
        "conformance/test_client.py": {"assigned id": "an_assigned_client_identifier_is_used_and_kept"},
    },
    "J16": {
        "conformance/test_groups.py": {
            "same options and id": "a_lost_session_is_subscribed_to_again_with_options_and_identifier"
        }
    },
    "J17": {
        "mqtt/test_protocol_publish.py": {
            "error to the caller": "a_refused_message_ends_with_the_reason_and_frees_its_identifier",
            "PUBREC": "a_pubrec_with_an_error_is_never_answered",
        },
        "mqtt/test_protocol_connect.py": {
            "SUBACK": "suback_properties_and_refusals_reach_the_caller_by_position"
        },
        "conformance/test_bytes.py": {
            "unknown code": "a_reason_code_that_the_packet_does_not_have_is_a_protocol_error"
        },
    },
    "J19": {
        "conformance/test_groups.py": {
            "event, then reconnect": "the_server_s_disconnect_is_told_and_the_client_comes_back"
        },
        "conformance/test_client.py": {
            "taken over": "a_client_that_was_taken_over_closes_and_does_not_fight"
        },
    },
    "B01": {
        "mqtt/test_protocol_connect.py": {
            "good": "connack_opens_the_connection",
            "error per reason code": "a_reason_code_refuses_the_connection",
            "malformed": "garbage_after_every_byte_ends_the_connection_and_raises_nothing",
            "EOF": "the_stream_may_end_after_every_byte",
            "AUTH steps": "auth_continues_an_authentication_before_connack",
        }
    },
    "B02": {
        "mqtt/test_protocol_resume.py": {"retry on reconnect": "a_second_resume_repeats_the_same_again"},
        "mqtt/test_protocol_publish.py": {
            "malformed ack": "a_malformed_puback_ends_the_connection_and_the_message_stays",
            "wrong id": "an_acknowledgement_of_an_unknown_identifier_is_ignored",
            "wrong type": "an_acknowledgement_of_the_wrong_type_is_an_error",
        },
        "engine/test_outbox.py": {"cancel": "the_end_drops_what_is_left_and_says_how_much"},
    },
    "B03": {
        "mqtt/test_protocol_receive.py": {
            "acks": "a_message_is_acknowledged_when_it_was_handled",
            "DISCONNECT 0x81, 0x82": "a_malformed_publish_of_mqtt_5_is_reported_to_the_server",
            "duplicate PUBREL": "pubrel_for_an_unknown_identifier_is_answered",
            "back to waiting for PUBREL after a cut": "pubrel_is_answered_across_a_reconnect",
        }
    },
    "B04": {
        "mqtt/test_protocol_connect.py": {
            "too few, too many": "a_wrong_answer_to_subscribe_is_an_error",
            "bad codes": "suback_properties_and_refusals_reach_the_caller_by_position",
        },
        "conformance/test_groups.py": {
            "shared, wildcard": "a_kind_of_subscription_that_the_server_does_not_have_is_refused_here",
            "subscription identifier": "a_server_without_subscription_identifiers_is_asked_without_one",
        },
    },
    "B05": {
        "mqtt/test_protocol_keep_alive.py": {
            "no ping at 0": "keep_alive_0_is_off",
            "ping at n": "the_server_s_keep_alive_replaces_ours",
            "no PINGRESP": "a_server_that_does_not_answer_is_given_up",
        }
    },
    "B06": {
        "conformance/test_client.py": {
            "throttling": "never_more_messages_are_unacknowledged_than_the_server_takes",
            "priority of acks": "only_publish_above_qos_0_is_held_back_by_a_full_window",
        },
        "mqtt/test_write_ahead.py": {
            "priority of DISCONNECT": "disconnect_overtakes_packets_that_wait_and_they_stay_behind"
        },
        "mqtt/test_protocol_resume.py": {
            "order of resend": "unacknowledged_messages_are_repeated_with_dup_and_their_identifiers_in_order"
        },
    },
    "B07": {
        "client/test_authentication.py": {
            "started by the API": "reauthentication_runs_on_the_connection_while_messages_go_on",
            "failure closes": (
                "a_reauthentication_that_fails_on_our_side_ends_the_connection_with_disconnect"
            ),
            "DISCONNECT": "a_refused_reauthentication_raises_the_servers_reason",
        },
        "mqtt/test_protocol_connect.py": {"bad method": "auth_with_another_method_than_ours_is_an_error"},
    },
    "B08": {
        "mqtt/test_protocol_connect.py": {
            "trimmed": "disconnect_leaves_explanations_out_when_the_server_takes_only_small_packets",
            "DISCONNECT": "a_disconnect_of_the_server_ends_the_connection",
        },
        "engine/test_engine.py": {"EOF": "a_stream_that_ends_while_closing_is_no_failed_attempt"},
        "client/test_client.py": {"nothing": "close_is_bounded_when_the_broker_stalls"},
    },
    "B09": {
        "engine/test_reconnect.py": {"back-off": "failed_attempts_wait_longer_each_time_and_then_try_again"},
        "net/test_tcp.py": {"next address": "a_second_address_is_tried_when_the_first_refuses"},
        "conformance/test_client.py": {"drop": "a_client_that_is_closed_without_a_word_backs_off"},
    },
    "B10": {
        "mqtt/test_topics.py": {"topics": "invalid_filter_is_refused"},
        "conformance/test_strings.py": {"UTF-8": "received_text_that_is_not_utf8_is_malformed"},
        "mqtt/test_codec.py": {"every packet": "decode_gives_back_what_encode_wrote"},
    },
    "B11": {
        "conformance/test_client.py": {
            "session-expired event": "session_present_reaches_the_application",
            "dropped": "a_session_of_which_nothing_is_known_is_replaced_at_once",
        },
        "mqtt/test_protocol_resume.py": {
            "resumed": "pubrec_seen_then_resume_sends_pubrel_and_no_publish",
            "published as new": "messages_of_a_lost_session_are_published_as_new_ones",
        },
    },
    "C01": {
        "mqtt/test_vectors.py": {
            "malformed": "bad_vector_raises_what_its_outcome_says",
            "size": "every_prefix_of_a_good_vector_is_incomplete",
        },
        "security/test_cve_classes.py": {
            "overflow": "no_inner_length_reaches_beyond_its_packet",
            "null": "every_optional_field_may_be_absent",
        },
    },
    "C02": {
        "mqtt/test_protocol_publish.py": {
            "QoS 1": "qos_1_is_done_when_puback_comes",
            "QoS 2": "qos_2_takes_four_packets",
        },
        "mqtt/test_protocol_resume.py": {
            "resend list": "pubrels_are_repeated_in_the_order_of_the_pubrecs",
            "collision of ids": "identifiers_are_unique_and_wrap_at_65535_around_those_in_use",
        },
    },
    "C03": {
        "mqtt/test_protocol_connect.py": {
            "partial packet reads": "every_split_in_two_gives_the_events_of_one_piece",
            "cut in each state": "the_stream_may_end_after_every_byte",
        },
        "engine/test_engine.py": {
            "zero-byte sends": "a_partial_send_goes_on_with_the_rest_and_then_with_what_follows",
            "send failures": "a_connection_that_breaks_while_sending_is_reported_and_tried_again",
        },
        "mqtt/test_protocol_keep_alive.py": {"ping time-out": "a_server_that_does_not_answer_is_given_up"},
    },
    "R01": {
        "engine/test_reconnect.py": {"refuse": "failed_attempts_wait_longer_each_time_and_then_try_again"},
        "conformance/test_groups.py": {
            "half-open": "a_half_open_link_is_left_in_time_and_the_output_stays_bounded"
        },
        "mqtt/test_protocol_keep_alive.py": {"slow": "output_that_drains_postpones_the_verdict"},
        "conformance/test_client.py": {
            "in-flight limits": "never_more_messages_are_unacknowledged_than_the_server_takes"
        },
        "mqtt/test_protocol_resume.py": {
            "collision": "identifiers_are_unique_and_wrap_at_65535_around_those_in_use"
        },
        "conformance/test_cuts.py": {"stored resend": "what_is_published_survives_a_cut_at_every_packet"},
    },
    "T01": {
        "system/test_mosquitto.py": {
            "basic": "messages_of_every_qos_go_round",
            "retained": "a_retained_message_waits_for_its_subscriber",
            "will": "the_will_is_published_when_the_client_vanishes_and_only_then",
        },
        "system/test_broker_features.py": {
            "zero length id": "a_client_without_a_name_connects_and_works",
            "offline queue": "what_is_published_while_a_subscriber_is_away_waits_for_it",
            "overlapping": "overlapping_subscriptions_run_each_handler_once",
            "keepalive": "an_idle_client_stays_connected_by_its_pings",
            "$ topics": "a_wildcard_does_not_match_topics_that_begin_with_a_dollar",
            "unsubscribe": "after_unsubscribe_nothing_comes",
        },
        "system/test_protocol_features.py": {
            "redelivery": "what_was_not_acknowledged_comes_again_with_the_same_key"
        },
        "conformance/test_client.py": {
            "subscribe failure": "granted_and_refused_filters_are_told_apart_by_position"
        },
    },
    "T02": {
        "system/test_protocol_features.py": {
            "session expiry": "a_session_ends_with_a_goodbye_that_says_so",
            "payload format": "the_payload_format_comes_through_and_text_is_text",
            "subscribe ids": "overlapping_subscriptions_with_identifiers_run_each_handler_once",
            "request response": "a_request_is_answered_by_another_client",
        },
        "system/test_mosquitto.py": {
            "user properties, expiry": "properties_go_round",
            "retain handling, retain as published": "retain_handling_decides_who_gets_the_retained_message",
        },
        "system/test_broker_features.py": {
            "no local": "no_local_keeps_our_own_messages_away",
            "assigned id": "the_assigned_client_identifier_names_the_session_after_a_break",
        },
    },
    "T03": {
        "system/test_protocol_features.py": {
            "client topic alias": "messages_with_topic_aliases_arrive_under_their_topics"
        },
        "mqtt/test_protocol_receive.py": {"server topic alias": "a_topic_alias_is_set_used_and_set_again"},
        "system/test_broker_features.py": {
            "maximum packet size, server keep alive": "the_limits_of_the_broker_are_kept",
            "flow control": "the_window_of_the_broker_is_never_exceeded",
            "will delay": "a_will_waits_for_its_delay_and_not_at_all_after_a_return",
        },
        "system/test_mosquitto.py": {
            "shared subscriptions": "a_shared_subscription_gives_each_message_to_one_member"
        },
    },
    "H01": {
        "system/test_broker_features.py": {
            "QoS 0-2, wildcard": "the_broker_takes_every_qos_and_wildcard",
            "topic length, payload size": "the_broker_takes_payloads_and_topics_of_many_sizes",
            "topic characters": "the_broker_takes_topics_in_every_language",
            "client id": "the_broker_takes_client_identifiers_of_every_length_and_kind",
        },
        "system/test_fixtures.py": {"connect": "a_broker_accepts_a_connect"},
        "system/test_mosquitto.py": {"shared": "a_shared_subscription_gives_each_message_to_one_member"},
    },
    "X01": {
        "mqtt/test_protocol_connect.py": {
            "1-byte writes": "every_split_in_two_gives_the_events_of_one_piece",
            "two packets in one write": "many_packets_in_one_read_copy_only_their_payloads",
            "any split": "nothing_but_events_comes_out_of_any_bytes_and_splitting_changes_nothing",
        }
    },
    "X02": {
        "mqtt/test_protocol_keep_alive.py": {
            "within 1.5 x keep alive": "a_dead_link_is_noticed_within_one_and_a_half_keep_alive_times"
        },
        "conformance/test_groups.py": {
            "write buffer bounded": "a_half_open_link_is_left_in_time_and_the_output_stays_bounded"
        },
    },
    "X03": {
        "conformance/test_exchanges.py": {
            "each vector": "every_bad_packet_ends_a_live_connection_with_its_reason"
        }
    },
    "X04": {
        "conformance/test_cuts.py": {
            "QoS 1 and QoS 2 out": "what_is_published_survives_a_cut_at_every_packet",
            "QoS 1 and QoS 2 in": "what_is_received_survives_a_cut_at_every_packet",
        }
    },
}

#: Rows of which this client has nothing to show, and why.
NOT_OFFERED = {
    "J18": "A handler cannot choose a reason code: a message that arrived is taken. See MQTT-4.3.3-9."
}


def cases() -> list[tuple[str, str, str, str]]:
    """Return row, case, file below tests/ and test function of every case."""
    return [
        (row, case, path, f"test_{test}")
        for row, files in GROUPS.items()
        for path, found in files.items()
        for case, test in found.items()
    ]
