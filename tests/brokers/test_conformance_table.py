"""The table of conformance in docs/brokers.md names requirements and tests that exist, each requirement once, leaves no
requirement for a server and no test out, and has a break for each row (conformance_breaks.txt)."""

from __future__ import annotations

import ast

from conformance_breaks import HERE, HOMES, ROOT, breaks, parts, rows

EXIST = {
    "5": "1.5.4:3 1.5.5:1 1.5.7:1 2.1.3:1 2.2.1:6 2.2.2:1 3.1.0:2 3.1.2:30 3.1.3:12 3.1.4:6 3.2.0:2 3.2.2:22 3.3.1:13 "
    "3.3.2:20 3.3.4:10 3.4.2:3 3.5.2:3 3.6.1:1 3.6.2:3 3.7.2:3 3.8.1:1 3.8.3:5 3.8.4:8 3.9.2:2 3.9.3:2 3.10.1:1 "
    "3.10.3:2 3.10.4:6 3.11.2:2 3.11.3:2 3.12.4:1 3.14.0:1 3.14.1:1 3.14.2:4 3.14.4:3 3.15.1:1 3.15.2:3 4.1.0:2 4.2:1 "
    "4.3.1:1 4.3.2:5 4.3.3:13 4.4.0:2 4.5.0:2 4.6.0:6 4.7.0:1 4.7.1:2 4.7.2:1 4.7.3:4 4.8.2:6 4.9.0:3 4.12.0:7 "
    "4.12.1:2 4.13.1:1 4.13.2:1 6.0.0:4",
    "3.1.1": "1.5.3:3 2.2.2:2 2.3.1:7 3.1.0:2 3.1.2:24 3.1.3:11 3.1.4:5 3.2.0:1 3.2.2:6 3.3.1:12 3.3.2:3 3.3.4:1 "
    "3.3.5:2 3.6.1:1 3.8.1:1 3.8.3:4 3.8.4:6 3.9.3:2 3.10.1:1 3.10.3:2 3.10.4:6 3.12.4:1 3.14.1:1 3.14.4:3 4.1.0:2 "
    "4.2.0:1 4.3.1:1 4.3.2:2 4.3.3:2 4.4.0:1 4.5.0:2 4.6.0:6 4.7.1:3 4.7.2:1 4.7.3:4 4.8.0:2 6.0.0:4",
}
"""The sections that have normative statements, and how many."""
CLIENTS = {
    "5": "3.1.2-20 3.1.2-21 3.1.2-30 3.2.2-4 3.2.2-5 3.2.2-11 3.2.2-14 3.2.2-18 3.3.2-10 3.3.4-8 4.5.0-2 4.6.0-2 "
    "4.6.0-3 4.6.0-4 4.12.0-3 4.12.1-1",
    "3.1.1": "2.3.1-2 2.3.1-3 3.1.2-23 4.5.0-2",
}
"""What binds clients, and a server neither checks nor carries out."""
NOTHING_TO_DO = {
    "5": "2.2.1-1 3.1.3-8 3.15.2-1 3.15.2-2 3.15.2-3 4.12.0-2 4.12.0-5 4.12.1-2",
    "3.1.1": "",
}
"""2.2.1-1 does not exist. No client id is refused for its form, and no AUTH is ever sent."""
OF_OURS = {
    # What no requirement demands: quotas, and what follows from them.
    "test_a_version_that_is_not_offered_is_refused",
    "test_who_says_nothing_after_connecting_is_ended",
    "test_a_disconnect_may_change_the_expiry_but_not_from_nothing",
    "test_a_will_can_be_asked_for",
    "test_a_retained_message_expires",
    "test_a_disconnect_must_be_well_formed",
    "test_a_shared_subscription_gets_no_retained_messages",
    "test_a_member_that_is_away_gets_its_share_where_nobody_else_is_there",
    "test_who_reads_nothing_is_ended_and_costs_the_others_nothing",
    "test_one_message_alone_is_never_too_much",
    "test_a_client_that_is_away_too_long_loses_its_session_loudly",
    "test_too_much_to_retain_is_refused",
    "test_a_large_packet_byte_by_byte_costs_its_own_size",
    "test_mutated_packets_end_their_client_or_mean_something",
}


def functions_in(name: str) -> set[str]:
    return {
        node.name
        for node in ast.parse((HERE / name).read_text()).body
        if isinstance(node, ast.FunctionDef) and node.name.startswith("test_")
    }


def numbers_of(sections: str) -> set[str]:
    counted = [section.split(":") for section in sections.split()]
    return {f"{section}-{number}" for section, count in counted for number in range(1, int(count) + 1)}


def test_each_requirement_has_a_test_and_each_test_a_requirement() -> None:
    every = rows()
    for version, part in parts().items():
        numbers = [row.number for row in every if row.version == version]
        assert len(numbers) == part.count("[MQTT-"), "a row that is not read"
        assert sorted({number for number in numbers if numbers.count(number) > 1}) == []
        left_out = set(f"{CLIENTS[version]} {NOTHING_TO_DO[version]}".split())
        assert set(numbers) ^ numbers_of(EXIST[version]) == left_out, "no such requirement, or one without its row"
    named = {row.test for row in every}
    assert named - set().union(*map(functions_in, HOMES)) == set(), "tests that do not exist"
    assert functions_in("test_conformance.py") - named == OF_OURS


def test_each_requirement_has_one_break_and_each_break_its_place() -> None:
    broken = [(version, number) for each in breaks() for version in each.rows for number in each.rows[version]]
    assert sorted(broken) == sorted((row.version, row.number) for row in rows())
    for each in breaks():
        assert (ROOT / each.path).read_text().count(each.text) == 1, each.name
        assert each.text != each.instead, each.name
