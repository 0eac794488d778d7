"""What is said of our host names, and what the words of others mean (RFC 6762)."""

from __future__ import annotations

import ipaddress
from collections.abc import Sequence

import pytest
from hypothesis import given, strategies as st
from zeroconf import DNSAddress, DNSIncoming, DNSOutgoing, DNSQuestion

from sshvpn.lan.host_names import TTL_S, HostNames, Verdict

NAME = "gpu-box.local."
OURS = ("192.168.77.1", "fd77::1")
A, AAAA, NSEC, ANY = 1, 28, 47, 255
RESPONSE = 0x8400


def host(*addresses: str, ours: Sequence[str] = ()) -> HostNames:
    """Return gpu-box.local at ADDRESSES, or at its usual ones."""
    own = addresses or OURS
    return HostNames({NAME: own}, frozenset({*own, *ours}))


def record(address: str, name: str = NAME, ttl: int = TTL_S) -> DNSAddress:
    packed = ipaddress.ip_address(address).packed
    return DNSAddress(name, AAAA if ":" in address else A, 0x8001, ttl, packed)


def response(*records: DNSAddress) -> DNSIncoming:
    """Return what another says."""
    out = DNSOutgoing(RESPONSE)
    for one in records:
        out.add_answer_at_time(one, 0)
    return received(out.packets())


def question(kind: int, name: str = NAME, known: Sequence[DNSAddress] = ()) -> DNSIncoming:
    out = DNSOutgoing(0)
    out.add_question(DNSQuestion(name, kind, 1))
    for one in known:
        out.add_answer_at_time(one, 0)
    return received(out.packets())


def received(packets: list[bytes]) -> DNSIncoming:
    (packet,) = packets
    return DNSIncoming(packet)


def addresses(packets: list[bytes]) -> dict[str, int]:
    """Return the addresses that PACKETS tell, with how long each holds."""
    return {
        str(ipaddress.ip_address(one.address)): one.ttl
        for packet in packets
        for one in DNSIncoming(packet).answers()
        if isinstance(one, DNSAddress)
    }


def judge(packet: DNSIncoming, *, is_claimed: bool = True) -> Verdict:
    return host().judge(packet, is_claimed=is_claimed)


# -- what we say -------------------------------------------------------------------------------


def test_a_probe_asks_for_anything_and_proposes_what_is_to_be_said() -> None:
    probe = received(host().probe())
    assert probe.is_probe()
    assert [(q.name, q.type) for q in probe.questions] == [(NAME, ANY)]
    assert probe.num_authorities == 2
    assert not any(one.unique for one in probe.answers()), "no cache is to be flushed by it"


def test_an_announcement_flushes_what_others_remember_and_a_goodbye_ends_it() -> None:
    said = received(host().announcement())
    assert all(one.unique for one in said.answers())
    assert addresses(host().announcement()) == dict.fromkeys(OURS, TTL_S)
    assert addresses(host().announcement(goodbye=True)) == dict.fromkeys(OURS, 0)


@pytest.mark.parametrize(
    ("kind", "told"), [(A, OURS[:1]), (AAAA, OURS[1:]), (ANY, OURS), (NSEC, ()), (16, ())]
)
def test_a_question_is_answered_with_what_it_asks_for(kind: int, told: tuple[str, ...]) -> None:
    answer = host().answer(question(kind, NAME.upper()), is_legacy=False)
    assert tuple(addresses(answer)) == told


def test_what_is_known_is_not_said_again_and_what_is_anothers_not_at_all() -> None:
    known = [record(OURS[0])]
    assert host().answer(question(A, known=known), is_legacy=False) == []
    assert host().answer(question(A, known=[record(OURS[0], ttl=20)]), is_legacy=False) != []
    assert host().answer(question(A, "other.local."), is_legacy=False) == []


def test_that_there_is_no_address_of_a_family_is_said() -> None:
    (packet,) = host("192.168.77.1").answer(question(AAAA), is_legacy=False)
    assert [one.type for one in DNSIncoming(packet).answers()] == [NSEC]


def test_who_knows_plain_dns_only_gets_its_question_back_and_a_short_life() -> None:
    out = DNSOutgoing(0, multicast=False, id_=77)
    out.add_question(DNSQuestion(NAME, A, 1))
    answer = received(host().answer(received(out.packets()), is_legacy=True))
    assert answer.id == 77
    assert [q.name for q in answer.questions] == [NAME]
    assert [one.ttl for one in answer.answers()] == [10]
    assert not answer.answers()[0].unique


# -- what others say ---------------------------------------------------------------------------


@pytest.mark.parametrize("is_claimed", [True, False])
def test_another_address_for_our_name_is_a_conflict(*, is_claimed: bool) -> None:
    said = response(record("192.168.77.10", NAME.upper()))
    assert judge(said, is_claimed=is_claimed) is Verdict.CONFLICT


def test_our_own_words_and_those_of_our_other_adapter_are_none() -> None:
    both = host(ours=["192.168.77.2"])
    for address in (*OURS, "192.168.77.2"):
        assert both.judge(response(record(address)), is_claimed=True) is Verdict.NOTHING
        assert both.judge(response(record(address)), is_claimed=False) is Verdict.NOTHING
    assert both.judge(received(both.probe()), is_claimed=False) is Verdict.NOTHING


def test_a_goodbye_of_another_is_none_and_one_for_our_address_is_contradicted() -> None:
    assert judge(response(record("192.168.77.10", ttl=0))) is Verdict.NOTHING
    assert judge(response(record(OURS[0], ttl=0))) is Verdict.DEFEND
    assert judge(response(record(OURS[0], ttl=0)), is_claimed=False) is Verdict.NOTHING


def test_a_probe_for_our_name_is_answered() -> None:
    probe = received(host("192.168.77.10").probe())
    assert judge(probe) is Verdict.DEFEND
    assert tuple(addresses(host().answer(probe, is_legacy=False))) == OURS


def test_of_two_who_probe_at_once_the_later_record_goes_first() -> None:
    low, high = host("192.168.77.1"), host("192.168.77.10")
    assert low.judge(received(high.probe()), is_claimed=False) is Verdict.WAIT
    assert high.judge(received(low.probe()), is_claimed=False) is Verdict.NOTHING


def test_who_has_more_to_say_goes_first() -> None:
    one, two = host("192.168.77.1", ours=["fd77::1"]), host("192.168.77.1", "fd77::2")
    assert one.judge(received(two.probe()), is_claimed=False) is Verdict.WAIT
    assert two.judge(received(one.probe()), is_claimed=False) is Verdict.NOTHING


def test_names_of_others_are_nothing_to_us() -> None:
    assert judge(response(record("192.168.77.10", "gpu-box-2.local."))) is Verdict.NOTHING
    assert judge(question(A, "gpu-box-2.local.")) is Verdict.NOTHING


@given(st.binary(max_size=200))
def test_no_packet_of_a_stranger_is_more_than_nothing(packet: bytes) -> None:
    heard = DNSIncoming(packet)
    if heard.valid:
        assert judge(heard) in Verdict
        host().answer(heard, is_legacy=True)


def test_what_is_asked_for_many_times_is_told_once() -> None:
    out = DNSOutgoing(0)
    for _ in range(300):
        for kind in (A, AAAA, ANY, NSEC):
            out.add_question(DNSQuestion(NAME, kind, 1))
    (asked,) = (DNSIncoming(packet) for packet in out.packets()[:1])
    for is_legacy in (False, True):
        (answer,) = host().answer(asked, is_legacy=is_legacy)
        assert len(answer) < 300
        assert addresses([answer]).keys() == set(OURS)
