"""ssh's questions: the real program, run as ssh runs it, and the server that it asks."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from sshvpn.errors import HostKeyUnknownError, LoginNeededError
from sshvpn.system.ssh.askpass import AskpassServer
from tests.unit.fakes import FakePrompter


async def run(server: AskpassServer, prompt: str, kind: str = "") -> tuple[int | None, str]:
    """Ask as ssh does; return the program's exit code and what it printed."""
    environment = server.environment() | ({"SSH_ASKPASS_PROMPT": kind} if kind else {})
    program = await asyncio.create_subprocess_exec(
        environment["SSH_ASKPASS"], prompt, env=environment, stdout=asyncio.subprocess.PIPE
    )
    out, _ = await program.communicate()
    return program.returncode, out.decode()


def test_what_is_typed_reaches_ssh(tmp_path: Path) -> None:
    person = FakePrompter("tulip\u00e9 4", "yes")

    async def story() -> None:
        async with AskpassServer(tmp_path / "ask", person) as server:
            assert await run(server, "Password: ") == (0, "tulip\u00e9 4\n")
            assert await run(server, "Are you sure (yes/no)? ") == (0, "yes\n")
            assert server.answers == 2
            assert (tmp_path / "ask").stat().st_mode & 0o777 == 0o600

    asyncio.run(story())
    assert person.asked == [("Password: ", False), ("Are you sure (yes/no)? ", True)]
    assert not (tmp_path / "ask").exists()


def test_what_a_server_says_is_shown_line_by_line_and_harmless(tmp_path: Path) -> None:
    person = FakePrompter("x")

    async def story() -> None:
        async with AskpassServer(tmp_path / "ask", person) as server:
            await run(server, "one\x1b[2J\nPassword:\x07 ")

    asyncio.run(story())
    assert person.asked == [("one\\x1b[2J\nPassword:\\x07 ", False)]


def test_a_confirmation_is_yes_or_nothing(tmp_path: Path) -> None:
    person = FakePrompter("", "yes", "no")

    async def story() -> None:
        async with AskpassServer(tmp_path / "ask", person) as server:
            codes = [(await run(server, "Allow?", "confirm"))[0] for _ in range(3)]
            assert codes == [0, 0, 1]

    asyncio.run(story())


def test_a_notice_is_told_until_ssh_ends_it(tmp_path: Path) -> None:
    person = FakePrompter()

    async def story() -> None:
        async with AskpassServer(tmp_path / "ask", person) as server:
            shown = asyncio.create_task(run(server, "Touch your key", "none"))
            while not person.told:
                await asyncio.sleep(0.001)
            assert not shown.done()
            assert (server.questions, server.answers) == (1, 0)
        await shown

    asyncio.run(story())
    assert person.told == ["Touch your key"]


@pytest.mark.parametrize("prompter", [None, FakePrompter(None)], ids=["nobody", "gave up"])
def test_a_question_without_an_answer_gives_ssh_none_and_ends_the_login(
    tmp_path: Path, prompter: FakePrompter | None
) -> None:
    async def story() -> None:
        async with AskpassServer(tmp_path / "ask", prompter) as server:
            asked = asyncio.create_task(run(server, "alice@jump's password: "))
            with pytest.raises(LoginNeededError, match="alice@jump's password:"):
                await server.unless_given_up(asyncio.sleep(60))
            assert not asked.done(), "ssh would send an empty password"
        code, said = await asked
        assert (code, said) == (1, "")

    asyncio.run(story())


@pytest.mark.parametrize("address", ["203.0.113.30", "<no hostip for proxy command>"])
def test_a_host_key_that_nobody_accepts_is_an_unknown_one(tmp_path: Path, address: str) -> None:
    question = (
        f"The authenticity of host 'jump ({address})' can't be established.\n"
        "Are you sure you want to continue connecting (yes/no/[fingerprint])? "
    )

    async def story() -> None:
        async with AskpassServer(tmp_path / "ask", None) as server:
            asked = asyncio.create_task(run(server, question))
            with pytest.raises(HostKeyUnknownError, match=r"for jump$"):
                await server.unless_given_up(asyncio.sleep(60))
        await asked

    asyncio.run(story())


def test_work_that_ends_first_is_what_counts(tmp_path: Path) -> None:
    async def fail() -> None:
        raise ValueError("its own")

    async def story() -> None:
        async with AskpassServer(tmp_path / "ask", None) as server:
            assert await server.unless_given_up(asyncio.sleep(0, "done")) == "done"
            with pytest.raises(ValueError, match="its own"):
                await server.unless_given_up(fail())

    asyncio.run(story())


def test_the_address_that_ssh_does_not_know_is_told_by_us(tmp_path: Path) -> None:
    person = FakePrompter("yes", "yes")
    prompt = "The authenticity of host 'box (<no hostip for proxy command>)' can't be (yes/no)? "

    async def story() -> None:
        async with AskpassServer(tmp_path / "ask", person) as server:
            await run(server, prompt)
            server.peer = "203.0.113.20"
            await run(server, prompt)

    asyncio.run(story())
    assert person.asked[0][0] == prompt
    assert "host 'box (203.0.113.20)' can't" in person.asked[1][0]
