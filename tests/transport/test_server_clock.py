"""What a server's `Date` headers say of its clock: never a time that the server has not reached yet."""

from __future__ import annotations

from dataclasses import dataclass

from hypothesis import example, given
from hypothesis import strategies as st

from transport.server_clock import GOOD_ENOUGH_NS, ServerClock

SECOND_NS = 1_000_000_000

#: No two clocks of healthy machines drift apart faster than this.
WORST_DRIFT = 100e-6

#: Round trips of up to half a second, half of which may be on either side.
LATENCIES_NS = st.integers(0, SECOND_NS // 4)

DRIFTS = st.floats(-WORST_DRIFT, WORST_DRIFT)

OFFSETS_NS = st.integers(-(10**18), 10**18)

#: By how much a clock is set; less may pass for what a single answer leaves open.
SET_BY_NS = st.integers(3 * SECOND_NS, 10**13) | st.integers(-(10**13), -3 * SECOND_NS)


@dataclass
class Server:
    """A server whose clock is ahead of our monotonic one by `offset_ns` at 0, and drifts."""

    offset_ns: int
    drift: float = 0.0

    def time_ns(self, monotonic_ns: int) -> int:
        return self.offset_ns + monotonic_ns + round(monotonic_ns * self.drift)

    def answer(self, clock: ServerClock, sent_ns: int, there_ns: int, back_ns: int) -> int:
        """Let the clock ask once; return when it has the answer."""
        date_s = self.time_ns(sent_ns + there_ns) // SECOND_NS
        received_ns = sent_ns + there_ns + back_ns
        clock.observe(date_s, sent_ns=sent_ns, received_ns=received_ns)
        return received_ns


def told(clock: ServerClock, at_ns: int) -> int:
    """Return the time that the clock tells, which must be known."""
    told_ns = clock.now_ns(at_ns)
    assert told_ns is not None
    return told_ns


@given(
    OFFSETS_NS,
    DRIFTS,
    st.lists(st.tuples(st.integers(0, 100 * SECOND_NS), LATENCIES_NS, LATENCIES_NS, st.booleans()), min_size=1, max_size=20),
    st.integers(0, 100 * SECOND_NS),
)
def test_the_time_is_never_ahead_of_the_servers(
    offset_ns: int, drift: float, questions: list[tuple[int, int, int, bool]], later_ns: int
) -> None:
    server, clock = Server(offset_ns, drift), ServerClock()
    now_ns = 0
    for gap_ns, there_ns, back_ns, is_well_timed in questions:
        asked_ns = clock.next_request_ns(now_ns) if is_well_timed else None
        now_ns = server.answer(clock, now_ns + gap_ns if asked_ns is None else asked_ns, there_ns, back_ns)

        for moment_ns in (now_ns, now_ns + 1, now_ns + later_ns):
            told_ns = told(clock, moment_ns)
            assert told_ns <= server.time_ns(moment_ns)


@given(OFFSETS_NS, st.integers(0, SECOND_NS), st.integers(0, 1000 * SECOND_NS))
def test_a_server_whose_clock_runs_slow_is_not_overtaken_while_it_is_not_asked(
    offset_ns: int, start_ns: int, later_ns: int
) -> None:
    server, clock = Server(offset_ns, -WORST_DRIFT), ServerClock()
    now_ns = start_ns
    for _ in range(8):
        now_ns = server.answer(clock, clock.next_request_ns(now_ns) or now_ns, 0, 0)

    told_ns = told(clock, now_ns + later_ns)
    assert told_ns <= server.time_ns(now_ns + later_ns)


@given(OFFSETS_NS, st.lists(st.tuples(st.integers(0, 5 * SECOND_NS), LATENCIES_NS, LATENCIES_NS), min_size=1, max_size=20))
@example(0, [(SECOND_NS, 0, 0), (950_000_000, 0, 200_000_000)])  # asked just before the clock ticks over, answered just after
def test_nothing_that_was_learned_is_forgotten_while_no_clock_is_set(
    offset_ns: int, questions: list[tuple[int, int, int]]
) -> None:
    server, clock = Server(offset_ns), ServerClock()
    now_ns = 0
    doubt_ns = 10**20
    for gap_ns, there_ns, back_ns in questions:
        asked_ns = now_ns + gap_ns

        now_ns = server.answer(clock, asked_ns, there_ns, back_ns)

        told_ns = told(clock, now_ns)
        drift_ns = (gap_ns + there_ns + back_ns) * WORST_DRIFT + 1
        assert server.time_ns(now_ns) - told_ns <= doubt_ns + drift_ns
        doubt_ns = server.time_ns(now_ns) - told_ns


@given(OFFSETS_NS, st.integers(0, SECOND_NS), LATENCIES_NS, LATENCIES_NS)
def test_eight_well_timed_questions_tell_the_time_to_20_ms_and_two_round_trips(
    offset_ns: int, start_ns: int, there_ns: int, back_ns: int
) -> None:
    server, clock = Server(offset_ns), ServerClock()
    now_ns = start_ns

    for _ in range(8):
        question_ns = clock.next_request_ns(now_ns)
        if question_ns is None:
            break
        now_ns = server.answer(clock, question_ns, there_ns, back_ns)

    told_ns = told(clock, now_ns)
    # Eight questions take up to ten seconds, in which clocks may drift by a millisecond. When the whole round trip is on one side,
    # halving ends at twice of it.
    drift_ns = round(10 * SECOND_NS * WORST_DRIFT)
    assert server.time_ns(now_ns) - told_ns <= GOOD_ENOUGH_NS + 2 * (there_ns + back_ns) + drift_ns


@given(OFFSETS_NS, st.integers(0, 100 * SECOND_NS), LATENCIES_NS, LATENCIES_NS)
def test_one_answer_tells_the_time_to_a_second_and_the_round_trip(
    offset_ns: int, sent_ns: int, there_ns: int, back_ns: int
) -> None:
    server, clock = Server(offset_ns), ServerClock()

    now_ns = server.answer(clock, sent_ns, there_ns, back_ns)

    told_ns = told(clock, now_ns)
    assert server.time_ns(now_ns) - told_ns <= SECOND_NS + there_ns + back_ns


@given(OFFSETS_NS, SET_BY_NS, st.integers(0, 30 * SECOND_NS), LATENCIES_NS, LATENCIES_NS)
def test_a_server_clock_that_was_set_is_noticed_at_the_next_question(
    offset_ns: int, set_by_ns: int, gap_ns: int, there_ns: int, back_ns: int
) -> None:
    clock = ServerClock()
    now_ns = 0
    for _ in range(8):
        now_ns = Server(offset_ns).answer(clock, clock.next_request_ns(now_ns) or now_ns, there_ns, back_ns)
    server = Server(offset_ns + set_by_ns)

    now_ns = server.answer(clock, now_ns + gap_ns, there_ns, back_ns)

    told_ns = told(clock, now_ns)
    assert 0 <= server.time_ns(now_ns) - told_ns <= SECOND_NS + there_ns + back_ns


def test_before_the_first_answer_nothing_is_known_and_the_question_is_due() -> None:
    clock = ServerClock()

    assert clock.now_ns(7) is None
    assert clock.next_request_ns(7) == 7


@given(OFFSETS_NS, st.integers(0, 10 * SECOND_NS))
def test_the_next_question_is_never_more_than_a_second_away_nor_in_the_past(offset_ns: int, now_ns: int) -> None:
    clock = ServerClock()
    Server(offset_ns).answer(clock, now_ns, 0, 0)

    question_ns = clock.next_request_ns(now_ns)

    assert question_ns is not None
    assert now_ns <= question_ns < now_ns + SECOND_NS
