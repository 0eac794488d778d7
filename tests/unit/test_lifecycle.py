"""The lifecycle, event by event; time and jitter are arguments, so nothing waits."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given, strategies as st

from sshvpn import errors
from sshvpn.lifecycle import (
    BACKOFF_MOST_S,
    STEADY_AFTER_S,
    WOKEN_FOR_S,
    AwaitLogin,
    Connect,
    Connected,
    Disconnect,
    Event,
    Failed,
    Finish,
    GiveUp,
    Gone,
    Life,
    LoginPossible,
    Prompting,
    SetTimer,
    Start,
    Stop,
    TimerFired,
    Wake,
    WatchWay,
    WayOpen,
    backoff_s,
    step,
)
from sshvpn.model import State

LOST = errors.ConnectionLostError("lost")
DENIED = errors.AuthenticationError("denied")


def after(*events: tuple[float, Event]) -> Life:
    life = Life()
    for now, event in events:
        life, _ = step(life, event, now)
    return life


def running() -> Life:
    return after((0, Start()), (1, Connected()))


def test_a_start_connects_and_may_prompt() -> None:
    life, commands = step(Life(), Start(timeout_s=30), 100)
    assert life.phase is State.STARTING
    assert commands == (SetTimer(130), Connect(may_prompt=True))


def test_a_second_start_changes_nothing() -> None:
    life = after((0, Start()))
    assert step(life, Start(), 1) == (life, ())


def test_running_forgets_the_error_the_deadline_and_the_right_to_prompt() -> None:
    life = after((0, Start(30)), (1, Failed(LOST)), (2, TimerFired()), (3, Connected()))
    assert life.phase is State.RUNNING
    assert (life.last_error, life.deadline, life.may_prompt) == (None, None, False)
    assert life.reconnects == 0


def test_a_lost_connection_is_made_again_without_a_prompt() -> None:
    life, commands = step(running(), Failed(LOST), 50)
    assert life.phase is State.BACKOFF
    assert commands == (Disconnect(), SetTimer(50.5), WatchWay())
    assert life.retry_at == 50.5
    life, commands = step(life, TimerFired(), 50.5)
    assert life.phase is State.STARTING
    assert commands == (SetTimer(None), Connect(may_prompt=False))
    life, _ = step(life, Connected(), 51)
    assert life.reconnects == 1


@pytest.mark.parametrize(
    "before",
    [
        running(),
        after((0, Start()), (1, Connected()), (2, Failed(LOST))),
        after((0, Start()), (1, Connected()), (2, Failed(DENIED))),
        after((0, Start())),
    ],
    ids=["running", "backoff", "failed", "starting"],
)
def test_what_is_gone_for_good_is_given_up_in_any_state(before: Life) -> None:
    gone = errors.PrivilegeError("the privileged helper was killed")
    life, commands = step(before, Gone(gone), 3)
    assert life.phase is State.FAILED
    assert life.last_error is gone
    assert commands == (SetTimer(None), GiveUp(gone))


def test_what_is_gone_while_it_is_stopping_changes_nothing() -> None:
    stopping = after((0, Start()), (1, Connected()), (2, Stop()))
    assert step(stopping, Gone(LOST), 3) == (stopping, ())


def test_a_timer_that_fires_early_is_set_again() -> None:
    life, _ = step(running(), Failed(LOST), 50)
    assert step(life, TimerFired(), 50.2) == (life, (SetTimer(50.5),))


def test_retries_go_on_for_ever_and_slow_down_to_a_minute() -> None:
    life, now, waits = running(), 1.0, []
    for _ in range(200):
        life, _ = step(life, Failed(LOST), now)
        assert life.phase is State.BACKOFF
        assert life.retry_at is not None
        waits.append(round(life.retry_at - now, 6))
        now = life.retry_at
        life, _ = step(life, TimerFired(), now)
    assert waits == sorted(waits)
    assert waits[0] < 1
    assert waits[-1] == pytest.approx(BACKOFF_MOST_S)


def test_a_connection_starts_the_backoff_anew() -> None:
    life = running()
    for now in (20, 30, 40):
        life, _ = step(life, Failed(LOST), now)
        life, _ = step(life, TimerFired(), now + 9)
    assert life.attempt == 3
    life, _ = step(life, Connected(), 50)
    life, _ = step(life, Failed(LOST), 51)
    assert life.attempt == 1


def test_connections_that_last_a_moment_only_come_ever_more_slowly() -> None:
    life, attempts = running(), []
    for now in (10, 20, 30, 40):
        life, _ = step(life, Connected(), now)
        life, _ = step(life, Failed(LOST), now + 1)
        attempts.append(life.attempt)
        life, _ = step(life, TimerFired(), now + 9)
    assert attempts == [1, 2, 3, 4]
    life, _ = step(life, Connected(), 50)
    steady, _ = step(life, Failed(LOST), 50 + STEADY_AFTER_S)
    assert steady.attempt == 1
    asked, _ = step(step(life, Failed(LOST), 51)[0], Wake(asked=True), 51)
    again, _ = step(step(asked, Connected(), 52)[0], Failed(LOST), 53)
    assert again.attempt == 1


def test_what_is_lost_by_a_change_of_the_network_is_made_anew_at_once() -> None:
    woken, commands = step(running(), Wake(), 20)
    assert (woken.phase, commands) == (State.RUNNING, ())
    lost, commands = step(woken, Failed(LOST), 21)
    assert lost.retry_at == 21
    assert SetTimer(21) in commands
    again, _ = step(step(lost, TimerFired(), 21)[0], Connected(), 22)
    again, _ = step(again, Failed(LOST), 23)
    assert again.retry_at is not None
    assert again.retry_at > 23, "once: then it is no matter of that"
    failed, _ = step(step(lost, TimerFired(), 21)[0], Failed(LOST), 22)
    assert failed.retry_at is not None
    assert failed.retry_at > 22, "what did not stand waits"
    late, _ = step(woken, Failed(LOST), 20 + WOKEN_FOR_S + 0.1)
    assert late.retry_at is not None
    assert late.retry_at > 20 + WOKEN_FOR_S + 0.1


SILENCE = errors.NoAnswerError("nothing comes through the tunnel any more")


def test_a_link_that_is_cut_every_few_seconds_is_no_server_that_ends_each_connection() -> None:
    life = running()
    for now in range(10, 200, 10):
        life, _ = step(life, Connected(), now)
        life, _ = step(life, Failed(SILENCE), now + 4)
        assert life.attempt == 1
        life, _ = step(life, WayOpen(), now + 5)
    # What fails before it has stood comes ever more slowly all the same.
    life, _ = step(life, Failed(SILENCE), 205)
    life, _ = step(life, TimerFired(), 210)
    life, _ = step(life, Failed(SILENCE), 215)
    assert life.attempt == 3


def test_a_cut_does_not_wait_for_what_a_server_has_ended_before() -> None:
    life = running()
    for now in range(10, 50, 10):  # ssh killed, sshd restarted, a relogin: each within a moment
        life, _ = step(life, Failed(LOST), now + 1)
        life, _ = step(life, Connected(), now + 5)
    cut, _ = step(life, Failed(SILENCE), 50)
    assert cut.attempt == 1
    ended, _ = step(step(cut, Connected(), 52)[0], Failed(LOST), 53)
    assert ended.attempt > 1, "who ends each of them is still not stormed"


def test_who_falls_silent_again_and_again_while_the_way_is_open_is_not_stormed() -> None:
    life, now, logins = running(), 10.0, 0
    while now < 3610:
        life, _ = step(life, Connected(), now)
        life, _ = step(life, Failed(SILENCE), now + 3.5)
        assert life.retry_at is not None
        life, _ = step(life, TimerFired(), life.retry_at)
        assert life.phase is State.STARTING
        now, logins = max(now + 3.5, life.since or 0) + backoff_s(life.attempt, 0) + 1, logins + 1
    assert logins < 80, "an hour"


@pytest.mark.parametrize(
    "error",
    [
        errors.HostKeyChangedError("changed"),
        errors.HostKeyUnknownError("unknown"),
        DENIED,
        errors.ConfigError("bad line"),
        errors.PrivilegeError("no"),
        errors.TakenError("taken"),
    ],
    ids=lambda error: error.code,
)
def test_a_first_start_gives_up_at_once_on_what_only_a_person_can_mend(
    error: errors.SshvpnError,
) -> None:
    life, commands = step(after((0, Start())), Failed(error), 1)
    assert life.phase is State.FAILED
    assert commands == (SetTimer(None), GiveUp(error))


@pytest.mark.parametrize(
    "error", [errors.HostKeyChangedError("changed"), DENIED], ids=lambda error: error.code
)
def test_after_running_what_a_person_must_mend_stays_failed_and_is_told(
    error: errors.SshvpnError,
) -> None:
    life, commands = step(running(), Failed(error), 5)
    assert life.phase is State.FAILED
    assert life.last_error is error
    assert not [command for command in commands if isinstance(command, GiveUp | Connect)]
    assert step(life, LoginPossible(), 6) == (life, ())
    assert step(life, TimerFired(), 6) == (life, ())


@pytest.mark.parametrize(
    "error", [errors.TakenError("taken"), errors.TunnelFailedError("nft: busy")]
)
def test_what_stood_may_stand_again(error: errors.SshvpnError) -> None:
    life, _ = step(running(), Failed(error), 5)
    assert life.phase is State.BACKOFF
    _, commands = step(after((0, Start())), Failed(error), 1)
    assert commands[-1] == GiveUp(error)


def test_a_login_that_is_wanted_waits_for_a_person_and_no_timer() -> None:
    wanted = errors.LoginNeededError("password")
    life, commands = step(running(), Failed(wanted), 5)
    assert life.phase is State.BACKOFF
    assert life.retry_at is None
    assert commands == (Disconnect(), SetTimer(None), AwaitLogin())
    assert step(life, Wake(), 6) == (life, ())
    life, commands = step(life, Wake(login=True), 7)
    assert commands[-1] == Connect(may_prompt=True)


def test_an_agent_that_is_back_ends_the_wait_for_a_login_and_nobody_is_asked() -> None:
    life, _ = step(running(), Failed(errors.LoginNeededError("agent")), 5)
    life, commands = step(life, LoginPossible(), 7)
    assert life.phase is State.STARTING
    assert commands[-1] == Connect(may_prompt=False)
    assert step(life, LoginPossible(), 8) == (life, ())


def test_what_has_failed_is_tried_again_when_somebody_asks() -> None:
    life, _ = step(running(), Failed(DENIED), 5)
    assert life.phase is State.FAILED
    assert step(life, Wake(), 6) == (life, ())
    assert step(life, Wake(asked=True), 6)[1][-1] == Connect(may_prompt=False)
    assert step(life, Wake(login=True), 6)[1][-1] == Connect(may_prompt=True)


def test_a_login_that_nobody_can_give_ends_a_first_start() -> None:
    wanted = errors.LoginNeededError("password")
    _, commands = step(after((0, Start())), Failed(wanted), 1)
    assert commands[-1] == GiveUp(wanted)


def test_a_wake_ends_the_wait_and_the_backoff() -> None:
    life, _ = step(running(), Failed(LOST), 5)
    life, commands = step(life, Wake(), 5.1)
    assert life.phase is State.STARTING
    assert life.attempt == 0
    assert commands[-1] == Connect(may_prompt=False)


def test_a_wake_while_running_is_noted_and_does_nothing() -> None:
    life = running()
    assert step(life, Wake(), 5) == (replace(life, woken_at=5), ())


def test_a_way_that_is_open_again_ends_the_wait_but_not_the_backoff() -> None:
    life = running()
    for now in (10, 20, 30):
        life, _ = step(life, Failed(LOST), now)
        life, _ = step(life, TimerFired(), now + 9)
    life, _ = step(life, Failed(LOST), 40)
    life, commands = step(life, WayOpen(), 40.2)
    assert life.phase is State.STARTING
    assert life.attempt == 4
    assert commands[-1] == Connect(may_prompt=False)


def test_an_attempt_that_began_in_the_silence_is_begun_anew() -> None:
    life, _ = step(running(), Failed(LOST), 5)
    life, _ = step(life, TimerFired(), 5.5)
    again, commands = step(life, WayOpen(), 9)
    assert again == life
    assert commands == (Disconnect(), Connect(may_prompt=False))


def test_an_attempt_that_hangs_is_begun_anew_when_a_person_asks() -> None:
    hangs = after((0, Start()))
    assert step(hangs, Wake(asked=True), 9) == (hangs, (Disconnect(), Connect(may_prompt=True)))
    life, _ = step(running(), Failed(LOST), 5)
    life, _ = step(life, TimerFired(), 5.5)
    assert step(life, Wake(asked=True), 9) == (life, (Disconnect(), Connect(may_prompt=False)))
    for other in (Wake(), Wake(login=True), Wake(login=True, asked=True)):
        assert step(life, other, 9) == (life, ())


@pytest.mark.parametrize("event", [WayOpen(), Wake(asked=True)])
def test_an_attempt_that_asks_somebody_has_found_its_way(event: Event) -> None:
    life = after((0, Start()), (1, Failed(LOST)), (2, TimerFired()), (3, Prompting(waiting=True)))
    assert step(life, event, 4) == (life, ())


@pytest.mark.parametrize("error", [errors.LoginNeededError("x"), DENIED], ids=lambda e: e.code)
def test_an_open_way_is_no_remedy_for_what_a_person_must_mend(error: errors.SshvpnError) -> None:
    life, commands = step(running(), Failed(error), 5)
    assert WatchWay() not in commands
    assert step(life, WayOpen(), 6) == (life, ())


def test_a_first_start_ends_with_the_last_error_when_its_time_is_over() -> None:
    life = after((0, Start(10)), (1, Failed(LOST)), (2, TimerFired()))
    life, commands = step(life, TimerFired(), 10)
    assert life.phase is State.FAILED
    assert commands[-1] == GiveUp(LOST)


def test_a_first_start_that_hears_nothing_ends_as_unreachable() -> None:
    _, commands = step(after((0, Start(10))), TimerFired(), 10)
    give_up = commands[-1]
    assert isinstance(give_up, GiveUp)
    assert give_up.error.exit_code == 6


def test_no_retry_is_waited_for_that_would_come_too_late() -> None:
    life = after((0, Start(1)))
    _, commands = step(life, Failed(LOST), 0.9)
    assert commands[-1] == GiveUp(LOST)


def test_the_time_that_a_prompt_is_open_does_not_count() -> None:
    life = after((0, Start(10)), (4, Prompting(waiting=True)))
    assert step(life, TimerFired(), 100) == (life, ())
    life, commands = step(life, Prompting(waiting=False), 104)
    assert life.deadline == 110
    assert commands == (SetTimer(110),)


def test_a_prompt_that_ends_with_the_attempt_gives_its_time_back() -> None:
    life = after((0, Start(10)), (4, Prompting(waiting=True)))
    life, _ = step(life, Failed(LOST), 104)
    assert life.phase is State.BACKOFF
    assert life.deadline == 110


def test_a_prompt_of_an_attempt_that_has_ended_does_not_stop_the_next_one() -> None:
    life = after((0, Start()), (1, Failed(LOST)))
    assert step(life, Prompting(waiting=True), 1) == (life, ())
    assert step(life, Prompting(waiting=False), 1) == (life, ())


def test_stop_ends_it_from_every_state() -> None:
    for life in (after((0, Start())), running(), step(running(), Failed(LOST), 5)[0]):
        stopped, commands = step(life, Stop(), 9)
        assert stopped.phase is State.STOPPING
        assert commands == (SetTimer(None), Finish())
        assert step(stopped, Connected(), 10) == (stopped, ())
        assert step(stopped, Stop(), 10) == (stopped, ())


@given(attempt=st.integers(1, 10_000), jitter=st.floats(0, 1, exclude_max=True))
def test_a_wait_is_never_nothing_and_never_more_than_a_minute(attempt: int, jitter: float) -> None:
    assert 0.3 < backoff_s(attempt, jitter) <= BACKOFF_MOST_S


EVENTS = st.one_of(
    st.builds(Start, st.one_of(st.none(), st.floats(0.1, 100))),
    st.just(Connected()),
    st.sampled_from([LOST, DENIED, errors.LoginNeededError("x"), errors.TakenError("x")]).map(
        Failed
    ),
    st.just(TimerFired()),
    st.builds(Wake, st.booleans(), st.booleans()),
    st.just(WayOpen()),
    st.just(Gone(DENIED)),
    st.just(LoginPossible()),
    st.builds(Prompting, st.booleans()),
    st.just(Stop()),
)


@given(st.lists(st.tuples(st.floats(0, 10), EVENTS), max_size=40))
def test_no_order_of_events_prompts_twice_or_moves_a_stopped_life(
    story: list[tuple[float, Event]],
) -> None:
    life, now = Life(), 0.0
    for wait, event in story:
        now += wait
        before = life
        life, commands = step(life, event, now, 0.5)
        if before.phase is State.STOPPING:
            assert (life, commands) == (before, ())
        asked = [c for c in commands if isinstance(c, Connect) and c.may_prompt]
        if asked and before.has_run:
            # Only somebody who came back to log in makes a reconnect ask.
            assert before.may_prompt or (isinstance(event, Wake) and event.login)
        if life.phase is State.BACKOFF and life.retry_at is not None:
            assert life.retry_at > now or event == TimerFired() or before == life
