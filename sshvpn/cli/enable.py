"""``sshvpn enable`` and ``disable``: what is kept up for ever, by systemd."""

from __future__ import annotations

import contextlib
import json
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import click

from sshvpn import control
from sshvpn.cli.attach import Ended
from sshvpn.cli.completers import complete_enabled, complete_host
from sshvpn.cli.forward_request import ForwardWords, build_profile
from sshvpn.cli.options import kind_options
from sshvpn.cli.restart import profile_now
from sshvpn.cli.tunnel_request import TunnelWords, build_profiles
from sshvpn.errors import NotRunningError, SshvpnError, UsageError
from sshvpn.model import ForwardProfile, TunnelProfile
from sshvpn.services import KINDS, Kind, is_service_name, limits
from sshvpn.wiring import places, services, terminal

Profile = ForwardProfile | TunnelProfile

_UP_WITHIN_S = 30.0
_POLL_S = 0.2
_KEY_HELPS = ("auth_refused", "needs_login")
"""Codes of a login that fails because nobody is there to type, and no agent."""
_FAR = "umask 077; mkdir -p .ssh; cat >>.ssh/authorized_keys"


# enable --------------------------------------------------------------------------------------


@click.command(short_help="Keep NAME up for ever, as a systemd service.")
@click.argument("name", shell_complete=complete_host)
@kind_options
@click.option(
    "--make-key",
    is_flag=True,
    help="Make a key for it alone, as limited as it can be, and print the line for the server.",
)
@click.option("--try-login", "is_trial", is_flag=True, hidden=True)
@click.option("--fit", "has_ended", is_flag=True, hidden=True)
@click.pass_context
def enable(
    context: click.Context,
    name: str,
    *,
    session: str | None,
    make_key: bool,
    is_trial: bool,
    has_ended: bool,
) -> None:
    """Keep NAME up for ever: now, after every crash and every reboot, with nobody logged in.

    NAME is a profile, what runs under that name, or a HOST. A tunnel becomes a service of the
    system, a forward one of yours (which needs lingering). The profile is copied. The login is
    proved first as the service will do it: without an agent and without a terminal.
    """
    if is_trial:
        context.exit(_try_login())
    if has_ended:
        _fit(name)
        return
    services.leave_root()
    if not is_service_name(name):
        raise UsageError(
            f"{name[:64]} cannot be the name of a service",
            "write a profile with a name of letters, digits, . _ - (at most 40) and enable that",
        )
    profile = _profile(name, session)
    kind = KINDS[_session(profile)]
    services.check_adapters(profile)
    key = services.key(name, make=make_key)
    text = services.profile_text(_with_key(profile, key) if key else profile)
    with contextlib.closing(services.manager_for(kind)) as manager:
        manager.install(name, text)
        refused = manager.try_login()
        if refused is not None:
            _explain(profile, name, refused, has_key=key is not None)
        _leave(kind, name)
        before = services.state_of(kind, name).get("InvocationID", "")
        manager.start()
        waits_for = _wait_up(kind, name, before)
        manager.keep()
        lacks = manager.lacks_namespaces()
    click.echo(f"{name} is enabled: it comes back after a crash and a reboot")
    if waits_for:
        click.echo(f"  it is not up yet: {waits_for}")
    if lacks:
        click.echo(f"  its sandbox has no namespaces (docs/service.md): {lacks}")
    of_user = "--user " if kind.is_users else ""
    click.echo(f"  see: systemctl {of_user}status {kind.unit_of(name)}; sshvpn logs {name}")


def _session(profile: Profile) -> str:
    return "tunnel" if isinstance(profile, TunnelProfile) else "forward"


def _profile(name: str, session: str | None) -> Profile:
    """Return what NAME means: a profile of the file, else what runs, else a HOST for a tunnel."""
    from sshvpn.config import load

    config = load()
    forwards = {**config.forwards, **config.notebooks}
    sections = {"tunnel": config.tunnels, "forward": forwards}
    known = [s for s, profiles in sections.items() if name in profiles and session in (None, s)]
    if len(known) > 1:
        raise UsageError(
            f"{name} is a tunnel and a forward", f"say which: sshvpn enable --tunnel {name}"
        )
    if known == ["forward"]:
        return _forward(name)
    if not known:
        running = _running(name, session)
        if len(running) > 1:
            raise UsageError(
                f"{len(running)} things called {name} are up", "give the one a --name, or a profile"
            )
        if running:
            return replace(running[0], name=name)
        if session == "forward":
            raise NotRunningError(
                f"there is no forward {name}: no profile, and nothing that is up",
                "start it first, with --name; or write a profile: sshvpn config edit",
            )
    return build_profiles(TunnelWords(hosts=(name,)))[0]


def _forward(*names: str) -> ForwardProfile:
    return build_profile(ForwardWords(words=names))


def _running(name: str, session: str | None) -> list[Profile]:
    found = [
        profile_now(directory, snapshot)
        for directory, snapshot in control.snapshots(places.runtimes()).items()
        if snapshot["name"] == name and snapshot["kind"] in KINDS
        and session in (None, snapshot["kind"])
    ]  # fmt: skip
    return [profile for profile in found if profile is not None]


def _with_key(profile: Profile, key: Path) -> Profile:
    """Return ``profile`` with the service's own key, and no other: each offer is an attempt."""
    own = (("IdentityFile", str(key)), ("IdentitiesOnly", "yes"))
    others = [pair for pair in profile.ssh.options if pair[0].lower() not in _OWN_KEYS]
    ssh = replace(profile.ssh, identity_files=(), options=(*own, *others))
    return replace(profile, ssh=ssh)


_OWN_KEYS = ("identityfile", "identitiesonly")


def _try_login() -> int:
    """Log in here and now with the configuration's only profile; the error goes out as JSON."""
    try:
        from sshvpn.config import load

        is_tunnel = bool(load().tunnels)
        services.try_login(build_profiles(TunnelWords(hosts=()))[0] if is_tunnel else _forward())
    except SshvpnError as error:
        record = {"code": error.code, "message": error.message, "hint": error.hint}
        click.echo(json.dumps(record))
        return error.exit_code
    return 0


def _fit(name: str) -> None:
    """Let a service that has just ended do without namespaces, if it ended of them; say so."""
    why = services.fit(_forward(), name)
    if why is not None:
        click.echo(f"{name} does without namespaces until the next boot: {why}", err=True)


def _explain(profile: Profile, name: str, refused: dict[str, Any], *, has_key: bool) -> None:
    """Raise why the service cannot log in; where a key would help, show which, or make it."""
    error = Ended(
        refused["code"], refused["exit_code"], f"{name} cannot log in by itself: "
        f"{refused['message']}", refused.get("hint", ""),
    )  # fmt: skip
    if refused["code"] not in _KEY_HELPS:
        raise error
    if not has_key and not _wants_key(name):
        error.hint = f"a key without a passphrase lets it: sshvpn enable {name} --make-key"
        raise error
    key = services.key(name, make=True)
    line = f"{limits(profile)} {services.key_line(name)}"
    click.echo(f"the key of {name} is {key}; its line in the server's authorized_keys:")
    click.echo(line)
    click.echo(f"as one command:\n  echo '{line}' | ssh {profile.host} '{_FAR}'")
    error.hint = f"add that line at the server, then again: sshvpn enable {name}"
    raise error


def _wants_key(name: str) -> bool:
    if terminal.prompter() is None:
        return False
    question = f"Make a key for {name} alone, as limited as it can be? [Y/n] "
    answer = terminal.ask(question, echo=True)
    return answer is not None and answer.strip().lower() in ("", "y", "yes")


def _leave(kind: Kind, name: str) -> None:
    """Take down what runs by hand: the service takes its place."""
    for directory, snapshot in control.snapshots(places.runtimes()).items():
        if (snapshot["kind"], snapshot["name"]) != (kind.session, name):
            continue
        if services.unit_of_process(int(snapshot["records"][0]["pid"])) != kind.unit_of(name):
            control.take_down(directory)
            click.echo(f"{name} goes on as a service", err=True)


def _wait_up(kind: Kind, name: str, before: str) -> str:
    """Return when the service is up: "", or after a while why it is not yet.

    What is seen of the invocation ``before`` is not looked at: systemd ends it first, and keeps
    its state and the count of its restarts until the next one begins.
    Raises what ended it: then it would end so at each boot.
    """
    deadline = time.monotonic() + _UP_WITHIN_S
    while True:
        seen = services.state_of(kind, name)
        is_new = seen.get("InvocationID", "") != before
        status = seen.get("StatusText", "") if is_new else ""
        if is_new and seen.get("ActiveState") == "active":
            return ""
        has_ended = seen.get("ActiveState") == "failed" or seen.get("NRestarts", "0") != "0"
        if is_new and has_ended:
            code = int(seen.get("ExecMainStatus") or 1)
            told = status.removeprefix("failed: ") or "the service does not start"
            raise Ended("failed", code, told, f"see: sshvpn logs {name}")
        if time.monotonic() > deadline:
            return status or "it is starting"
        time.sleep(_POLL_S)


# disable -------------------------------------------------------------------------------------


@click.command(short_help="Undo enable: NAME ends, and does not come back.")
@click.argument("name", shell_complete=complete_enabled)
@kind_options
def disable(name: str, *, session: str | None) -> None:
    """End the service NAME, and remove all that enable made for it: its units, profile and key."""
    services.leave_root()
    found = [
        kind for kind, other in services.enabled()
        if other == name and session in (None, kind.session)
    ]  # fmt: skip
    if len(found) > 1:
        raise UsageError(
            f"{name} is a tunnel and a forward", f"say which: sshvpn disable --tunnel {name}"
        )
    if not found:
        raise NotRunningError(f"{name} is not enabled", "see: sshvpn status")
    with contextlib.closing(services.manager_for(found[0])) as manager:
        manager.remove(name)
    click.echo(f"{name} is disabled")
    if any(other == name for _, other in services.enabled()):
        return  # the other kind's service of that name logs in with the same key
    if services.remove_key(name):
        click.echo(
            "  its key is removed; its line in the server's authorized_keys is of no use now"
        )
