"""The life of a session, pure: (state, event, now) -> (state, commands).

::

    stopped ──START──> starting ──CONNECTED──> running ──LOST──> backoff ──timer, WAKE──> starting
                         │  ▲ timer              │                  └── the way is open ──> starting
                         │  └── retry ── backoff │
                         │ permanent error       │ permanent error
                         └────────> failed <─────┘          any ──STOP──> stopping ──> stopped
                                      └──WAKE, asked for──> starting

The first start is bounded by the profile's timeout (prompts not counted), and gives up with the
last error's exit code; after the first ``running`` nothing is given up that time can mend. What
is gone for good is given up in any state.
While it waits for the network, the way to the server is watched: when that answers again, the
wait is over, and an attempt that began in the silence is begun anew. Reconnects never prompt.
No I/O, no clock, no randomness: time and jitter are arguments.
"""

from __future__ import annotations

from dataclasses import replace

from sshvpn.errors import NoAnswerError, Retry, SshvpnError, UnreachableError
from sshvpn.frozen import dataclass
from sshvpn.model import State

BACKOFF_FIRST_S = 0.5
BACKOFF_MOST_S = 60.0
BACKOFF_FACTOR = 1.7
STEADY_AFTER_S = 10.0
"""A connection that stood this long starts the backoff anew when it is lost."""
SILENCES = 5
"""So many connections in a row may fall silent within that time; then each waits longer."""
WOKEN_FOR_S = 5.0
"""What is lost so soon after the network changed, or the machine woke up, is lost by that."""


# Events ------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Start:
    """Begin. ``timeout_s`` bounds the first start; None: no bound."""

    timeout_s: float | None = None


@dataclass(frozen=True, slots=True)
class Connected:
    """The connection stands and everything asked for works."""


@dataclass(frozen=True, slots=True)
class Failed:
    """The connection could not be made, or it stood and was lost: ``error`` says why."""

    error: SshvpnError


@dataclass(frozen=True, slots=True)
class Gone:
    """What was kept up can be kept up by nobody any more: ``error`` says why."""

    error: SshvpnError


@dataclass(frozen=True, slots=True)
class TimerFired:
    """The time of the last SetTimer has come."""


@dataclass(frozen=True, slots=True)
class Wake:
    """The network changed, the machine woke up, HUP, or somebody came to log in.

    ``asked`` is True when a person wants it tried again now, whatever it waits for or has
    failed of, and an attempt that hangs begun anew; ``login`` when that person can be asked, too.
    """

    login: bool = False
    asked: bool = False


@dataclass(frozen=True, slots=True)
class WayOpen:
    """The server, or the first hop to it, takes connections again, after it took none."""


@dataclass(frozen=True, slots=True)
class LoginPossible:
    """What a login lacked is back (the agent with its key): nobody need be asked."""


@dataclass(frozen=True, slots=True)
class Prompting:
    """A prompt was shown (``waiting``) or answered: the first start's clock stands still."""

    waiting: bool


@dataclass(frozen=True, slots=True)
class Stop:
    """End in good order."""


Event = (
    Start
    | Connected
    | Failed
    | Gone
    | TimerFired
    | Wake
    | WayOpen
    | LoginPossible
    | Prompting
    | Stop
)


# Commands ----------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Connect:
    """Make the connection; ``may_prompt`` says whether a person may be asked."""

    may_prompt: bool


@dataclass(frozen=True, slots=True)
class Disconnect:
    """End the connection, or the attempt at one; what outlives a connection stays.

    Nothing open: nothing happens.
    """


@dataclass(frozen=True, slots=True)
class SetTimer:
    """Call back at ``at`` (the clock of ``now``); None: not at all. The last one counts."""

    at: float | None


@dataclass(frozen=True, slots=True)
class WatchWay:
    """Watch the way to the server, and tell by WayOpen; until it runs, or ends."""


@dataclass(frozen=True, slots=True)
class AwaitLogin:
    """Watch for what the login lacks, and tell by LoginPossible; until the next Connect."""


@dataclass(frozen=True, slots=True)
class GiveUp:
    """It has failed for good: undo everything, end with ``error``'s exit code."""

    error: SshvpnError


@dataclass(frozen=True, slots=True)
class Finish:
    """Undo everything, and end in good order."""


Command = Connect | Disconnect | SetTimer | WatchWay | AwaitLogin | GiveUp | Finish


# State -------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Life:
    """Where a session stands. ``phase`` is None before the start and after the end.

    Times are seconds on the clock of ``now``; ``deadline`` bounds the first start,
    ``prompt_since`` is when the prompt that is open now was shown. ``flaps`` counts connections
    in a row that were ended within a moment, ``silences`` those that fell silent within one while
    the way was open all the time; ``woken_at`` is when the last Wake came while it ran.
    """

    phase: State | None = None
    has_run: bool = False
    may_prompt: bool = True
    attempt: int = 0
    flaps: int = 0
    silences: int = 0
    reconnects: int = 0
    since: float | None = None
    woken_at: float | None = None
    retry_at: float | None = None
    deadline: float | None = None
    prompt_since: float | None = None
    last_error: SshvpnError | None = None


Step = tuple[Life, tuple[Command, ...]]


def backoff_s(attempt: int, jitter: float) -> float:
    """Return the wait before retry number ``attempt`` (from 1); ``jitter`` is in [0, 1).

    Grows from 0.5 s to 60 s; the jitter takes up to a quarter off, so that fifty gateways
    that lost one server do not come back in the same instant.
    """
    grown = BACKOFF_FIRST_S * BACKOFF_FACTOR ** min(attempt - 1, 64)
    return min(grown, BACKOFF_MOST_S) * (1 - jitter / 4)


def step(  # noqa: C901, PLR0911 (one return an event: it reads as the table it is)
    life: Life, event: Event, now: float, jitter: float = 0.0
) -> Step:
    """Return what ``life`` becomes by ``event`` at ``now``, and what is to be done."""
    match event:
        case Start(timeout_s):
            return _start(life, timeout_s, now)
        case Stop():
            return _stop(life)
        case _ if life.phase in (None, State.STOPPING):
            return life, ()
        case Connected():
            return _connected(life, now)
        case Failed(error):
            return _failed(life, error, now, jitter)
        case Gone(error):
            return _give_up(life, error)
        case TimerFired():
            return _timer_fired(life, now)
        case Wake(login, asked):
            return _wake(life, now, login=login, asked=asked or login)
        case WayOpen():
            return _way_open(life)
        case LoginPossible():
            waits = life.phase is State.BACKOFF and life.retry_at is None
            return _try_again(life) if waits else (life, ())
        case Prompting(waiting):
            return _prompting(life, waiting=waiting, now=now)


def _start(life: Life, timeout_s: float | None, now: float) -> Step:
    if life.phase is not None:
        return life, ()
    deadline = None if timeout_s is None else now + timeout_s
    begun = replace(life, phase=State.STARTING, deadline=deadline)
    return begun, (SetTimer(deadline), Connect(may_prompt=True))


def _stop(life: Life) -> Step:
    if life.phase is State.STOPPING:
        return life, ()
    stopping = replace(life, phase=State.STOPPING, retry_at=None, deadline=None)
    return stopping, (SetTimer(None), Finish())


def _connected(life: Life, now: float) -> Step:
    running = replace(
        life,
        phase=State.RUNNING,
        has_run=True,
        may_prompt=False,
        reconnects=life.reconnects + (1 if life.has_run else 0),
        since=now,
        retry_at=None,
        deadline=None,
        prompt_since=None,
        last_error=None,
    )
    return running, (SetTimer(None),)


def _is_mendable(life: Life, error: SshvpnError) -> bool:
    # A port that was ours and is taken now may come back; one that was never ours is a mistake.
    return error.retry is Retry.FOREVER or (life.has_run and error.retry is Retry.ONCE_RUN)


def _failed(life: Life, error: SshvpnError, now: float, jitter: float) -> Step:
    if life.phase is State.FAILED:
        return life, ()
    failed, _ = _prompting(replace(life, last_error=error), waiting=False, now=now)
    if _is_mendable(life, error):
        return _back_off(failed, now, jitter)
    if not life.has_run:
        return replace(failed, phase=State.FAILED), (SetTimer(None), GiveUp(error))
    if error.retry is Retry.ON_LOGIN:
        waiting = replace(failed, phase=State.BACKOFF, retry_at=None, attempt=0)
        return waiting, (Disconnect(), SetTimer(None), AwaitLogin())
    ended = replace(failed, phase=State.FAILED, retry_at=None)
    return ended, (SetTimer(None), Disconnect())


def _back_off(life: Life, now: float, jitter: float) -> Step:
    stood = life.phase is State.RUNNING and life.since is not None
    is_by_wake = stood and life.woken_at is not None and now - life.woken_at <= WOKEN_FOR_S
    if stood:
        life = _count_moments(life, now, is_by_wake=is_by_wake)
    attempt = life.attempt + 1
    # Only once: the next connection has not been woken.
    retry_at = now + (0.0 if is_by_wake else backoff_s(attempt, jitter))
    life = replace(life, woken_at=None)
    waiting = replace(life, phase=State.BACKOFF, attempt=attempt, retry_at=retry_at)
    if life.deadline is not None and retry_at >= life.deadline and life.last_error is not None:
        return _give_up(waiting, life.last_error)
    return waiting, (Disconnect(), SetTimer(retry_at), WatchWay())


def _count_moments(life: Life, now: float, *, is_by_wake: bool) -> Life:
    """Return ``life`` after a connection that stood: what came before it has been mended.

    A server that ends each one within a moment has not; nor has one that says nothing any more,
    while a link may be cut every few seconds, and be back as often.
    """
    if now - (life.since or 0.0) >= STEADY_AFTER_S:
        life = replace(life, flaps=0, silences=0)
    elif not isinstance(life.last_error, NoAnswerError):
        life = replace(life, flaps=life.flaps + 1)
        return replace(life, attempt=max(life.flaps - 1, 0))
    elif not is_by_wake:
        life = replace(life, silences=life.silences + 1)
    # A silence has its own patience: it took seconds to be noticed already.
    return replace(life, attempt=max(life.silences - SILENCES, 0))


def _give_up(life: Life, error: SshvpnError) -> Step:
    ended = replace(life, phase=State.FAILED, retry_at=None, deadline=None, last_error=error)
    return ended, (SetTimer(None), GiveUp(error))


def _timer_fired(life: Life, now: float) -> Step:
    if life.phase is State.BACKOFF and life.retry_at is not None:
        if now < life.retry_at:
            return life, (SetTimer(life.retry_at),)
        return _try_again(life)
    if life.phase is State.STARTING and life.deadline is not None and life.prompt_since is None:
        if now < life.deadline:
            return life, (SetTimer(life.deadline),)
        return _give_up(life, life.last_error or UnreachableError.timed_out())
    return life, ()


def _try_again(life: Life) -> Step:
    starting = replace(life, phase=State.STARTING, retry_at=None)
    return starting, (SetTimer(life.deadline), Connect(may_prompt=life.may_prompt))


def _wake(life: Life, now: float, *, login: bool, asked: bool) -> Step:
    waits = life.phase is State.BACKOFF and (life.retry_at is not None or asked)
    if waits or (asked and life.phase is State.FAILED and life.has_run):
        may_prompt = life.may_prompt or login
        return _try_again(replace(life, attempt=0, flaps=0, silences=0, may_prompt=may_prompt))
    if life.phase is State.RUNNING:
        return replace(life, woken_at=now), ()
    # Who can be asked has come to log in, or to wait with this attempt.
    return _begin_anew(life) if asked and not login else (life, ())


def _way_open(life: Life) -> Step:
    life = replace(life, silences=0)  # it had been cut
    if life.phase is State.BACKOFF and life.retry_at is not None:
        return _try_again(life)
    return _begin_anew(life)


def _begin_anew(life: Life) -> Step:
    """Give up the attempt for another: what it sent into a silence is sent again late, or never."""
    if life.phase is State.STARTING and life.prompt_since is None:
        return life, (Disconnect(), Connect(may_prompt=life.may_prompt))
    return life, ()


def _prompting(life: Life, *, waiting: bool, now: float) -> Step:
    if waiting and life.phase is not State.STARTING:
        return life, ()  # of an attempt that has ended: the timer is that of the next one
    if waiting and life.prompt_since is None:
        return replace(life, prompt_since=now), (SetTimer(None),)
    if waiting or life.prompt_since is None:
        return life, ()
    held = now - life.prompt_since
    deadline = None if life.deadline is None else life.deadline + held
    return replace(life, prompt_since=None, deadline=deadline), (SetTimer(deadline),)
