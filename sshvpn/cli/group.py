"""A command that has commands of its own, too: ``notebook HOST``, and ``notebook list HOST``."""

from __future__ import annotations

from typing import Any

import click


class CommandGroup(click.Group):
    """A group for which a line that begins with none of its commands' names is ``plain``'s.

    A word that is one of the names, and is not meant so, goes behind ``--``.
    """

    def __init__(self, plain: click.Command, **options: Any) -> None:
        super().__init__(plain.name, help=plain.help, short_help=plain.short_help, **options)
        self.plain = plain

    def make_context(
        self,
        info_name: str | None,
        args: list[str],
        parent: click.Context | None = None,
        **extra: Any,
    ) -> click.Context:
        """Return the context of the command that ``args`` are for."""
        is_group = args[:1] and args[0] in self.commands
        if is_group or (extra.get("resilient_parsing") and not args):
            return super().make_context(info_name, args, parent, **extra)
        return self.plain.make_context(info_name, args, parent, **extra)

    def shell_complete(
        self, ctx: click.Context, incomplete: str
    ) -> list[click.shell_completion.CompletionItem]:
        """Offer the names of the commands, and what the plain one takes."""
        offered = super().shell_complete(ctx, incomplete)
        with self.plain.make_context(ctx.info_name, [], ctx.parent, resilient_parsing=True) as own:
            offered += self.plain.shell_complete(own, incomplete)
            if not incomplete.startswith("-"):
                for param in self.plain.params:
                    if isinstance(param, click.Argument):
                        offered += param.shell_complete(own, incomplete)
        return list({item.value: item for item in offered}.values())
