"""Groups of commands that tell a mistyped one the nearest."""

from typing import Any

from typer.core import TyperGroup

from fss_bench.errors import UnknownNameError


class NamedCommands(TyperGroup):
    """A group in which an unknown command is a mistake like an unknown method."""

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        """The command of the first word.

        Raises:
            UnknownNameError: there is none; the nearest is suggested.
        """
        name = args[0]
        if not name.startswith("-") and not ctx.resilient_parsing and name not in self.commands:
            kind = f"{self.name} command" if ctx.parent else "command"
            raise UnknownNameError(kind, name, self.list_commands(ctx))
        return super().resolve_command(ctx, args)
