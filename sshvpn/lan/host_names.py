"""Host names of ours on one adapter: what is said of them, and whether others say otherwise.

RFC 6762: probing (8.1), two who probe at once (8.2), announcing (8.3), conflicts (9), goodbye
(10.1). python-zeroconf does this for the names of services, not for those of hosts; its wire
format is used. No sockets and no clock here: packets in, packets out.
"""

from __future__ import annotations

import socket
from collections.abc import Iterator, Mapping
from enum import Enum

from zeroconf import DNSAddress, DNSIncoming, DNSNsec, DNSOutgoing, DNSQuestion, DNSRecord

TTL_S = 120
"""RFC 6762, section 10: of records that have to do with a host's name or address."""
_A, _AAAA, _NSEC, _ANY = 1, 28, 47, 255
_IN = 1
_FLUSH = 0x8000
"""RFC 6762, section 10.2: these are all records of this name and type."""
_QUERY = 0
_RESPONSE = 0x8400
"""An answer, and an authoritative one (RFC 1035, 4.1.1)."""
_LEGACY_TTL_S = 10
"""Section 6.7: what one who asks from another port (dig, say) may keep."""


class Verdict(Enum):
    """What a packet means for our names."""

    NOTHING = "nothing"
    CONFLICT = "conflict"
    """Somebody else has one of them, and says something else of it."""
    WAIT = "wait"
    """Somebody else is probing for one of them too, and goes first (section 8.2)."""
    DEFEND = "defend"
    """One is asked for, probed for, or was said good-bye to: say it again."""


class HostNames:
    """Our names on one adapter, ``{name: addresses}``; a name ends in ``.local.``.

    ``ours`` are all addresses of this machine that it may be heard under: two adapters in one
    network hear each other, and that is no conflict.
    """

    def __init__(self, names: Mapping[str, tuple[str, ...]], ours: frozenset[str]) -> None:
        self._records = {
            name.lower(): [_record(name, address) for address in addresses]
            for name, addresses in names.items()
        }
        self._ours = {_packed(address) for address in ours}

    def probe(self) -> list[bytes]:
        """Return the packets that ask whether anybody has the names (section 8.1).

        They want the answer sent to all: of those who share the port of this machine, an answer
        to one reaches any.
        """
        out = DNSOutgoing(_QUERY)
        for records in self._records.values():
            out.add_question(DNSQuestion(records[0].name, _ANY, _IN))
            for record in records:
                # Section 8.1: here the records are without the bit that flushes caches.
                plain = DNSAddress(record.name, record.type, _IN, TTL_S, record.address)
                out.authorities.append(plain)  # type: ignore[arg-type]  # it takes any record
        return out.packets()

    def announcement(self, *, goodbye: bool = False) -> list[bytes]:
        """Return the packets that tell all (section 8.3), or that they hold no more (10.1)."""
        out = DNSOutgoing(_RESPONSE)
        for records in self._records.values():
            for record in records:
                out.add_answer_at_time(_with_ttl(record, 0 if goodbye else TTL_S), 0)
            if not goodbye:
                out.add_additional_answer(_nsec(records))
        return out.packets()

    def answer(self, question: DNSIncoming, *, is_legacy: bool) -> list[bytes]:
        """Return the answer to what ``question`` asks of our names, nothing: it asks nothing.

        ``is_legacy``: who asks knows plain DNS only (section 6.7).
        """
        # A packet may ask for the same a thousand times, and is told once.
        questions = {(q.name.lower(), q.type): q for q in question.questions}
        asked = [q for (name, _), q in questions.items() if name in self._records]
        if not asked:
            return []
        known = {(r.name.lower(), _rdata(r)) for r in question.answers() if r.ttl > TTL_S // 2}
        out = DNSOutgoing(
            _RESPONSE,
            multicast=not is_legacy,
            id_=question.id if is_legacy else 0,
        )
        told: set[tuple[str, tuple[int, bytes]]] = set()
        for wanted in asked:
            if is_legacy:
                out.add_question(wanted)
            for record in self._answers(wanted):
                which = (record.name.lower(), _rdata(record))
                if which not in known and which not in told:
                    ttl = _LEGACY_TTL_S if is_legacy else TTL_S
                    out.add_answer_at_time(_with_ttl(record, ttl), 0)
                    told.add(which)
        return out.packets() if told else []

    def _answers(self, question: DNSQuestion) -> Iterator[DNSRecord]:
        records = self._records[question.name.lower()]
        found = [r for r in records if question.type in (r.type, _ANY)]
        yield from found
        if not found and question.type in (_A, _AAAA):
            yield _nsec(records)  # section 6.1: there is none, so nobody need wait

    def judge(self, packet: DNSIncoming, *, is_claimed: bool) -> Verdict:
        """Return what ``packet`` means. ``is_claimed``: the probes are over, the names ours."""
        verdict = Verdict.NOTHING
        if packet.is_query():
            asked = {q.name.lower() for q in packet.questions} & set(self._records)
            if not asked:
                return verdict
            if is_claimed:
                return Verdict.DEFEND
            return Verdict.WAIT if any(self._goes_first(packet, n) for n in asked) else verdict
        for record in packet.answers():
            if not isinstance(record, DNSAddress) or record.name.lower() not in self._records:
                continue
            if record.address not in self._ours:
                if record.ttl:
                    return Verdict.CONFLICT
            elif is_claimed and record.ttl < TTL_S // 2 and self._says(record):
                verdict = Verdict.DEFEND  # section 6.6
        return verdict

    def _says(self, other: DNSAddress) -> bool:
        return any(_rdata(r) == _rdata(other) for r in self._records[other.name.lower()])

    def _goes_first(self, probe: DNSIncoming, name: str) -> bool:
        """Whether who sends ``probe`` wins over us (section 8.2): the later record does."""
        theirs = sorted(_rdata(r) for r in probe.answers() if r.name.lower() == name)
        if not theirs or all(rdata[1] in self._ours for rdata in theirs):
            return False  # a question, or a probe of our own
        return theirs > sorted(_rdata(record) for record in self._records[name])


def _record(name: str, address: str) -> DNSAddress:
    kind = _AAAA if ":" in address else _A
    return DNSAddress(name, kind, _IN | _FLUSH, TTL_S, _packed(address))


def _with_ttl(record: DNSRecord, ttl: int) -> DNSRecord:
    if isinstance(record, DNSAddress):
        flush = _FLUSH if ttl != _LEGACY_TTL_S else 0  # section 6.7
        return DNSAddress(record.name, record.type, _IN | flush, ttl, record.address)
    return record


def _nsec(records: list[DNSAddress]) -> DNSNsec:
    name = records[0].name
    kinds = sorted({record.type for record in records})
    return DNSNsec(name, _NSEC, _IN | _FLUSH, TTL_S, name, kinds)


def _rdata(record: DNSRecord) -> tuple[int, bytes]:
    return record.type, record.address if isinstance(record, DNSAddress) else b""


def _packed(address: str) -> bytes:
    return socket.inet_pton(socket.AF_INET6 if ":" in address else socket.AF_INET, address)
